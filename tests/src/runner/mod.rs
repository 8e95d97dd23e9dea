//! Hosts that run the datapath over a packet: plain Rust, and the kernel's programs by `BPF_PROG_TEST_RUN`.

pub mod instructions;
pub(crate) mod kernel;
pub mod namespace;
pub mod object;
mod plain;
mod shared;
pub mod test_run;

use std::collections::BTreeMap;

use proxy_common::{
    datapath::Link,
    reason::{Hook, Reason},
    verdict::Verdict,
};

use crate::{packet::Mac, rows::world::World};

pub use kernel::Kernel;
pub use plain::{Call, Plain};
pub use shared::Shared;

pub type Counters = BTreeMap<(Hook, Reason), u64>;

/// What became of a packet, as far as a kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the next program and the stack.
    Next,
    /// Out of a device, past the stack.
    Redirect,
    Drop,
}

impl From<Verdict> for Action {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass | Verdict::Translate => Self::Next,
            Verdict::Back | Verdict::Forward | Verdict::Reply | Verdict::Inward => Self::Redirect,
            Verdict::Drop(_) => Self::Drop,
        }
    }
}

/// A packet after the datapath.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub bytes: Vec<u8>,
    pub action: Action,
    /// The datapath's own word, where the host can tell.
    pub verdict: Option<Verdict>,
}

/// A host of the datapath with maps of its own.
pub trait Runner {
    fn name(&self) -> &'static str;
    /// Empties the maps, counters too, and fills them.
    fn install(&mut self, world: &World) -> anyhow::Result<()>;
    /// Fills the maps anew; flows and counters stay.
    fn update(&mut self, world: &World) -> anyhow::Result<()>;
    /// Runs a packet, of which `segment` bytes of payload go into each segment (0: not a GSO packet).
    fn run(&mut self, hook: Hook, link: Link, bytes: &[u8], segment: usize) -> anyhow::Result<Sent>;
    /// What has been counted since [`Self::install`], without zeros.
    fn counters(&mut self) -> anyhow::Result<Counters>;
    /// The hook by which this host runs the programs of `hook`.
    fn hook(&self, hook: Hook) -> Hook {
        hook
    }
    /// Hardware addresses (sender, receiver) that a forwarded packet has here at once; elsewhere the kernel's
    /// neighbour table fills them in later.
    fn forwarded(&self) -> Option<(Mac, Mac)> {
        None
    }
}

/// Whether packets at `hook` come in.
pub fn is_ingress(hook: Hook) -> bool {
    match hook {
        Hook::PodIngress | Hook::UplinkIngress | Hook::OverlayIngress | Hook::Xdp => true,
        Hook::PodEgress | Hook::UplinkEgress | Hook::OverlayEgress => false,
        Hook::Socket => unreachable!("no packet comes there"),
    }
}
