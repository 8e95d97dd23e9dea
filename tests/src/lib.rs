//! What the suites that need root are made of.
//!
//! - [`cluster`]: nodes, pods, a fabric and an outside client, each a network namespace, with one real agent process
//!   per node;
//! - [`comparison`]: the benchmark of connections through a ClusterIP and past it;
//! - [`kubernetes`]: a real control plane for those nodes;
//! - [`demo`]: what `cargo xtask demo` shows;
//! - [`traffic`]: small servers and clients that run inside them, and what they measured.

pub mod cluster;
pub mod comparison;
pub mod demo;
pub mod kubernetes;
pub mod runner;
pub mod statistics;
pub mod traffic;
