//! What the suites that span crates are made of; most of them need root.
//!
//! - [`bench`]: nanoseconds per packet;
//! - [`cluster`]: nodes, pods, a fabric and an outside client, each a network namespace, with one real agent process
//!   per node;
//! - [`comparison`]: the benchmark of connections through a ClusterIP and past it;
//! - [`demo`]: what `cargo xtask demo` shows;
//! - [`kind`]: what `cargo xtask kind test` and `bench` do with a cluster of real nodes;
//! - [`kubernetes`]: a real control plane for those nodes;
//! - [`machine`]: what a cluster could leave behind, looked at before and after;
//! - [`packet`]: packets, built and read by a library that knows nothing of the datapath;
//! - [`patience`]: how much longer slow machines may take;
//! - [`rows`]: what goes into the datapath and what has to come out;
//! - [`runner`]: hosts of the datapath that packet rows are run by;
//! - [`scale`]: how much a test does;
//! - [`traffic`]: small servers and clients that run inside the cluster, and what they measured.

pub mod bench;
pub mod cluster;
pub mod comparison;
pub mod demo;
pub mod kind;
pub mod kubernetes;
pub mod machine;
pub mod packet;
pub mod patience;
pub mod rows;
pub mod runner;
pub mod scale;
pub mod statistics;
pub mod traffic;
