use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use proxy_common::datapath::Link;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::attach::Order;
use super::device::Device;
use super::inventory::{Inventory, Touched};
use super::role::{self, Decision};
use super::{Attached, Attachments, LinkOptions, listing, message};
use crate::kernel::KernelError;
use crate::model::Interface;

/// How often routes are looked at without being told to: they change roles, but are not watched, since those of a
/// router may change a thousand times a second.
const PERIOD: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);

pub enum Command {
    Attach(oneshot::Sender<Result<Attachments, KernelError>>),
    NodeAddresses(Vec<IpAddr>),
}

/// The task behind [`super::Links`]. It lists the devices once, and from then on takes in what the kernel tells about
/// them: the work of a change does not depend on how many devices there are. Only when messages were lost, because more
/// of them came than the socket holds, everything is listed anew.
pub struct Watcher {
    options: LinkOptions,
    netlink: Netlink,
    events: Events,
    inventory: Inventory,
    /// What has changed and is not dealt with.
    touched: Touched,
    /// The inventory may miss something: list everything.
    is_behind: bool,
    /// When to ask for what may have changed untold.
    look_at: Instant,
    roles: BTreeMap<u32, (String, Decision)>,
    interfaces: watch::Sender<Vec<Interface>>,
    orders: mpsc::UnboundedSender<Order>,
    /// Programs are to be on the devices: changes of roles are orders.
    is_attaching: bool,
}

struct Netlink {
    handle: Handle,
    task: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Events {
    _connection: Netlink,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Events {
    fn subscribe() -> io::Result<Self> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        Ok(Self { _connection: Netlink { handle, task: tokio::spawn(connection) }, messages })
    }
}

impl Watcher {
    /// Subscribes before it lists, so that no change is missed in between.
    pub async fn start(
        options: LinkOptions,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Result<(Self, watch::Receiver<Vec<Interface>>), KernelError> {
        let failed =
            |cause: io::Error| KernelError::Netlink { operation: "opening a socket", cause: cause.to_string() };
        let events = Events::subscribe().map_err(failed)?;
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(failed)?;
        let (interfaces, receiver) = watch::channel(Vec::new());
        let mut watcher = Self {
            options,
            netlink: Netlink { handle, task: tokio::spawn(connection) },
            events,
            inventory: Inventory::default(),
            touched: Touched::default(),
            is_behind: true,
            look_at: Instant::now() + PERIOD,
            roles: BTreeMap::new(),
            interfaces,
            orders,
            is_attaching: false,
        };
        watcher.ask().await?;
        watcher.settle();
        Ok((watcher, receiver))
    }

    /// Ends when nobody can send commands any more, or nobody takes orders.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while !self.orders.is_closed() {
            let mut reply = None;
            tokio::select! {
                command = commands.recv() => match command {
                    None => return,
                    Some(Command::NodeAddresses(addresses)) => self.set_node_addresses(addresses),
                    Some(Command::Attach(to)) => reply = Some(to),
                },
                message = self.events.messages.next() => match message {
                    Some((message, _)) => self.take(message),
                    None => self.resubscribe().await,
                },
                () = sleep_until(self.look_at) => {
                    self.touched.routes = true;
                    self.look_at = Instant::now() + PERIOD;
                }
            }
            // One round answers all that has been said until now.
            while let Ok((message, _)) = self.events.messages.try_recv() {
                self.take(message);
            }
            let asked = self.ask().await;
            if let Err(cause) = &asked {
                tracing::warn!(%cause, "the devices could not be listed; trying again");
                self.look_at = self.look_at.min(Instant::now() + RETRY);
            }
            self.settle();
            match (reply, asked) {
                (Some(reply), Ok(())) => self.attach(reply),
                // Whoever asked may have stopped waiting.
                (Some(reply), Err(cause)) => drop(reply.send(Err(cause))),
                (None, _) => {}
            }
        }
    }

