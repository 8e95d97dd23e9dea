use zerocopy::FromZeros as _;

use super::{Family, Link, Route, parse::Headers};
use crate::{reason::Hook, wire::Address};

/// What a packet is worked on with, one for each CPU and family: the verifier follows no contents of map memory, which
/// is what keeps the states of a packet from multiplying, and no frame of the stack has to hold them.
///
/// A program at tc or XDP has it to itself: neither is interrupted by the other on the same CPU.
#[repr(C)]
pub struct Row<F: Family> {
    pub headers: Headers<F>,
    /// The entry of the packet: as it was found, or as it is being made.
    pub flow: F::Flow,
    /// Index of the device that the packet came in by.
    pub device: u32,
    hook: u32,
    ethernet: u32,
    /// The packet has an entry.
    pub known: u32,
    /// The packet's entry is right if its frontend is still whose it was.
    pub ask: u32,
    /// The port of the flow that had the tuple of the packet until now, as its backend knew it, in network order; 0: none.
    pub kept: u32,
    /// The packet may be for a frontend.
    pub may_be_frontend: u32,
    /// The frontend of the packet was looked for already, in vain.
    pub looked: u32,
    /// The seat of the flow that is being made, and the turn in which it got that.
    pub seat: u32,
    pub turn: u32,
    /// Bits of [`Entered`].
    pub entered: u32,
    /// What is being claimed for it, see [`super::claim`].
    pub claim: Claim<F>,
    /// What the replies of the flow are found by.
    pub reply_key: F::Key,
    /// What the client's packets of the flow are found by.
    pub client_key: F::Key,
    // What the first packet of most flows needs ends here.
    /// A flow that is being judged, see [`super::judge`].
    pub other: Other<F>,
    /// What the egress entry of a masqueraded flow is found by.
    pub mask_key: F::Key,
    /// What its replies are found by at ingress.
    pub mask_reply_key: F::Key,
    /// The address that masquerades.
    pub node: Address,
    /// Where the packet goes past the stack.
    pub route: Route,
}

/// Which entries of the flow that is being made are in the table.
pub struct Entered;

impl Entered {
    pub const REPLY: u32 = 1;
    pub const MASK_REPLY: u32 = 2;
    pub const MASK: u32 = 4;
}

/// A reply key to be taken, under a port that is free.
#[repr(C)]
pub struct Claim<F: Family> {
    pub key: F::Key,
    pub reply: F::Flow,
    /// First and number of the ports to draw from, host order.
    pub low: u32,
    pub ports: u32,
    /// The present port is tried (again) before another is drawn.
    pub keep: u32,
    /// One of [`Claimed`].
    pub end: u32,
}

/// What became of a [`Claim`].
pub struct Claimed;

impl Claimed {
    pub const NOT_YET: u32 = 0;
    pub const YES: u32 = 1;
    pub const FULL: u32 = 2;
}

/// Keys and entries of a flow that the packet does not belong to.
#[repr(C)]
pub struct Other<F: Family> {
    pub client_key: F::Key,
    pub client: F::Flow,
    pub reply_key: F::Key,
    pub reply: F::Flow,
    pub key: F::Key,
    pub flow: F::Flow,
    /// It is judged while a port or a place is wanted and none is free.
    pub pressed: u32,
}

impl<F: Family> Row<F> {
    #[inline(always)]
    pub fn at(&mut self, hook: Hook, link: Link, device: u32) {
        self.hook = hook as u32;
        self.ethernet = u32::from(link == Link::Ethernet);
        self.device = device;
        self.kept = 0;
        self.looked = 0;
        self.entered = 0;
    }

    #[inline(always)]
    pub fn hook(&self) -> Hook {
        Hook::ALL.get(self.hook as usize).copied().unwrap_or(Hook::PodIngress)
    }

    #[inline(always)]
    pub fn is_at_pod_link(&self) -> bool {
        self.hook == Hook::PodIngress as u32 || self.hook == Hook::PodEgress as u32
    }

    #[inline(always)]
    pub fn link(&self) -> Link {
        if self.ethernet != 0 { Link::Ethernet } else { Link::Ip }
    }

    /// For hosts that have no memory of zeros.
    pub fn empty() -> Self {
        let (key, flow) = (F::Key::new_zeroed, F::Flow::new_zeroed);
        Self {
            headers: Headers::empty(),
            flow: flow(),
            claim: Claim { key: key(), reply: flow(), low: 0, ports: 0, keep: 0, end: Claimed::NOT_YET },
            other: Other {
                client_key: key(),
                client: flow(),
                reply_key: key(),
                reply: flow(),
                key: key(),
                flow: flow(),
                pressed: 0,
            },
            node: Address::ANY,
            route: Route::NONE,
            device: 0,
            hook: 0,
            ethernet: 0,
            known: 0,
            ask: 0,
            kept: 0,
            may_be_frontend: 0,
            looked: 0,
            seat: 0,
            turn: 0,
            entered: 0,
            mask_key: key(),
            mask_reply_key: key(),
            reply_key: key(),
            client_key: key(),
        }
    }
}
