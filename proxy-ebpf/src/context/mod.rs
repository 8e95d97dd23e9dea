//! Packets as the kernel hands them to a program, as [`proxy_common::datapath::Packet`].

mod atomic;
mod fib;
mod memory;
mod socket;
mod tc;
mod xdp;

pub use atomic::fetch_increment;
pub use tc::TcPacket;
pub use xdp::XdpPacket;
