//! The agent: the only module that knows every part, and the order in which they start and stop.

mod timeouts;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use proxy_common::wire::Address;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::config::{self, AgentArgs, AgentConfig, FileWatch, KernelConfig, Loaded, SocketLb};
use crate::desired::{NodeSettings, NodeState, Seats, node_addresses, node_state};
use crate::health::{self, Awaited, Reporter, Status};
use crate::kernel::memory;
use crate::kernel::tick::Tick;
use crate::kernel::{
    AttachMode, Attachments, Capacities, Failed, FastPath, FastPathMode, LinkOptions, Links, MapTables, Options,
    Runtime, SocketHooks, SocketLoad, Swept, masquerade_ports, netfilter,
};
use crate::model::{Changes, Cluster, Interface, Problem};
use crate::own_thread;
use crate::reconcile::{Limits, Reconciler, Report};
use crate::source::{Message, SourceError};
use timeouts::timeouts;

/// TCP resets and ICMP errors that one CPU may send in a second to one of the sixteen parts of all clients: as many as the
/// kernel's own limit for a host (`net.ipv4.icmp_msgs_per_sec`).
const REJECTS_PER_SECOND: u32 = 1000;

/// How many messages of the source are taken in at once. What has piled up is written in one go, so that a burst costs
/// less than its parts.
const BATCH: usize = 256;

/// Runs the agent until it gets SIGTERM or SIGINT. What is in the kernel then stays and goes on working.
///
/// # Errors
/// What keeps it from starting, and settings of the source that no retry can mend.
pub async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let Loaded { config, warnings } = AgentConfig::load(args)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    // From here on probes are answered, whatever takes its time.
    let reporter = health::start(config.healthz_address).context("starting the thread that answers probes")?;
    let tick = Tick::detect()?;
    let limits = Limits { services: config.kernel.max_services as usize, ..Limits::default() };
    let options = options(&config.kernel);
    let opened = own_thread::spawn("loading", async move { open(&options, limits) })?;
    let (Runtime { tables, programs, sockets, redialler, sweeper, log }, reconciler) =
        opened.await.context("loading")??;
    memory::give_back();
    let mut node_settings = node_settings(&config, tick, tables.seats())?;
    node_settings.node_ports_before = reconciler.local_addresses().map(Address::ip).collect();
    if let Some(log) = log {
        tokio::spawn(log.run());
    }
    let sockets = match sockets {
        Ok(sockets) => Some(sockets),
        Err(cause) => {
            warn!(%cause, "processes of the node itself do not reach Services");
            None
        }
    };
    let redialler = redialler.unwrap_or_else(|cause| {
        warn!(%cause, "UDP sockets of the node's processes that are connected to a backend which goes will stay so");
        None
    });
    let links = Links::start(programs, link_options(&config)).await?;
    let epoch = watch::Sender::new(reconciler.epoch());
    let mut agent = Agent {
        cluster: Cluster::new(&config.node_name, config.settings.clone()),
        reconciler,
        tables,
        interfaces: links.interfaces(),
        attachments: links.attachments(),
        links,
        sockets,
        _redialler: redialler.map(|redialler| redialler.follow(epoch.subscribe())).transpose()?,
        epoch,
        fast_path: netfilter::follow(fast_path_mode(config.kernel.fast_path))?,
        swept: sweeper.start()?,
        node_settings,
        node_state: None,
        started: Instant::now(),
        is_ready: false,
        is_written: false,
        reporter,
        source: config.source.describe().await,
    };
    info!(node = config.node_name, pin_dir = %config.kernel.pin_dir.display(), "waiting for the first complete lists");
    if let Some(file) = &config.file {
        tokio::spawn(FileWatch::new(file).warn());
    }
    // Reading a large list and writing all maps take as long as they take, as loading does. None of them keeps another
    // one waiting, nor the devices, which are followed by a task of this thread.
    let (sender, messages) = mpsc::channel(4 * BATCH);
    let AgentConfig { source, node_name, .. } = config;
    let source = own_thread::spawn("source", async move { source.run(&node_name, sender).await })?;
    own_thread::spawn("maps", async move { agent.serve(messages, source).await })?.await.context("writing maps")?
}

/// Loads the programs and reads what the maps hold.
fn open(options: &Options, limits: Limits) -> anyhow::Result<(Runtime, Reconciler)> {
    let runtime = Runtime::open(options)?;
    let reconciler = Reconciler::adopt(&runtime.tables, limits)?;
    Ok((runtime, reconciler))
}

