//! `cargo xtask kind`: a real Kubernetes cluster on this machine, made by an unmodified kind. It needs neither a container
//! registry nor an engine that was there before: all of it is made from Debian's packages and Go's modules.

mod bench;
mod cache;
mod cluster;
mod configuration;
mod control_groups;
mod down;
mod engine;
mod image_store;
mod interrupt;
mod node_base;
mod node_image;
mod on_kind;
mod parameters;
mod pod_network;
mod program;
mod progress;
mod proxy;
mod scripts;
mod state;
mod status;
mod system_images;
mod test;
mod up;
mod workloads;

use anyhow::Result;
use clap::Subcommand;

#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a cluster. The first run builds all it is made of (minutes), later ones take it from the cache
    Up(up::Options),
    /// Show what is up, and how one gets in
    Status,
    /// Try all that a cluster's users rely on, in the cluster that is up
    Test(test::Options),
    /// Measure pods through Services and past them, in turn with kube-proxy
    Bench(bench::Options),
    /// Put another proxy in the place of the one that the cluster has
    Proxy(proxy::Options),
    /// Remove the cluster, and leave the machine as it was
    Down,
}

pub fn run(options: &Options) -> Result<()> {
    match &options.verb {
        Verb::Up(options) => up::run(options),
        Verb::Status => status::run(),
        Verb::Test(options) => test::run(options),
        Verb::Bench(options) => bench::run(options),
        Verb::Proxy(options) => proxy::switch(options),
        Verb::Down => down::run(),
    }
}
