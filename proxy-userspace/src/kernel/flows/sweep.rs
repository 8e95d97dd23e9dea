use std::collections::HashMap;
use std::hash::Hash;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_common::datapath::{Family, V4, V6, is_clients};
use proxy_common::wire::{Config, Flow4, Flow6, FlowKey4, FlowKey6, Side, Timeouts, map};
use tokio::sync::watch;

use super::kin::{Clock, Fate, Find, fate, rest_of};
use super::pressure::{Census, Pressure, Rings};
use crate::kernel::KernelError;
use crate::kernel::lock::PinDir;
use crate::kernel::mapped::Mapped;
use crate::kernel::per_cpu::possible_cpus;
use crate::kernel::rows::Rows;
use crate::kernel::specs::Spec;
use crate::kernel::tables::{mapped, rows};
use crate::kernel::tick::Tick;
use crate::reconcile::FlowNeeds;

/// How often all flows are looked at. Programs make room by themselves where they need it; this is for what nobody asks
/// for again.
const PERIOD: Duration = Duration::from_secs(10);

/// Removes the flows that have ended, and entries that belong to none.
pub struct Sweeper {
    flows4: Rows<FlowKey4, Flow4>,
    flows6: Rows<FlowKey6, Flow6>,
    config: Mapped<Config>,
    tick: Tick,
    cpus: u32,
    /// Nobody else may clear up.
    _pins: Arc<PinDir>,
}

/// What a sweep has found and done.
#[derive(Clone, Debug)]
pub struct Swept {
    pub started: Instant,
    pub took: Duration,
    /// Entries of both tables at its start.
    pub entries: usize,
    /// Flows that had ended.
    pub over: usize,
    /// Entries that belonged to none.
    pub strays: usize,
    /// What the flows of the tables need of the filters.
    pub needs: FlowNeeds,
}

impl Sweeper {
    pub(in crate::kernel) fn open(directory: &Path, specs: &[Spec], pins: &Arc<PinDir>) -> Result<Self, KernelError> {
        Ok(Self {
            flows4: rows(directory, specs, map::FLOWS4)?,
            flows6: rows(directory, specs, map::FLOWS6)?,
            config: mapped(directory, specs, map::CONFIG)?,
            tick: Tick::detect()?,
            cpus: possible_cpus()? as u32,
            _pins: Arc::clone(pins),
        })
    }

    /// Sweeps every few seconds in a thread of its own, until the receiver is dropped, and tells what was found.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(self) -> Result<watch::Receiver<Option<Swept>>, KernelError> {
        let (sender, receiver) = watch::channel(None);
        let run = move || {
            while !sender.is_closed() {
                std::thread::sleep(PERIOD);
                match self.sweep() {
                    Ok(swept) => drop(sender.send(Some(swept))),
                    Err(cause) => tracing::warn!(%cause, "the flow tables could not be swept; trying again"),
                }
            }
        };
        std::thread::Builder::new().name("sweep".into()).spawn(run).map_err(KernelError::Thread)?;
        Ok(receiver)
    }

    /// Looks at every entry once, and at those that seem to have ended a second time, since programs go on meanwhile.
    ///
    /// # Errors
    /// If a map cannot be read or written.
    pub fn sweep(&self) -> Result<Swept, KernelError> {
        let started = Instant::now();
        let mut swept =
            Swept { started, took: Duration::ZERO, entries: 0, over: 0, strays: 0, needs: FlowNeeds::none() };
        let config = self.config.get(0).unwrap_or_default();
        let timeouts = config.timeouts;
        // Before the first configuration nothing has a time.
        if timeouts != Timeouts::default() {
            let clock = Clock { now: self.tick.now()?, timeouts, pressure: Pressure::default() };
            let opening = |on_each_cpu: u32| on_each_cpu.saturating_mul(self.cpus);
            let rings4 = Rings { opening: opening(config.opening_seats4), connections: config.proven_seats4 };
            let rings6 = Rings { opening: opening(config.opening_seats6), connections: config.proven_seats6 };
            sweep_table::<V4>(&self.flows4, &clock, rings4, &mut swept)?;
            sweep_table::<V6>(&self.flows6, &clock, rings6, &mut swept)?;
        }
        swept.took = started.elapsed();
        Ok(swept)
    }
}

