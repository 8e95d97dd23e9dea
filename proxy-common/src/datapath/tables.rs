//! What the datapath asks of the maps, the clock and the dice.

use super::{Family, Packet, parse::Parse, part, reject::Reject, rewrite::translate, row::Row};
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
    /// Copies the flow entry to `flow`. `false`: there is none, and `flow` is untouched.
    fn peek<F: Family>(&self, key: &F::Key, flow: &mut F::Flow) -> bool;
    fn has<F: Family>(&self, key: &F::Key) -> bool;
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
    pub index: u32,
    pub key: &'a mut K,
}

/// A place in the ring of flows that have not proved themselves.
pub struct OpeningSeat<'a, K> {
    /// As of a [`Seat`].
    pub name: u32,
    /// Tells whoever takes the place now from those who had it before.
    pub turn: u32,
    /// Nobody has it: its last holder has another by now.
    pub is_free: bool,
    pub key: &'a mut K,
}

/// How the places of a map are divided among the rings of flows that have proved themselves: a second question proves
/// less than the acknowledgment of a handshake, so that datagrams have places of their own, a quarter as many.
pub struct Seats;

impl Seats {
    /// Places in all, for so many of connections, a power of two.
    pub const fn all(connections: u32) -> u32 {
        connections + connections / 4
    }

    /// The place that comes after so many that were taken.
    #[inline(always)]
    pub const fn index(connections: u32, datagrams: bool, taken: u32) -> u32 {
        if datagrams {
            connections + (taken & (connections / 4).wrapping_sub(1))
        } else {
            taken & connections.wrapping_sub(1)
        }
    }
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
    /// Marks the entry of replies as that of a flow that has proved itself and got a seat for it. Answers with the name of
    /// the seat that it had, and the turn in which it had got that.
    fn settle<F: Family>(&self, key: &F::Key, seat: u32) -> (u32, u32);
    /// Enters a key that is not there yet.
    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow) -> Inserted;
    fn remove<F: Family>(&self, key: &F::Key);
    /// The next place of this CPU's ring of flows that have not proved themselves.
    fn opening_seat<F: Family>(&self) -> Option<OpeningSeat<'_, F::Key>>;
    /// Says that whoever got an opening seat in that turn has another now: whose it is next need not look for him.
    fn leave<F: Family>(&self, seat: u32, turn: u32);
    /// The next place of the ring of those that have, of connections or of datagrams: see [`Seats`].
    fn proven_seat<F: Family>(&self, datagrams: bool) -> Option<Seat<'_, F::Key>>;
    /// Puts a key into a place of that ring.
    fn seat<F: Family>(&self, index: u32, key: &F::Key);
    fn count(&self, hook: Hook, reason: Reason);
    /// Takes one of the rejects that may be sent to the clients of a [`crate::wire::reject_row`] in tick `now`.
    fn take_reject(&self, row: u32, now: u32, per_tick: u32) -> bool;
    fn random(&self) -> u32;

    /// What this CPU works on packets of a family with. No two of these references are in use at once: whoever calls a
    /// part asks anew after it.
    #[expect(clippy::mut_from_ref, reason = "as kernel memory is: see above")]
    fn row<F: Family>(&self) -> Option<&mut Row<F>>;
    /// Runs a [`part::Part`] of the datapath, which a kernel verifies by itself, so that its cost is added to that of its
    /// callers and not multiplied with it. Nothing crosses but the packet and a number: see [`Row`].
    #[inline(always)]
    fn apart<const PART: u8, F: Parse + Reject, P: Packet>(&self, packet: &mut P) -> u32
    where
        Self: Sized,
    {
        part::run::<PART, F, P, Self>(packet, self)
    }
    /// The same for a [`part::Work`], which needs no packet.
    #[inline(always)]
    fn work<const WORK: u8, F: Family>(&self) -> u32
    where
        Self: Sized,
    {
        part::work::<WORK, F, Self>(self)
    }
    /// Puts the tuple of `row.flow` in the place of the packet's. `false`: not all of it could be written.
    #[inline(always)]
    fn rewrite<F: Parse + Reject, P: Packet>(&self, packet: &mut P, row: &Row<F>) -> bool {
        translate::<F, P>(packet, &row.headers, &row.flow)
    }
    /// Calls `step`, which captures nothing, with the number of the turn until it answers `true`. A kernel verifies it
    /// once, however many turns there are.
    #[inline(always)]
    fn repeat<S: Fn(&Self, u32) -> bool>(&self, turns: u32, step: S)
    where
        Self: Sized,
    {
        for turn in 0..turns {
            if step(self, turn) {
                break;
            }
        }
    }
}
