//! Which devices there are, which of them carry programs, and putting the programs there.

mod attach;
pub(super) mod clsact;
mod device;
mod inventory;
mod listing;
mod message;
mod role;
pub(super) mod tcx;
mod watch;

use std::net::IpAddr;

use tokio::sync::{mpsc, oneshot, watch as channel};

pub use role::Role;

use super::{AttachMode, KernelError, Programs};
use crate::model::Interface;
use crate::own_thread;
use attach::Attacher;
use watch::{Command, Watcher};

/// How roles are given to devices. The patterns (`*` any text, `?` one character) are matched against device names; the
/// first list that matches wins, in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct LinkOptions {
    pub mode: AttachMode,
    /// Devices that get no program.
    pub exclude: Vec<String>,
    pub pod_links: Vec<String>,
    pub uplinks: Vec<String>,
    pub overlays: Vec<String>,
    /// Addresses of the node as far as they are known at start; see [`Links::set_node_addresses`].
    pub node_addresses: Vec<IpAddr>,
}

/// A device that carries our programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    pub index: u32,
    pub name: String,
    pub role: Role,
    /// Whether its packets begin with an Ethernet header; otherwise with an IP header.
    pub ethernet: bool,
    /// Why it has this role.
    pub reason: &'static str,
}

/// A device that should carry our programs and does not. It is tried again every second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub name: String,
    pub cause: String,
}

/// What has become of the devices that have a role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    pub attached: Vec<Attached>,
    pub failed: Vec<Failed>,
}

/// Watches the devices of the network namespace in a task of its own, and keeps programs on them, once told so, from a
/// thread of its own.
///
/// Dropping it ends both, in the background; the programs stay on the devices and go on working.
pub struct Links {
    commands: mpsc::Sender<Command>,
    interfaces: channel::Receiver<Vec<Interface>>,
    attachments: channel::Receiver<Attachments>,
    /// Ends the thread when it is dropped.
    _attacher: oneshot::Receiver<()>,
}

impl Links {
    /// Lists the devices and watches them from now on. Has to be called in the network namespace to be served, on a
    /// tokio runtime whose threads are in it.
    ///
    /// # Errors
    /// [`KernelError::Netlink`] where listing fails, [`KernelError::Thread`].
    pub async fn start(programs: Programs, options: LinkOptions) -> Result<Self, KernelError> {
        let (commands, receiver) = mpsc::channel(8);
        let (orders, taken) = mpsc::unbounded_channel();
        let (attacher, attachments) = Attacher::new(programs, options.mode);
        let (watcher, interfaces) = Watcher::start(options, orders).await?;
        let attacher = own_thread::spawn("attacher", attacher.run(taken)).map_err(KernelError::Thread)?;
        tokio::spawn(watcher.run(receiver));
        Ok(Self { commands, interfaces, attachments, _attacher: attacher })
    }

    /// All devices with their addresses, sorted by index; changes are told as they happen.
    pub fn interfaces(&self) -> channel::Receiver<Vec<Interface>> {
        self.interfaces.clone()
    }

    /// What carries programs; changes are told as they happen. Empty before [`Self::attach`].
    pub fn attachments(&self) -> channel::Receiver<Attachments> {
        self.attachments.clone()
    }

    /// Puts the programs on every device that has a role, replacing those of an earlier agent without a gap, and takes
    /// them off all others; from now on devices that appear get theirs at once.
    ///
    /// # Errors
    /// Where the pins of an earlier agent cannot be read or the watcher has ended. A single device that fails is
    /// reported in the result.
    pub async fn attach(&self) -> Result<Attachments, KernelError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Attach(reply)).await?;
        answer.await.map_err(|_| KernelError::WatcherGone)?
    }

    /// Tells the addresses of the Node object: the device that holds one is an uplink, whatever its kind.
    pub async fn set_node_addresses(&self, addresses: Vec<IpAddr>) -> Result<(), KernelError> {
        self.send(Command::NodeAddresses(addresses)).await
    }

    async fn send(&self, command: Command) -> Result<(), KernelError> {
        self.commands.send(command).await.map_err(|_| KernelError::WatcherGone)
    }
}
