//! Whether anybody wants to see the packets that the fast path takes past the node's network stack.
//!
//! The fast path turns a packet round between the ingress hook of one device and the egress hook of another. What a
//! packet that the stack forwards meets in between, and what becomes of it:
//!
//! | met by a forwarded packet | on the fast path |
//! |---|---|
//! | nftables and iptables chains at ingress, prerouting, forward, postrouting and egress, of IP, of bridges and of devices | passed by, and therefore looked for here: [`base_chain`], [`legacy_table`] |
//! | other functions at those hooks: IPVS, BPF programs, security modules, modules that nobody knows | as well, where the kernel lists them: [`functions`] |
//! | chains of NAT at postrouting | passed by, and not looked for: behind kube-proxy the first rule there masquerades a packet for a backend on another node, and those of network plugins never meet it |
//! | connection tracking, defragmentation, the dispatcher of NAT | passed by, and not looked for: without a rule that asks them they decide nothing |
//! | IPsec policies | passed by (what should be encrypted would leave in the clear), and therefore looked for here: [`ipsec`] |
//! | routes, rules of policy routing, forwarding being on, MTU, TTL | obeyed: `bpf_fib_lookup` asks them, as for a packet without a mark. A mark comes from a rule at prerouting, which is looked for here |
//! | `rp_filter` and the other checks of source addresses | passed by; the flow's own entry says where its packets come from |
//! | queueing disciplines, TC and TCX programs at egress | obeyed: a redirected packet is sent as any other |
//! | TC and TCX programs at ingress behind ours | passed by, and not looked for: a redirect ends the chain |
//!
//! So: a chain counts if it has a rule or does not accept by policy, whatever the rule says; the kernel counts the rules,
//! so that none is read. What cannot be shown to be harmless counts as somebody who looks, and so does an answer that
//! the kernel owes.

mod base_chain;
#[cfg(test)]
mod captured;
mod follow;
mod functions;
mod inquiry;
mod ipsec;
mod legacy;
mod legacy_table;
mod nftables;
mod onlooker;
mod part;

pub use follow::follow;
pub use inquiry::Inquiry;
pub use onlooker::{Cause, Hook, Onlooker};

use crate::model::Family;

/// Who decides whether the fast path is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FastPathMode {
    /// The kernel is asked who looks, and asked again as long as the agent runs.
    #[default]
    Auto,
    Always,
    Never,
}

/// For each address family, who keeps its packets from the fast path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FastPath {
    onlookers: [Option<Onlooker>; 2],
}

impl FastPath {
    /// Nobody looks.
    pub const OPEN: Self = Self { onlookers: [None, None] };

    /// Whether packets may take it: IPv4, IPv6.
    pub fn is_open(&self) -> [bool; 2] {
        self.onlookers.each_ref().map(Option::is_none)
    }

    /// The first who was found to look.
    pub fn onlooker(&self, family: Family) -> Option<&Onlooker> {
        self.onlookers[family as usize].as_ref()
    }

    fn closed(onlooker: &Onlooker) -> Self {
        Self { onlookers: [Some(onlooker.clone()), Some(onlooker.clone())] }
    }

    /// Notes somebody who looks at packets of these families.
    fn add(&mut self, families: &[Family], onlooker: &Onlooker) {
        for &family in families {
            self.onlookers[family as usize].get_or_insert_with(|| onlooker.clone());
        }
    }

    fn merge(&mut self, other: &Self) {
        for (own, other) in self.onlookers.iter_mut().zip(&other.onlookers) {
            if own.is_none() {
                own.clone_from(other);
            }
        }
    }
}
