//! Builds the kernel object, which the agent carries in itself.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

/// The toolchain that builds the kernel programs: the one that the workspace is pinned to.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().context("the package lies in the workspace")?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    // The datapath is compiled into the programs as well, and aya-build watches their own package only.
    println!("cargo::rerun-if-changed={}", workspace.join("proxy-common/src").display());
    for name in ["sheave-ebpf", "sheave-calibrator"] {
        // Left empty when AYA_BUILD_SKIP is set: everything compiles, and loading says what is missing.
        std::fs::write(out.join(name), [])?;
    }
    // core has to be built for the target, which a stable toolchain does only when asked like this.
    // And aya-build passes every line of its cargo on as a warning, progress too, for cargo to repeat on each build.
    // SAFETY: nothing else runs in this process yet.
    unsafe {
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    build(&workspace.join("proxy-ebpf"))
}

fn build(root: &Path) -> anyhow::Result<()> {
    let root_dir = root.to_str().context("the path of the workspace is not UTF-8")?;
    let package = Package { name: "proxy-ebpf", root_dir, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Custom(TOOLCHAIN))
}
