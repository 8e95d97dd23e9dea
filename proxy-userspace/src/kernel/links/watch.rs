use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::attach::Attacher;
use super::device::Device;
use super::inventory;
use super::role::{self, Decision};
use super::{Attachments, LinkOptions};
use crate::kernel::{KernelError, Programs};
use crate::model::Interface;

/// How often everything is looked at without being told to: routes change roles but are not watched, since those of a
/// router may change a thousand times a second.
const PERIOD: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

pub enum Command {
    Attach(oneshot::Sender<Result<Attachments, KernelError>>),
    NodeAddresses(Vec<IpAddr>),
}

/// The task behind [`super::Links`]. A message of the kernel about a device only says *that* something changed; what is
/// there is then listed anew. So lost messages do no harm, and many at once cost one listing.
pub struct Watcher {
    programs: Programs,
    options: LinkOptions,
    netlink: Connection,
    events: Events,
    attacher: Option<Attacher>,
    decisions: BTreeMap<u32, (String, Decision)>,
    interfaces: watch::Sender<Vec<Interface>>,
    attachments: watch::Sender<Attachments>,
}

struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Events {
    _connection: Connection,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Events {
    fn subscribe() -> io::Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        Ok(Self { _connection: Connection { handle, task: tokio::spawn(connection) }, messages })
    }
}

impl Watcher {
    /// Subscribes before it lists, so that no change is missed in between.
    pub async fn start(
        programs: Programs,
        options: LinkOptions,
    ) -> Result<(Self, watch::Receiver<Vec<Interface>>, watch::Receiver<Attachments>), KernelError> {
        let failed =
            |cause: io::Error| KernelError::Netlink { operation: "opening a socket", cause: cause.to_string() };
        let events = Events::subscribe().map_err(failed)?;
        let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
        let netlink = Connection { handle, task: tokio::spawn(connection) };
        let (interfaces, interfaces_receiver) = watch::channel(Vec::new());
        let (attachments, attachments_receiver) = watch::channel(Attachments::default());
        let mut watcher = Self {
            programs,
            options,
            netlink,
            events,
            attacher: None,
            decisions: BTreeMap::new(),
            interfaces,
            attachments,
        };
        watcher.look().await?;
        Ok((watcher, interfaces_receiver, attachments_receiver))
    }

    /// Ends when nobody can send commands any more.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut wait = PERIOD;
        loop {
            let mut reply = None;
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::NodeAddresses(addresses)) if addresses == self.options.node_addresses => continue,
                    Some(Command::NodeAddresses(addresses)) => self.options.node_addresses = addresses,
                    Some(Command::Attach(to)) => match self.begin() {
                        Ok(()) => reply = Some(to),
                        Err(cause) => {
                            // Whoever asked may have stopped waiting.
                            let _ = to.send(Err(cause));
                            continue;
                        }
                    },
                },
                message = self.events.messages.next() => if message.is_none() {
                    self.resubscribe().await;
                },
                () = sleep(wait) => {}
            }
            // One listing answers all that has been said until now.
            while self.events.messages.try_recv().is_ok() {}
            let result = self.look().await;
            wait = if result.is_ok() && self.attachments.borrow().failed.is_empty() { PERIOD } else { RETRY };
            if let Err(cause) = &result {
                tracing::warn!(%cause, "the devices could not be listed; trying again");
            }
            if let Some(reply) = reply {
                let _ = reply.send(result.map(|()| self.attachments.borrow().clone()));
            }
        }
    }

    fn begin(&mut self) -> Result<(), KernelError> {
        if self.attacher.is_none() {
            let attacher = Attacher::new(self.netlink.handle.clone(), &self.programs, self.options.mode)?;
            self.attacher = Some(attacher);
        }
        Ok(())
    }

    async fn resubscribe(&mut self) {
        match Events::subscribe() {
            Ok(events) => self.events = events,
            Err(cause) => tracing::warn!(%cause, "changes of devices are not told by the kernel; trying again"),
        }
        // Keeps a socket that fails at once from turning this into a busy loop.
        sleep(RETRY).await;
    }

    /// Lists the devices, tells the changes and makes the programs follow.
    async fn look(&mut self) -> Result<(), KernelError> {
        let devices = inventory::devices(&self.netlink.handle).await?;
        let interfaces: Vec<Interface> = devices.iter().map(Device::interface).collect();
        self.interfaces.send_if_modified(|now| {
            let changed = *now != interfaces;
            *now = interfaces;
            changed
        });
        let decide = |device| role::decide(device, &devices, &self.options.node_addresses, &self.options);
        let decided: Vec<(&Device, Decision)> = devices.iter().map(|device| (device, decide(device))).collect();
        self.tell(&decided);
        if let Some(attacher) = &mut self.attacher {
            let wanted: Vec<_> = decided
                .iter()
                .filter_map(|(device, decision)| Some((*device, decision.role?, decision.reason)))
                .collect();
            let result = attacher.apply(&mut self.programs, &wanted).await;
            self.attachments.send_if_modified(|now| {
                let changed = *now != result;
                if changed {
                    for failed in &result.failed {
                        tracing::warn!(device = failed.name, cause = failed.cause, "could not attach; trying again");
                    }
                }
                *now = result;
                changed
            });
        }
        Ok(())
    }

    /// Logs each decision once, and again when it changes.
    fn tell(&mut self, decided: &[(&Device, Decision)]) {
        let now: BTreeMap<u32, (String, Decision)> =
            decided.iter().map(|(device, decision)| (device.index, (device.name.clone(), *decision))).collect();
        for (index, (name, decision)) in &now {
            if self.decisions.get(index).is_none_or(|before| before != &(name.clone(), *decision)) {
                let role = decision.role.map_or("none", role::Role::word);
                tracing::info!(device = name, index, role, reason = decision.reason, "role of a device");
            }
        }
        self.decisions = now;
    }
}
