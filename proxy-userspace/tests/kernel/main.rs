//! The kernel side against this kernel. Needs root: every test has mount and network namespaces of its own, and a BPF
//! filesystem of its own.

mod adoption;
mod attachment;
mod cleaning;
mod instances;
mod inventory;
mod mounts;
mod netfilter;
mod ours;
mod preconditions;
mod reading;
mod responsiveness;
mod sandbox;
mod sockets;
mod sweeping;