struct Agent {
    cluster: Cluster,
    reconciler: Reconciler,
    tables: MapTables,
    interfaces: watch::Receiver<Vec<Interface>>,
    attachments: watch::Receiver<Attachments>,
    links: Links,
    /// `None`: something keeps them from being there.
    sockets: Option<SocketHooks>,
    /// See [`proxy_common::wire::Config::epoch`].
    epoch: watch::Sender<u32>,
    /// Ends the thread when it is dropped.
    _redialler: Option<oneshot::Receiver<()>>,
    /// Who wants to see translated packets in the stack.
    fast_path: watch::Receiver<FastPath>,
    swept: watch::Receiver<Option<Swept>>,
    node_settings: NodeSettings,
    /// The last one that the reconciler was given.
    node_state: Option<NodeState>,
    /// Where the clock of the reconciler begins.
    started: Instant,
    /// The lists are complete: maps and devices follow them from now on.
    is_ready: bool,
    /// The first complete state is in the maps.
    is_written: bool,
    reporter: Reporter,
    /// Where the lists come from, in words.
    source: String,
}

impl Agent {
    async fn serve(
        &mut self,
        mut messages: mpsc::Receiver<Message>,
        mut source: oneshot::Receiver<Result<(), SourceError>>,
    ) -> anyhow::Result<()> {
        let mut terminated = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
        let mut interrupted = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.publish();
            let epoch = self.reconciler.epoch();
            self.epoch.send_if_modified(|before| std::mem::replace(before, epoch) != epoch);
            let retry_at = self.reconciler.retry_at().filter(|_| self.is_ready).map(|at| self.started + at);
            tokio::select! {
                count = messages.recv_many(&mut batch, BATCH), if !messages.is_closed() || !messages.is_empty() => {
                    if count > 0 {
                        self.take(batch.drain(..)).await?;
                    }
                }
                ended = &mut source => {
                    return ended.context("the source ended").and_then(|result| Ok(result?));
                }
                Ok(()) = self.interfaces.changed() => self.sync_node(),
                Ok(()) = self.swept.changed() => self.forget(),
                Ok(()) = self.fast_path.changed() => self.sync_node(),
                Ok(()) = self.attachments.changed() => {}
                () = self.reporter.due() => {}
                () = sleep_until(retry_at) => {
                    let report = self.reconciler.retry(&mut self.tables, self.started.elapsed());
                    log_report("retry", &report, None);
                }
                _ = terminated.recv() => break,
                _ = interrupted.recv() => break,
            }
        }
        info!("stopping; the kernel goes on with what it has");
        Ok(())
    }

    async fn take(&mut self, messages: impl Iterator<Item = Message>) -> anyhow::Result<()> {
        let mut changes = Changes::default();
        let mut oldest: Option<Instant> = None;
        let mut events = 0;
        for message in messages {
            match message {
                Message::Arrival(arrival) => {
                    oldest = Some(oldest.map_or(arrival.at, |at| at.min(arrival.at)));
                    events += 1;
                    changes += self.cluster.apply(arrival.event);
                }
                Message::Problem(problem) => warn!("{problem}"),
                Message::Recovered(problem) => info!("{problem}"),
            }
        }
        log_problems(&changes.problems);
        if changes.node {
            let addresses = node_addresses(&self.cluster, &self.node_settings);
            self.links.set_node_addresses(addresses).await?;
        }
        if !self.is_ready {
            if self.cluster.is_complete() {
                self.start().await?;
            }
            return Ok(());
        }
        if changes.node {
            self.sync_node();
        }
        if changes.all || !changes.services.is_empty() {
            let report = self.reconciler.follow(&mut self.tables, &self.cluster, &changes, self.started.elapsed());
            let services = changes.services.len();
            log_report("change", &report, oldest.map(|at| Change { events, services, since: at.elapsed() }));
        }
        Ok(())
    }

    /// The first sync. Only with the maps complete do the programs go to the devices, where they replace those of an
    /// earlier agent.
    async fn start(&mut self) -> anyhow::Result<()> {
        self.reporter.publish(Status { awaited: vec![Awaited::Sync] });
        self.is_ready = true;
        // Which services are affected says nothing before all of them are compiled.
        let _ = self.cluster.set_interfaces(&self.interfaces.borrow());
        self.sync_node();
        let report = self.reconciler.sync_all(&mut self.tables, &self.cluster, self.started.elapsed());
        log_report("full sync", &report, None);
        // The lists in all their details were read for this.
        memory::give_back();
        let attachments = self.links.attach().await?;
        if let Some(sockets) = &self.sockets
            && let Err(cause) = sockets.attach()
        {
            warn!(%cause, "processes of the node itself do not reach Services");
        }
        info!(
            devices = attachments.attached.len(),
            failed = attachments.failed.len(),
            seconds = self.started.elapsed().as_secs_f64(),
            "the first complete state is in force"
        );
        Ok(())
    }

    /// Tells those who probe how things are.
    fn publish(&mut self) {
        self.is_written |= self.is_ready && !self.reconciler.is_behind();
        let mut awaited = Vec::new();
        if !self.is_ready {
            let kinds = self.cluster.awaited_lists().collect();
            awaited.push(Awaited::Lists { kinds, source: self.source.clone() });
        } else if !self.is_written {
            awaited.push(Awaited::Sync);
        }
        let devices = self.attachments.borrow_and_update();
        let failed = devices.failed.iter().map(|Failed { name, cause }| (name.clone(), cause.clone()));
        awaited.extend(failed.map(|(name, cause)| Awaited::Device { name, cause }));
        drop(devices);
        self.reporter.publish(Status { awaited });
    }

    fn sync_node(&mut self) {
        if !self.is_ready {
            return;
        }
        let now = self.started.elapsed();
        self.node_settings.fast = self.fast_path.borrow_and_update().is_open();
        let changes = self.cluster.set_interfaces(&self.interfaces.borrow_and_update());
        let state = node_state(&self.interfaces.borrow(), &self.cluster, &self.node_settings);
        let mut report = Report::default();
        // Most devices that come and go have no address that matters.
        if self.node_state.as_ref() != Some(&state) {
            report += self.reconciler.set_node(&mut self.tables, &state, now);
            self.node_state = Some(state);
        }
        if !changes.services.is_empty() {
            report += self.reconciler.follow(&mut self.tables, &self.cluster, &changes, now);
        }
        log_report("node", &report, None);
    }

    /// Takes in what the flows were found to need.
    fn forget(&mut self) {
        let swept = self.swept.borrow_and_update();
        let Some(Swept { started, took, entries, over, strays, needs }) = &*swept else { return };
        debug!(entries, over, strays, micros = took.as_micros() as u64, "flows swept");
        let as_of = started.saturating_duration_since(self.started);
        let report = self.reconciler.forget(&mut self.tables, needs, as_of);
        log_report("filters", &report, None);
    }
}

