//! `cargo xtask kind up`: from nothing to a cluster that can be used, or back to nothing.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use super::cluster::{Cluster, output};
use super::engine::Engine;
use super::progress::{Progress, Step, say, spoken};
use super::proxy::{self, Provider};
use super::state::{self, CLUSTER, Record};
use super::{
    configuration, down, engine, interrupt, node_base, node_image, parameters, pod_network, scripts, status,
    system_images, workloads,
};
use crate::{command, go_programs, image, machine, setup, workspace};

#[derive(clap::Args)]
pub struct Options {
    /// Who answers at the addresses of Services
    #[arg(long, value_enum, default_value_t = Provider::Sheave)]
    proxy: Provider,
    /// How many nodes, the control plane's among them
    #[arg(long, value_name = "N", default_value_t = NODES_WANTED, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// A node image that this machine's own docker or podman pulls, such as kindest/node:v1.36.0, in place of one made here.
    /// Untested: no machine of the project's can pull
    #[arg(long, value_name = "IMAGE")]
    node_image: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { proxy: Provider::Sheave, nodes: NODES_WANTED, node_image: None }
    }
}

const NODES_WANTED: u32 = 3;

const PROGRAMS: Step = Step { name: "programs", seconds: 600 };
const BASE: Step = Step { name: "node base", seconds: 60 };
const NODE_IMAGE: Step = Step { name: "node image", seconds: 40 };
const WORKLOADS: Step = Step { name: "workload images", seconds: 60 };
const IMAGE: Step = Step { name: "image of Sheave", seconds: 120 };
const NODES: Step = Step { name: "nodes", seconds: 60 };
const NETWORK: Step = Step { name: "pod network", seconds: 5 };
const LOAD: Step = Step { name: "load images", seconds: 5 };
const PROXY: Step = Step { name: "proxy", seconds: 20 };

/// # Errors
/// Not root, a cluster is up already, or one of the steps fails: then what was made of the cluster is removed.
pub fn run(options: &Options) -> Result<()> {
    machine::require_root("kind up")?;
    let _lock = state::lock()?;
    if let Some(record) = Record::load()? {
        let is_up = record.complete && record.engine.is_none_or(engine::is_running);
        if is_up {
            bail!("a cluster is up already: see `cargo xtask kind status`; `cargo xtask kind down` removes it");
        }
        say("removing what is left of a cluster that has ended or was not finished");
        down::remove(&record)?;
    }
    let machine_engine = options.node_image.as_ref().map(|_| machine_engine()).transpose()?;
    setup::kind_image_tools()?;
    if machine_engine.is_none() {
        setup::kind_engine_tools()?;
    }
    interrupt::watch()?;
    let image = options.node_image.clone().map_or_else(node_image::name, Ok)?;
    let mut record = Record { machine_engine, proxy: options.proxy, image, ..Record::default() };
    let mut progress = Progress::new(steps(options)?);
    progress.announce();
    let done = build(options, &mut record, &mut progress).and_then(|()| start(options, &mut record, &mut progress));
    if let Err(error) = done {
        if state::folder().exists() {
            say("removing what was made of the cluster");
            down::remove(&record).context("after a failure")?;
        }
        return Err(error);
    }
    say(&format!(
        "up in {}: {} nodes, {}, proxy {}",
        spoken(progress.elapsed()),
        options.nodes,
        record.image,
        record.proxy.name()
    ));
    if options.proxy == Provider::None {
        say("without a proxy no Service answers: CoreDNS does not become ready");
    }
    status::hints(&Cluster::running()?)
}

/// What is not in the cache, and what is never there.
fn steps(options: &Options) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if !go_programs::missing(programs(options)?)?.is_empty() {
        steps.push(PROGRAMS);
    }
    if !node_base::entry().is_ready() {
        steps.push(BASE);
    }
    if options.node_image.is_none() && !node_image::entry()?.is_ready() {
        steps.push(NODE_IMAGE);
    }
    steps.push(WORKLOADS);
    if options.proxy != Provider::KubeProxy {
        steps.push(IMAGE);
    }
    steps.push(NODES);
    if options.node_image.is_none() {
        steps.push(NETWORK);
    }
    steps.push(LOAD);
    if options.proxy != Provider::None {
        steps.push(PROXY);
    }
    Ok(steps)
}

