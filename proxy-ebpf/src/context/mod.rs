//! Packets and calls on sockets as the kernel hands them to a program, as [`proxy_common::datapath::Packet`] and
//! [`proxy_common::datapath::socket::Socket`].

mod atomic;
mod fib;
mod memory;
mod sock_addr;
mod socket;
mod storage;
mod tc;
mod xdp;

pub use atomic::fetch_increment;
pub use sock_addr::SocketCall;
pub use storage::StorageElement;
pub use tc::TcPacket;
pub use xdp::XdpPacket;
