//! What the agent and the kernel programs agree on: the bytes in the maps ([`wire`]) and what a packet goes
//! through ([`datapath`]). Neither aya nor Kubernetes is known here, so the same datapath runs in a kernel
//! program and in `cargo test`.
#![no_std]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod datapath;
pub mod digest;
pub mod header;
pub mod maglev;
pub mod programs;
pub mod reason;
pub mod tcp;
pub mod verdict;
pub mod wire;