    fn take(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => {
                if let Some(told) = message::told(&message) {
                    self.inventory.take(told, &mut self.touched);
                }
            }
            NetlinkPayload::Overrun(_) => {
                tracing::info!("more devices changed than the kernel keeps messages for; listing them all");
                self.is_behind = true;
            }
            _ => {}
        }
    }

    fn set_node_addresses(&mut self, addresses: Vec<IpAddr>) {
        if addresses != self.options.node_addresses {
            self.options.node_addresses = addresses;
            self.touched.roles.extend(self.inventory.devices().map(|device| device.index));
        }
    }

    async fn resubscribe(&mut self) {
        match Events::subscribe() {
            Ok(events) => self.events = events,
            Err(cause) => tracing::warn!(%cause, "changes of devices are not told by the kernel; trying again"),
        }
        self.is_behind = true;
        // Keeps a socket that fails at once from turning this into a busy loop.
        sleep(RETRY).await;
    }

    /// Asks the kernel for what its messages have left open.
    async fn ask(&mut self) -> Result<(), KernelError> {
        let netlink = &self.netlink.handle;
        if self.is_behind {
            let devices = listing::devices(netlink).await?;
            self.inventory.replace(devices, &mut self.touched);
            self.is_behind = false;
        }
        while let Some(index) = self.touched.unsure.first().copied() {
            match listing::device(netlink, index).await? {
                Some(device) => self.inventory.update(device, &mut self.touched),
                None => self.inventory.remove(index, &mut self.touched),
            }
            self.touched.unsure.remove(&index);
        }
        while let Some((index, family)) = self.touched.unordered.first().copied() {
            let list = listing::addresses_of(netlink, index, family).await?;
            self.inventory.set_addresses(index, family, list, &mut self.touched);
            self.touched.unordered.remove(&(index, family));
        }
        if self.touched.routes && self.inventory.devices().any(Device::depends_on_routes) {
            let gateways = listing::gateways(netlink).await?;
            self.inventory.set_gateways(&gateways, &mut self.touched);
        }
        Ok(())
    }

    /// Tells all changes, and has the programs follow.
    fn settle(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        self.interfaces.send_if_modified(|now| {
            let set = |index: &u32| set_interface(now, *index, self.inventory.get(*index));
            touched.devices.iter().map(set).fold(false, std::ops::BitOr::bitor)
        });
        for index in touched.gone {
            self.forget(index);
        }
        for index in touched.roles {
            match self.inventory.get(index) {
                Some(device) => self.decide(device.clone()),
                None => self.forget(index),
            }
        }
        // What could not be asked for is asked for in the next round.
        self.touched.unsure = touched.unsure;
        self.touched.unordered = touched.unordered;
        self.touched.routes = touched.routes;
    }

    fn decide(&mut self, device: Device) {
        let decision = role::decide(&device, &self.inventory, &self.options);
        let decided = (device.name, decision);
        if self.roles.get(&device.index) == Some(&decided) {
            return;
        }
        let role = decision.role.map_or("none", role::Role::word);
        tracing::info!(device = decided.0, index = device.index, role, reason = decision.reason, "role of a device");
        self.roles.insert(device.index, decided);
        self.order(device.index);
    }

    fn forget(&mut self, index: u32) {
        if self.roles.remove(&index).is_some() {
            self.order(index);
        }
    }

    fn order(&self, index: u32) {
        if self.is_attaching {
            // That nobody takes orders any more is seen by the loop.
            let _ = self.orders.send(Order::Change(index, self.wanted(index)));
        }
    }

    /// What a device is to carry; `None`: nothing.
    fn wanted(&self, index: u32) -> Option<Attached> {
        let (name, decision) = self.roles.get(&index)?;
        let ethernet = self.inventory.get(index)?.link? == Link::Ethernet;
        Some(Attached { index, name: name.clone(), role: decision.role?, ethernet, reason: decision.reason })
    }

    fn attach(&mut self, reply: oneshot::Sender<Result<Attachments, KernelError>>) {
        self.is_attaching = true;
        let wanted = self.roles.keys().filter_map(|index| Some((*index, self.wanted(*index)?))).collect();
        let _ = self.orders.send(Order::All(wanted, reply));
    }
}

/// Brings one device up to date in a list that is sorted by index. Whether there was anything to do.
fn set_interface(list: &mut Vec<Interface>, index: u32, device: Option<&Device>) -> bool {
    let new = device.map(Device::interface);
    match (list.binary_search_by_key(&index, |interface| interface.index), new) {
        (Ok(at), Some(new)) if list.get(at) == Some(&new) => false,
        (Ok(at), Some(new)) => {
            list[at] = new;
            true
        }
        (Ok(at), None) => {
            list.remove(at);
            true
        }
        (Err(at), Some(new)) => {
            list.insert(at, new);
            true
        }
        (Err(_), None) => false,
    }
}
