//! `cargo xtask test kernels`: the suites that depend on the kernel, on other kernels than this machine's.

mod image;
mod virtual_machine;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::setup::{self, Kernel};
use crate::{command, test, workspace};
use image::Image;

/// The oldest kernel that the README promises, and one that has TCX.
const DEFAULT: [&str; 2] = ["6.1", "6.12"];

/// The processor is emulated, on a machine that may be busy: nothing here takes as long when it is well.
const LIMIT: Duration = Duration::from_secs(20 * 60);

/// How many times longer than on a real machine tests wait, see `proxy_tests::patience`.
const PATIENCE: u32 = 10;

/// Test programs: package, target, and arguments. Of the traffic, one walk of each kind at least in one CNI style; of
/// restarts, none that counts every one of a thousand datagrams a second, which an emulated processor may lose itself.
const SUITES: [(&str, &str, &str); 6] = [
    ("proxy-tests", "verifier", "--nocapture --test-threads=1"),
    ("proxy-tests", "rows", "--nocapture"),
    ("proxy-userspace", "kernel", "--test-threads=2"),
    (
        "proxy-tests",
        "traffic",
        "--nocapture --test-threads=1 routed::walk_1_ routed::walk_2_pod routed::walk_5 routed::walk_7 \
         routed::walk_10_no_endpoint bridge::walk_1_ bridge::walk_2_through_vxlan bridge::walk_4_outside_to_a_local \
         bridge::walk_5_outside bridge::walk_6 bridge::pods_that_come_later vlan_tagged",
    ),
    ("proxy-tests", "host", "--nocapture --test-threads=1"),
    ("proxy-tests", "restart", "--nocapture --test-threads=1 changes_during agents_with"),
];

#[derive(clap::Args)]
pub struct Choice {
    /// For `kernels`: a series of which Debian's newest is taken, or a folder with an unpacked linux-image package
    #[arg(long = "kernel", value_name = "KERNEL", default_values = DEFAULT)]
    kernels: Vec<String>,
}

/// Runs the suites on every kernel, whatever became of the one before.
///
/// # Errors
/// A suite failed or did not end, a machine did not start, or something is missing.
pub fn run(choice: &Choice) -> Result<()> {
    setup::virtual_machine_tools()?;
    let kernels = choice.kernels.iter().map(|wanted| Kernel::find(wanted)).collect::<Result<Vec<_>>>()?;
    let programs = Programs::build()?;
    let mut failed = Vec::new();
    for kernel in &kernels {
        if let Err(error) = boot(kernel, &programs) {
            eprintln!("xtask: Linux {}: {error:#}", kernel.release);
            failed.push(kernel.release.as_str());
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
}

fn boot(kernel: &Kernel, programs: &Programs) -> Result<()> {
    let root = workspace::target_dir().join("kernels").join(&kernel.release);
    let mut image = Image::new(&root, kernel)?;
    image.set("SHEAVE_BIN", "/sheave");
    image.set("SHEAVE_TRAFFIC_BIN", "/traffic");
    image.set("SHEAVE_TEST_PATIENCE", &PATIENCE.to_string());
    // Where a panic was is told; a backtrace needs the debug information that was taken out.
    image.set("RUST_BACKTRACE", "0");
    image.add_stripped(&programs.sheave, "sheave")?;
    image.add_stripped(&programs.traffic, "traffic")?;
    for (suite, program, arguments) in &programs.suites {
        image.add_stripped(program, &format!("tests/{suite}"))?;
        image.add_suite(suite, &format!("/tests/{suite} {arguments}"));
    }
    let ended = virtual_machine::run(&kernel.release, &kernel.image, &image.pack()?, LIMIT)?;
    let failed: Vec<&str> =
        SUITES.iter().map(|(_, suite, _)| *suite).filter(|suite| ended.get(*suite) != Some(&0)).collect();
    if !failed.is_empty() {
        bail!("failed or did not run: {}", failed.join(", "));
    }
    Ok(())
}

/// What runs in the machines.
struct Programs {
    sheave: PathBuf,
    traffic: PathBuf,
    /// Name, program and arguments.
    suites: Vec<(&'static str, PathBuf, &'static str)>,
}

impl Programs {
    fn build() -> Result<Self> {
        let sheave = test::build_agent(test::Profile::Dev)?;
        command::run(command::cargo().args(["build", "--package", "proxy-tests", "--bin", "traffic"]))?;
        let traffic = workspace::target_dir().join("debug/traffic");
        let mut suites = Vec::new();
        for (package, suite, arguments) in SUITES {
            suites.push((suite, build_suite(package, suite)?, arguments));
        }
        Ok(Self { sheave, traffic, suites })
    }
}

/// Builds a test program and says where it is: cargo puts a hash in its name.
fn build_suite(package: &str, suite: &str) -> Result<PathBuf> {
    let mut cargo = command::cargo();
    cargo.args(["test", "--no-run", "--message-format=json-render-diagnostics", "--package", package, "--test", suite]);
    // Errors of the compiler are for whoever looks on.
    let output = cargo.stderr(Stdio::inherit()).output().context("start cargo")?;
    if !output.status.success() {
        bail!("cargo cannot build the suite {suite}");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == suite && message["target"]["kind"][0] == "test";
        message["executable"].as_str().filter(|_| named).map(PathBuf::from)
    };
    messages.lines().find_map(executable).with_context(|| format!("cargo does not say where the suite {suite} is"))
}
