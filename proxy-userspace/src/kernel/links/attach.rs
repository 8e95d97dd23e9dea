use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use proxy_common::datapath::Link;
use proxy_common::reason::Hook;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::clsact::Clsact;
use super::role::Role;
use super::tcx::Tcx;
use super::{Attached, Attachments, Failed};
use crate::kernel::pins::Direction;
use crate::kernel::{AttachMode, KernelError, Programs, preconditions};

/// How often it is looked whether the programs are still where they were put: somebody may have taken them off.
const PERIOD: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

pub enum Order {
    /// Every device that is to carry programs, by index, and no other. The answer comes when it is done.
    All(BTreeMap<u32, Attached>, oneshot::Sender<Result<Attachments, KernelError>>),
    /// What one device is to carry from now on; `None`: it is to carry nothing, or is gone.
    Change(u32, Option<Attached>),
}

/// Puts programs on devices as it is told to, on a thread of its own: the kernel verifies a program that is needed for
/// the first time for as long as a second, and its lock of all devices may be held by others.
pub struct Attacher {
    programs: Programs,
    mode: AttachMode,
    attachments: watch::Sender<Attachments>,
    wanted: BTreeMap<u32, Attached>,
    /// What runs on each device, by index. Absent: whatever is there was left by an earlier agent.
    done: BTreeMap<u32, Attached>,
    /// Devices on which something has to be done, or failed to be.
    due: BTreeSet<u32>,
    /// Devices that are to carry nothing any more.
    leaving: BTreeSet<u32>,
    /// What an earlier agent, or this one, has on devices that are not wanted is to go.
    sweep: bool,
    failed: Vec<Failed>,
    ways: Option<Ways>,
}

/// How programs get to devices.
struct Ways {
    tcx: Tcx,
    clsact: Clsact,
    use_tcx: bool,
    /// What an earlier agent left in the other mode is taken off once, after ours is in place.
    other_mode_checked: bool,
}

impl Attacher {
    pub fn new(programs: Programs, mode: AttachMode) -> (Self, watch::Receiver<Attachments>) {
        let (attachments, receiver) = watch::channel(Attachments::default());
        let attacher = Self {
            programs,
            mode,
            attachments,
            wanted: BTreeMap::new(),
            done: BTreeMap::new(),
            due: BTreeSet::new(),
            leaving: BTreeSet::new(),
            sweep: false,
            failed: Vec::new(),
            ways: None,
        };
        (attacher, receiver)
    }

    /// Ends when nobody can give orders any more.
    pub async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut check_at = Instant::now() + PERIOD;
        loop {
            let mut reply = None;
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(order) => reply = self.take(order),
                },
                () = sleep_until(check_at), if self.ways.is_some() => {
                    self.check();
                    check_at = Instant::now() + PERIOD;
                }
            }
            while reply.is_none()
                && let Ok(order) = orders.try_recv()
            {
                reply = self.take(order);
            }
            let result = self.work().await;
            if result.is_err() || !self.failed.is_empty() {
                check_at = check_at.min(Instant::now() + RETRY);
            }
            match (reply, result) {
                // Whoever asked may have stopped waiting.
                (Some(reply), result) => drop(reply.send(result.map(|()| self.attachments.borrow().clone()))),
                (None, Err(cause)) => tracing::warn!(%cause, "the programs of an earlier agent cannot be taken over"),
                (None, Ok(())) => {}
            }
        }
    }

    fn take(&mut self, order: Order) -> Option<oneshot::Sender<Result<Attachments, KernelError>>> {
        match order {
            Order::All(wanted, reply) => {
                self.wanted = wanted;
                self.check();
                return Some(reply);
            }
            Order::Change(index, Some(attached)) => {
                self.wanted.insert(index, attached);
                self.due.insert(index);
            }
            Order::Change(index, None) => {
                self.wanted.remove(&index);
                self.due.remove(&index);
                self.done.remove(&index);
                self.leaving.insert(index);
            }
        }
        None
    }

    /// Everything is to be looked at.
    fn check(&mut self) {
        self.done.retain(|index, _| self.wanted.contains_key(index));
        self.due.extend(self.wanted.keys());
        self.sweep = true;
    }

    /// Makes the devices carry what they are to carry. A device that vanishes meanwhile is no failure.
    async fn work(&mut self) -> Result<(), KernelError> {
        let Self { programs, mode, wanted, done, .. } = self;
        let ways = match &mut self.ways {
            Some(ways) => ways,
            none => none.insert(Ways::open(programs, *mode)?),
        };
        let mut failed = Vec::new();
        // Filters are not held by us, as links are: the kernel is asked for them.
        self.sweep |= !ways.use_tcx && !self.leaving.is_empty();
        // First, since one that is to carry programs may have the index of one that is gone.
        self.leaving.retain(|index| match ways.leave(*index) {
            Ok(()) => false,
            Err(cause) => {
                failed.push(Failed { name: format!("device {index}, which has no role"), cause: cause.to_string() });
                true
            }
        });
        for index in std::mem::take(&mut self.due) {
            let Some(attached) = wanted.get(&index).filter(|attached| !ways.is_done(attached, done)) else { continue };
            done.remove(&index);
            let (device, role) = (&attached.name, attached.role.word());
            match ways.attach(programs, attached).await {
                Ok(()) => {
                    tracing::info!(device, index, role, "attached");
                    done.insert(index, attached.clone());
                }
                Err(cause) if cause.raw_os_error() == Some(libc::ENODEV) => {
                    tracing::info!(device, index, "vanished while it was being attached");
                }
                Err(cause) => {
                    failed.push(Failed { name: device.clone(), cause: cause.to_string() });
                    self.due.insert(index);
                }
            }
        }
        if std::mem::take(&mut self.sweep)
            && let Err(cause) = ways.sweep(wanted).await
        {
            failed.push(Failed { name: "devices without a role".into(), cause: cause.to_string() });
            self.sweep = true;
        }
        self.failed = failed;
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let now = Attachments { attached: self.done.values().cloned().collect(), failed: self.failed.clone() };
        self.attachments.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                for failed in &now.failed {
                    tracing::warn!(device = failed.name, cause = failed.cause, "could not attach; trying again");
                }
                *before = now;
            }
            changed
        });
    }
}

