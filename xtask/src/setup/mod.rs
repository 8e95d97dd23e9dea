//! Installs what is missing and says so; a machine that has everything is left alone, silently.

mod bpf_linker;
mod kernel;
mod packages;
mod rust_src;
mod static_target;

use anyhow::{Context as _, Result};

pub use kernel::Kernel;
pub use packages::Package;

#[derive(clap::Args)]
pub struct Options {
    /// Also build the Kubernetes control plane that `test kubernetes` runs (some minutes)
    #[arg(long)]
    kubernetes: bool,
}

/// What the kernel programs are built with.
pub fn build_tools() -> Result<()> {
    rust_src::ensure()
        .context("the Rust standard library's source, which the kernel programs' `core` is built from")?;
    bpf_linker::ensure().context("bpf-linker, which links the kernel programs")
}

/// What programs without libraries are built with.
pub fn static_tools(target: &str) -> Result<()> {
    static_target::ensure(target)
}

/// What test clusters are made and looked at with.
pub fn cluster_tools() -> Result<()> {
    packages::ensure(&[
        Package { program: "ip", name: "iproute2" },
        Package { program: "sysctl", name: "procps" },
        Package { program: "nsenter", name: "util-linux" },
        Package { program: "nft", name: "nftables" },
        Package { program: "iptables-legacy", name: "iptables" },
        Package { program: "ethtool", name: "ethtool" },
        Package { program: "bpftool", name: "bpftool" },
        Package { program: "iperf3", name: "iperf3" },
        Package { program: "strace", name: "strace" },
    ])
}

/// What other kernels are run with.
pub fn virtual_machine_tools() -> Result<()> {
    cluster_tools()?;
    packages::ensure(&[
        Package { program: "qemu-system-x86_64", name: "qemu-system-x86" },
        Package { program: "busybox", name: "busybox-static" },
        Package { program: "modprobe", name: "kmod" },
        Package { program: "strip", name: "binutils" },
        Package { program: "xz", name: "xz-utils" },
    ])
}

/// What the images of a kind cluster are made with.
pub fn kind_image_tools() -> Result<()> {
    packages::ensure(&[Package { program: "mmdebstrap", name: "mmdebstrap" }, Package { program: "cc", name: "gcc" }])
}

/// What a kind cluster runs on. Netavark and its name server lie outside of the path.
pub fn kind_engine_tools() -> Result<()> {
    packages::ensure(&[
        Package { program: "podman", name: "podman" },
        Package { program: "/usr/lib/podman/netavark", name: "netavark" },
        Package { program: "/usr/lib/podman/aardvark-dns", name: "aardvark-dns" },
        Package { program: "runc", name: "runc" },
        Package { program: "iptables", name: "iptables" },
        Package { program: "ip", name: "iproute2" },
        Package { program: "nsenter", name: "util-linux" },
    ])
}

pub fn run(options: &Options) -> Result<()> {
    build_tools()?;
    cluster_tools()?;
    if options.kubernetes {
        crate::kubernetes::control_plane()?;
    }
    eprintln!("setup: everything is in place");
    Ok(())
}
