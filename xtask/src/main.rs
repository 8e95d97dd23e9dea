//! Everything that one does with a checkout of Sheave, as `cargo xtask VERB`. One verb, one file.

mod bench;
mod build_ebpf;
mod command;
mod demo;
mod go_programs;
mod image;
mod kernels;
mod kind;
mod kubernetes;
mod libraries;
mod lint;
mod machine;
mod oci;
mod revision;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, show, test and measure Sheave", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what the other verbs need: rust-src, bpf-linker, Debian packages. They call it themselves
    Setup(setup::Options),
    /// Build the kernel programs alone, and list them
    BuildEbpf,
    /// Show Service traffic on a two-node cluster made of network namespaces
    Demo(demo::Options),
    /// Run the tests: all but `kubernetes`, `kind` and `kernels` when none is named
    Test(test::Options),
    /// Measure packets, the control plane and real connections
    Bench(bench::Options),
    /// A real Kubernetes cluster on this machine, made by kind
    Kind(kind::Options),
    /// Make the container image, as an OCI archive; needs no container engine
    Image(image::Options),
    /// Check format and lints
    Lint,
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::BuildEbpf => build_ebpf::run(),
        Verb::Demo(options) => demo::run(&options),
        Verb::Test(options) => test::run(&options),
        Verb::Bench(options) => bench::run(&options),
        Verb::Kind(options) => kind::run(&options),
        Verb::Image(options) => image::run(&options),
        Verb::Lint => lint::run(),
    };
    // Printed here and not by the runtime, which would add a backtrace where RUST_BACKTRACE is set.
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