/// All that a node image is made of, or what is needed beside one.
fn programs(options: &Options) -> Result<&'static [&'static str]> {
    let is_ready = options.node_image.is_some() || node_image::entry()?.is_ready();
    Ok(if is_ready { &["kind", "kubectl"] } else { &system_images::PROGRAMS })
}

/// Fills the cache.
fn build(options: &Options, record: &mut Record, progress: &mut Progress) -> Result<()> {
    if progress.has(PROGRAMS) {
        step(progress, PROGRAMS, || go_programs::ensure(programs(options)?))?;
    }
    if progress.has(BASE) {
        step(progress, BASE, node_base::make)?;
    }
    if progress.has(NODE_IMAGE) {
        // Recorded, so that `down` finds it should this process be killed.
        let started = |engine: &Engine| {
            record.engine = Some(engine.first());
            record.save()
        };
        step(progress, NODE_IMAGE, || node_image::make(started))?;
        record.engine = None;
    }
    Ok(())
}

/// Starts the cluster.
fn start(options: &Options, record: &mut Record, progress: &mut Progress) -> Result<()> {
    let mut archives = step(progress, WORKLOADS, workloads::archives)?;
    if options.proxy != Provider::KubeProxy {
        archives.push(step(progress, IMAGE, || image::build(&image::Options::default()))?);
    }
    step(progress, NODES, || create(options, record))?;
    let cluster = Cluster::begun(record.clone());
    if options.node_image.is_none() {
        step(progress, NETWORK, || pod_network::set_up(&cluster))?;
    }
    step(progress, LOAD, || load(&cluster, &archives))?;
    if options.proxy != Provider::None {
        step(progress, PROXY, || proxy::install(&cluster, options.proxy))?;
    }
    record.complete = true;
    record.save()
}

fn step<T>(progress: &mut Progress, step: Step, work: impl FnOnce() -> Result<T>) -> Result<T> {
    interrupt::check()?;
    let done = progress.run(step, work);
    // Rather than what became of a program that was ended for it.
    interrupt::check()?;
    done.with_context(|| format!("step \"{}\"", step.name))
}

/// The engine, and kind's own way to a cluster in it.
fn create(options: &Options, record: &mut Record) -> Result<()> {
    if record.machine_engine.is_some() {
        refuse_existing(record)?;
    }
    record.parameters = parameters::found()?;
    // What is to be put back is on the disk before anything is changed.
    record.save()?;
    parameters::raise(&record.parameters)?;
    let folder = state::folder();
    if record.machine_engine.is_some() {
        scripts::write_plain(&folder)?;
    } else {
        let engine = Engine::start(&folder, &[&node_image::store()?])?;
        record.engine = Some(engine.first());
    }
    record.save()?;
    let file = folder.join("kind.yaml");
    fs::write(&file, configuration::text(options.nodes, options.node_image.is_none()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    let mut kind = Cluster::begun(record.clone()).kind(["create", "cluster", "--image", &record.image])?;
    kind.arg("--config").arg(file).arg("--kubeconfig").arg(folder.join(scripts::KUBECONFIG));
    command::run(&mut kind)
}

/// Before it is recorded that one is ours, since `down` would remove it.
fn refuse_existing(record: &Record) -> Result<()> {
    let nodes = output(&mut Cluster::begun(record.clone()).kind(["get", "nodes"])?)?;
    if nodes.trim().is_empty() {
        return Ok(());
    }
    bail!("this machine has a kind cluster named {CLUSTER} already, which is none of ours: {}", nodes.trim());
}

/// Into every node, once all are ready.
fn load(cluster: &Cluster, archives: &[PathBuf]) -> Result<()> {
    command::run(&mut cluster.kubectl(["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=300s"]))?;
    archives.iter().try_for_each(|archive| cluster.load(archive))
}

/// The machine's engine, for images that are pulled.
fn machine_engine() -> Result<String> {
    let answers = |engine: &&str| {
        let mut command = std::process::Command::new(engine);
        workspace::find_program(engine).is_some() && command::output(command.arg("info")).is_some()
    };
    let engine = ["docker", "podman"].into_iter().find(answers);
    engine.map(str::to_owned).context("--node-image needs a docker or podman on this machine that works, and none does")
}
