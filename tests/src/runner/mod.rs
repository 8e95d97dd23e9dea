//! Hosts that run the datapath over a packet: plain Rust, and the kernel's programs by `BPF_PROG_TEST_RUN`.

pub mod object;
