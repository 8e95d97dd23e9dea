//! `cargo xtask kind test`: what users of a cluster rely on, tried in the one that is up.

use anyhow::{Result, bail};

use super::cluster::Cluster;
use super::on_kind;
use super::proxy::Provider;
use crate::{command, image, machine, workspace};

#[derive(clap::Args)]
pub struct Options {
    /// All that the project asks of itself: 50 rolling updates, 10 upgrades, and agents that must not get ready. Twenty minutes
    #[arg(long)]
    full: bool,
    /// Rolling updates under load [default: 3]
    #[arg(long, value_name = "N")]
    rollouts: Option<u32>,
    /// Upgrades of the agents under load, an even number [default: 2]
    #[arg(long, value_name = "N")]
    upgrades: Option<u32>,
}

/// The tag for `deploy/kind`'s image to be upgraded to: this checkout's agent once more.
const NEXT: &str = "docker.io/library/sheave:dev-next";

/// # Errors
/// Not root, a cluster without a proxy, a build that fails, or something that is not as it should be.
pub fn run(options: &Options) -> Result<()> {
    machine::require_root("kind test")?;
    let proxy = on_kind::proxy_of_cluster()?;
    if proxy == Provider::None {
        bail!("the cluster has no proxy: `cargo xtask kind proxy sheave` installs one");
    }
    if proxy == Provider::Sheave {
        let output = Some(workspace::target_dir().join("sheave-image-next.tar"));
        Cluster::running()?.load(&image::build(&image::Options { output, tag: NEXT.to_owned() })?)?;
    }
    let (rollouts, upgrades) = if options.full { (50, 10) } else { (3, 2) };
    let mut test = on_kind::program()?;
    test.args(["test", "--proxy", proxy.name(), "--deploy"]).arg(workspace::root().join("deploy"));
    test.args(["--rollouts", &options.rollouts.unwrap_or(rollouts).to_string()]);
    test.args(["--upgrades", &options.upgrades.unwrap_or(upgrades).to_string()]);
    if options.full {
        test.arg("--readiness");
    }
    match command::become_command(&mut test)? {}
}