impl Ways {
    fn open(programs: &Programs, mode: AttachMode) -> Result<Self, KernelError> {
        let pins = programs.pins();
        let (layout, namespace) = (pins.layout(), pins.namespace());
        let use_tcx = match mode {
            AttachMode::Auto => preconditions::has_tcx(),
            AttachMode::Tcx => true,
            AttachMode::Clsact => false,
        };
        let failed =
            |cause: io::Error| KernelError::Netlink { operation: "opening a socket", cause: cause.to_string() };
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(failed)?;
        // Ends with the last handle.
        tokio::spawn(connection);
        Ok(Self {
            tcx: Tcx::open(layout.clone(), namespace)?,
            clsact: Clsact::new(netlink, layout, namespace),
            use_tcx,
            other_mode_checked: false,
        })
    }

    fn is_done(&self, attached: &Attached, done: &BTreeMap<u32, Attached>) -> bool {
        let holds = |direction| !self.use_tcx || self.tcx.holds(attached.index, direction);
        done.get(&attached.index) == Some(attached) && Direction::ALL.into_iter().all(holds)
    }

    async fn attach(&mut self, programs: &mut Programs, attached: &Attached) -> io::Result<()> {
        let link = if attached.ethernet { Link::Ethernet } else { Link::Ip };
        for direction in Direction::ALL {
            let (program, name) = programs.get(hook(attached.role, direction), link).map_err(io::Error::other)?;
            if self.use_tcx {
                self.tcx.ensure(attached.index, &attached.name, direction, program)?;
            } else {
                self.clsact.ensure(attached.index, &attached.name, direction, program, name).await?;
            }
        }
        Ok(())
    }

    /// Takes our links off a device that may be gone.
    fn leave(&mut self, index: u32) -> io::Result<()> {
        self.tcx.leave(index)
    }

    /// Takes our programs off all devices but `wanted`.
    async fn sweep(&mut self, wanted: &BTreeMap<u32, Attached>) -> Result<(), KernelError> {
        let keep = |index| wanted.contains_key(&index);
        let failed =
            |cause: io::Error| KernelError::Netlink { operation: "taking a program off", cause: cause.to_string() };
        let (keep_tcx, keep_clsact) = (self.use_tcx, !self.use_tcx);
        self.tcx.retain(|index| keep_tcx && keep(index)).map_err(failed)?;
        if keep_clsact || !self.other_mode_checked {
            self.clsact.retain(|index| keep_clsact && keep(index)).await?;
            self.other_mode_checked = true;
        }
        Ok(())
    }
}

const fn hook(role: Role, direction: Direction) -> Hook {
    match (role, direction) {
        (Role::PodLink, Direction::Ingress) => Hook::PodIngress,
        (Role::PodLink, Direction::Egress) => Hook::PodEgress,
        (Role::Uplink, Direction::Ingress) => Hook::UplinkIngress,
        (Role::Uplink, Direction::Egress) => Hook::UplinkEgress,
        (Role::Overlay, Direction::Ingress) => Hook::OverlayIngress,
        (Role::Overlay, Direction::Egress) => Hook::OverlayEgress,
    }
}