fn sweep_table<F>(
    rows: &Rows<F::Key, F::Flow>,
    clock: &Clock,
    rings: Rings,
    swept: &mut Swept,
) -> Result<(), KernelError>
where
    F: Family,
    F::Key: Hash + Eq,
{
    let failed = |operation| move |cause| KernelError::Map { name: rows.name, operation, cause };
    let mut copy = Copy::<F>(HashMap::new());
    let mut census = Census::default();
    rows.each(|key, flow| {
        census.count::<F>(&key, &flow);
        copy.0.extend([(key, flow)]);
    })
    .map_err(failed("reading"))?;
    let clock = &Clock { pressure: rings.pressure(&census), ..*clock };
    let mut ended = Vec::new();
    for (key, flow) in &copy.0 {
        swept.entries += 1;
        add_needs::<F>(key, flow, &mut swept.needs);
        if fate::<F>(key, flow, &copy, clock).map_err(failed("reading"))? != Fate::Stays {
            ended.push(*key);
        }
    }
    for key in ended {
        match remove::<F>(rows, &key, clock).map_err(failed("clearing up"))? {
            Fate::Stays => {}
            Fate::Over => swept.over += 1,
            Fate::Stray => swept.strays += 1,
        }
    }
    Ok(())
}

/// A flow table as it was a moment ago.
struct Copy<F: Family>(HashMap<F::Key, F::Flow>);

impl<F: Family> Find<F> for Copy<F>
where
    F::Key: Hash + Eq,
{
    fn find(&self, key: &F::Key) -> io::Result<Option<F::Flow>> {
        Ok(self.0.get(key).copied())
    }
}

impl<F: Family> Find<F> for Rows<F::Key, F::Flow> {
    fn find(&self, key: &F::Key) -> io::Result<Option<F::Flow>> {
        self.get(key)
    }
}

fn add_needs<F: Family>(key: &F::Key, flow: &F::Flow, needs: &mut FlowNeeds) {
    let tuple = F::parts(key);
    if F::side(key) == Side::INGRESS {
        needs.add_frontend(&F::wide(tuple.destination));
    }
    if is_clients(F::state(flow).role) {
        let sent = F::tuple(flow, tuple.protocol);
        needs.add_target(&F::wide(sent.destination), sent.destination_port, tuple.protocol);
    }
}

/// Judges an entry that seemed to have ended once more, and removes it, and its flow with it, if it has.
fn remove<F: Family>(rows: &Rows<F::Key, F::Flow>, key: &F::Key, clock: &Clock) -> io::Result<Fate> {
    let Some(flow) = rows.get(key)? else { return Ok(Fate::Stays) };
    let fate = fate::<F>(key, &flow, rows, clock)?;
    if fate == Fate::Stays {
        return Ok(fate);
    }
    let rest = if fate == Fate::Over { rest_of::<F>(key, &flow, rows)? } else { Vec::new() };
    let is_as_judged = |found: &F::Flow| is_same_flow::<F>(found, &flow) && F::state(found) == F::state(&flow);
    if !take::<F>(rows, key, is_as_judged)? {
        return Ok(Fate::Stays);
    }
    for (key, flow) in rest {
        // The flow has no client any more, whatever came for it since.
        take::<F>(rows, &key, |found| is_same_flow::<F>(found, &flow))?;
    }
    Ok(fate)
}

/// Whether an entry is of the same flow as another that was found by the same key.
fn is_same_flow<F: Family>(found: &F::Flow, known: &F::Flow) -> bool {
    let (a, b) = (F::state(found), F::state(known));
    F::tuple(found, 0) == F::tuple(known, 0) && (a.role, a.subject, a.stamp) == (b.role, b.subject, b.stamp)
}

/// Removes an entry if it `is_meant`. Looking and removing are one step of the kernel; one that is not meant, since a
/// program was faster, is put back at once.
fn take<F: Family>(
    rows: &Rows<F::Key, F::Flow>,
    key: &F::Key,
    is_meant: impl Fn(&F::Flow) -> bool,
) -> io::Result<bool> {
    match rows.take(key)? {
        Some(found) if is_meant(&found) => Ok(true),
        Some(found) => rows.insert(key, &found).map(|()| false),
        None => Ok(false),
    }
}
