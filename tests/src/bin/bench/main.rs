//! What `cargo xtask bench` runs: packets and control plane by programs of their own, then real connections; or packets
//! beside those of another revision.

mod against;
mod bars;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use proxy_tests::comparison::{self, Effort};
use serde_json::{Value, json};

#[derive(Parser)]
struct Options {
    /// Program that measures packets and prints JSON
    #[arg(long)]
    packets: PathBuf,
    /// Program that measures the control plane and prints JSON
    #[arg(long)]
    control_plane: PathBuf,
    /// The program that measures packets as another revision has it: only these two are compared
    #[arg(long)]
    against: Option<PathBuf>,
    /// Also write the results there
    #[arg(long)]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds: shows that it runs, judges nothing
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: a bar was missed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether no bar was missed.
fn run(options: &Options) -> Result<bool> {
    comparison::stay_on_one_processor()?;
    if let Some(before) = &options.against {
        println!(
            "packets: medians of nanoseconds; ratios of what each costs beside a minimal DNAT program, with intervals"
        );
        let results = against::run(&options.packets, before)?;
        println!("{}", comparison::figures(&results));
        write(options, &json!({"against": results}))?;
        return Ok(true);
    }
    println!("packets: nanoseconds by BPF_PROG_TEST_RUN, and as a ratio to a minimal DNAT program");
    let packets = measured_by(&options.packets)?;
    println!("{}\ncontrol plane: objects in memory to maps", comparison::figures(&packets));
    let control_plane = measured_by(&options.control_plane)?;
    println!("{}\nconnections: through a ClusterIP beside straight to the pod", comparison::figures(&control_plane));

    let effort = if options.quick {
        Effort { rounds: 3, window: Duration::from_millis(200) }
    } else {
        Effort { rounds: 20, window: Duration::from_millis(1000) }
    };
    let connections = comparison::run(effort, |done| {
        eprintln!("  {:?} {:?} {} services: {:.3}", done.metric, done.placement, done.services, done.ratio.median);
    })?;
    println!("{}\nbars", comparison::comparisons(&connections));
    let bars = bars::all(&packets, &control_plane, &connections);
    println!("{}", comparison::figures(&serde_json::to_value(&bars)?));
    let results = json!({"packets": packets, "control_plane": control_plane, "connections": connections, "bars": bars});
    write(options, &results)?;
    // Three short rounds are no evidence.
    Ok(options.quick || !bars.iter().any(bars::Bar::is_missed))
}

fn write(options: &Options, results: &Value) -> Result<()> {
    let Some(file) = &options.json else { return Ok(()) };
    fs::write(file, format!("{results:#}\n")).with_context(|| format!("write {}", file.display()))
}

fn measured_by(program: &Path) -> Result<Value> {
    let output = Command::new(program).output().with_context(|| format!("run {}", program.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}: {}", program.display(), output.status, errors.trim());
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {} printed", program.display()))
}