/// What a round was about.
struct Change {
    events: usize,
    services: usize,
    /// How long ago the source learned of the first event.
    since: Duration,
}

fn log_report(what: &'static str, report: &Report, change: Option<Change>) {
    let writes = report.writes.total();
    match change {
        Some(Change { events, services, since }) => {
            debug!(events, services, writes, event_to_maps_us = since.as_micros() as u64, "{what} written");
        }
        None if writes > 0 => info!(writes, detail = ?report.writes, "{what} written"),
        None => debug!(writes, "{what} written"),
    }
    log_problems(&report.problems);
    if let Some(cause) = &report.error {
        error!("{what}: {cause}; trying again");
    }
}

fn log_problems(problems: &[Problem]) {
    for problem in problems {
        warn!("{problem}");
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn node_settings(config: &AgentConfig, tick: Tick, seats: Seats) -> anyhow::Result<NodeSettings> {
    let ticks_per_second = tick.length().as_secs_f64().recip();
    Ok(NodeSettings {
        node_port_addresses: config.node_port_addresses.clone(),
        node_ports_before: Vec::new(),
        bind_address: config.bind_address,
        masquerade_ports: masquerade_ports()?,
        timeouts: timeouts(&config.conntrack, tick),
        rejects_per_tick: (f64::from(REJECTS_PER_SECOND) / ticks_per_second).ceil() as u32,
        seats,
        // Until the kernel has said that nobody looks.
        fast: [false; 2],
    })
}

fn options(config: &KernelConfig) -> Options {
    Options {
        pin_dir: config.pin_dir.clone(),
        capacities: Capacities::for_services(config.max_services),
        log_level: config.log_level.number(),
        btf: config.btf.clone(),
        sockets: match (config.socket_lb, &config.cgroup) {
            (SocketLb::Off, _) => SocketLoad::Off,
            (SocketLb::Host, Some(cgroup)) => SocketLoad::At(cgroup.clone()),
            (SocketLb::Host, None) => SocketLoad::Found,
        },
    }
}

fn fast_path_mode(mode: config::FastPathMode) -> FastPathMode {
    match mode {
        config::FastPathMode::Auto => FastPathMode::Auto,
        config::FastPathMode::Always => FastPathMode::Always,
        config::FastPathMode::Never => FastPathMode::Never,
    }
}

fn link_options(config: &AgentConfig) -> LinkOptions {
    let KernelConfig { links, attach_mode, .. } = &config.kernel;
    LinkOptions {
        mode: match attach_mode {
            config::AttachMode::Auto => AttachMode::Auto,
            config::AttachMode::Tcx => AttachMode::Tcx,
            config::AttachMode::Clsact => AttachMode::Clsact,
        },
        exclude: links.exclude.clone(),
        pod_links: links.pods.clone(),
        uplinks: links.uplinks.clone(),
        overlays: links.overlays.clone(),
        node_addresses: config.bind_address.iter().copied().collect::<Vec<IpAddr>>(),
    }
}
