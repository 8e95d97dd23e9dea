//! What the datapath asks of the maps, the clock and the dice.

use super::{Family, Packet, parse::Parse, part, reject::Reject, row::Row};
use crate::{
    reason::{Hook, Reason},
    wire::{Address, Backend, Config, Device, Frontend, FrontendKey, Sets},
};

/// Reads, and nothing else: what has only this cannot disturb traffic.
pub trait Lookup {
    fn config(&self) -> Option<&Config>;
    /// The frontend of a key, as it was written for that key.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// The sets of a service port in one family.
    fn sets(&self, service: u32, v6: bool) -> Option<&Sets>;
    fn slot(&self, index: u32) -> Option<u32>;
    fn maglev(&self, index: u32) -> Option<u32>;
    fn backend(&self, id: u32) -> Option<Backend>;
    /// Whether NodePorts are open on a local address.
    fn is_node_port_address(&self, address: &Address) -> bool;
    fn device(&self, index: u32) -> Option<&Device>;
    /// See [`crate::wire::Filter::frontend`].
    fn may_be_frontend(&self, number: u32) -> bool;
    /// See [`crate::wire::Filter::target`].
    fn may_be_target(&self, number: u32) -> bool;
    fn peek<F: Family>(&self, key: &F::Key) -> Option<F::Flow>;
    /// The current tick; see [`Config`].
    fn now(&self) -> u32;
}

/// What an insertion into the flow table came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    Yes,
    /// The key was there.
    Exists,
    Full,
}

/// A place in a ring, and its name: what [`State::stamp`](super::family::State) of the flow in it holds.
pub struct Seat<'a, K> {
    pub name: u32,
    pub key: &'a mut K,
}

/// Writes as well.
pub trait Record: Lookup {
    /// Copies the flow entry, as it was before this packet, to `flow` and marks it as used at tick `now` and as having
    /// `seen` (bits of [`crate::tcp::Seen`]). `false`: there is none, and `flow` is untouched.
    fn find<F: Family>(&self, key: &F::Key, now: u32, seen: u8, flow: &mut F::Flow) -> bool;
    /// Marks an entry as having `seen`.
    fn note<F: Family>(&self, key: &F::Key, seen: u8);
    /// Adds bits of [`crate::wire::FlowFlags`] to an entry.
    fn add_flags<F: Family>(&self, key: &F::Key, flags: u8);
    fn stamp<F: Family>(&self, key: &F::Key, stamp: u32);
    /// Enters a key that is not there yet.
    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow) -> Inserted;
    fn remove<F: Family>(&self, key: &F::Key);
    /// The next place of this CPU's ring of flows that have not proved themselves.
    fn opening_seat<F: Family>(&self) -> Option<Seat<'_, F::Key>>;
    /// The next place of the ring of those that have.
    fn proven_seat<F: Family>(&self) -> Option<Seat<'_, F::Key>>;
    fn count(&self, hook: Hook, reason: Reason);
    /// Takes one of the rejects that may be sent in tick `now`.
    fn take_reject(&self, now: u32, per_tick: u32) -> bool;
    fn random(&self) -> u32;

    /// What this CPU works on packets of a family with. No two of these references are in use at once: whoever calls a
    /// part asks anew after it.
    fn row<F: Family>(&self) -> Option<&mut Row<F>>;
    /// Runs a part of the datapath that a kernel verifies by itself, so that its cost is added to that of its callers
    /// and not multiplied with it. Nothing crosses but the packet and a number: see [`Row`].
    #[inline(always)]
    fn apart<const PART: u8, F: Parse + Reject, P: Packet>(&self, packet: &mut P) -> u32
    where
        Self: Sized,
    {
        part::run::<PART, F, P, Self>(packet, self)
    }
    /// Calls `step`, which captures nothing, with the number of the turn until it answers `true`. A kernel verifies it
    /// once, however many turns there are.
    #[inline(always)]
    fn repeat<C, S: Fn(&Self, u32, &mut C) -> bool>(&self, turns: u32, state: &mut C, step: S)
    where
        Self: Sized,
    {
        for turn in 0..turns {
            if step(self, turn, state) {
                break;
            }
        }
    }
}
