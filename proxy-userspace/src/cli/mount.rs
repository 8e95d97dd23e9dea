use std::path::PathBuf;

use crate::kernel::{Mounted, Mounts, mount_missing};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the BPF filesystem belongs
    #[arg(long, value_name = "DIR", default_value = Mounts::BPFFS)]
    bpffs: PathBuf,

    /// Where control groups version 2 are to be mounted if they are mounted nowhere
    #[arg(long, value_name = "DIR", default_value = Mounts::CGROUP2)]
    cgroup2: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let Mounts { bpffs, cgroup2 } = mount_missing(&args.bpffs, &args.cgroup2)?;
    for (what, Mounted { path, anew }) in [("BPF filesystem", bpffs), ("control groups version 2", cgroup2)] {
        let state = if anew { "mounted" } else { "there already" };
        println!("{what}: {state}, at {}", path.display());
    }
    Ok(())
}
