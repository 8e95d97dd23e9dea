use std::collections::HashMap;

use proxy_common::datapath::{State, Tuple, V4};
use proxy_common::tcp::Seen;
use proxy_common::wire::{Flow4, FlowKey4};

use super::*;

const TCP: u8 = 6;
const UDP: u8 = 17;
const NOW: u32 = 10_000;
const CLOCK: Clock = Clock {
    now: NOW,
    timeouts: Timeouts {
        tcp_opening: 120,
        tcp_established: 5_000,
        tcp_half_closed: 3_600,
        tcp_closed: 110,
        tcp_reset: 10,
        udp_opening: 30,
        udp: 125,
        pressed: 5,
    },
};

#[derive(Clone, Default)]
struct Table(HashMap<FlowKey4, Flow4>);

impl Find<V4> for Table {
    fn find(&self, key: &FlowKey4) -> io::Result<Option<Flow4>> {
        Ok(self.0.get(key).copied())
    }
}

// Ends of flows: address and port in one number.
const CLIENT: u32 = 0x0101;
const FRONTEND: u32 = 0x0202;
const BACKEND: u32 = 0x0303;
const NODE: u32 = 0x0404;

fn tuple(source: u32, destination: u32, protocol: u8) -> Tuple<u32> {
    let port = |end: u32| end as u16;
    Tuple { source, destination, source_port: port(source), destination_port: port(destination), protocol }
}

impl Table {
    /// Enters what translates `from` to `to`.
    fn enter(&mut self, role: u8, side: u8, from: (u32, u32), to: (u32, u32), protocol: u8) -> FlowKey4 {
        let key = V4::key(&tuple(from.0, from.1, protocol), side);
        let state =
            State { subject: 0, generation: 0, stamp: 0, last_seen: NOW - 500, role, flags: 0, seen: Seen::ACK };
        self.0.insert(key, V4::flow(&tuple(to.0, to.1, protocol), state));
        key
    }

    fn change(&mut self, key: &FlowKey4, change: impl FnOnce(&mut Flow4)) {
        change(self.0.get_mut(key).unwrap());
    }

    fn fates(&self) -> Vec<(u8, Fate)> {
        let mut fates: Vec<(u8, Fate)> =
            self.0.iter().map(|(key, flow)| (flow.role, fate::<V4>(key, flow, self, &CLOCK).unwrap())).collect();
        fates.sort_by_key(|&(role, _)| role);
        fates
    }
}

/// A masqueraded flow, with the keys of its entries by role.
fn masqueraded(protocol: u8) -> (Table, [FlowKey4; 4]) {
    let mut table = Table::default();
    let keys = [
        table.enter(Role::CLIENT, Side::INGRESS, (CLIENT, FRONTEND), (CLIENT, BACKEND), protocol),
        table.enter(Role::REPLY, Side::EGRESS, (BACKEND, CLIENT), (FRONTEND, CLIENT), protocol),
        table.enter(Role::MASK, Side::EGRESS, (CLIENT, BACKEND), (NODE, BACKEND), protocol),
        table.enter(Role::MASK_REPLY, Side::INGRESS, (BACKEND, NODE), (BACKEND, CLIENT), protocol),
    ];
    table.change(&keys[0], |flow| flow.flags = FlowFlags::MASQUERADE | FlowFlags::PROVEN);
    (table, keys)
}

#[test]
fn a_flow_stays_or_goes_as_a_whole() {
    let (mut table, [_, reply, ..]) = masqueraded(TCP);
    let all = |of_client| {
        [
            (Role::CLIENT, of_client),
            (Role::REPLY, Fate::Stays),
            (Role::MASK, Fate::Stays),
            (Role::MASK_REPLY, Fate::Stays),
        ]
    };
    assert_eq!(table.fates(), all(Fate::Stays), "an established connection");
    table.change(&reply, |flow| flow.seen = Seen::RST);
    assert_eq!(table.fates(), all(Fate::Over), "a reset one");

    let (mut table, [client, reply, ..]) = masqueraded(UDP);
    assert_eq!(table.fates(), all(Fate::Over), "an exchange that is quiet for too long");
    table.change(&reply, |flow| flow.last_seen = NOW);
    assert_eq!(table.fates(), all(Fate::Stays), "the server still sends");

    let flow = table.0[&client];
    let rest = rest_of::<V4>(&client, &flow, &table).unwrap();
    let roles: Vec<u8> = rest.iter().map(|(_, flow)| flow.role).collect();
    assert_eq!(roles, [Role::MASK, Role::MASK_REPLY, Role::REPLY]);
}

#[test]
fn an_entry_without_its_flow_is_a_stray_unless_it_is_fresh() {
    // What each role cannot be without.
    for (role, missing) in [
        (Role::CLIENT, Role::REPLY),
        (Role::REPLY, Role::CLIENT),
        (Role::MASK, Role::REPLY),
        (Role::MASK_REPLY, Role::MASK),
    ] {
        let (mut table, keys) = masqueraded(TCP);
        table.0.remove(&keys[usize::from(missing) - 1]);
        assert!(table.fates().contains(&(role, Fate::Stray)), "{role} without {missing}");
        table.change(&keys[usize::from(role) - 1], |flow| flow.last_seen = NOW - FRESH);
        assert!(table.fates().contains(&(role, Fate::Stays)), "{role} is on its way");
    }
}

#[test]
fn entries_of_another_flow_are_no_kin() {
    // The backend's tuple belongs to another client by now.
    let (mut table, [_, reply, ..]) = masqueraded(TCP);
    table.change(&reply, |flow| flow.destination = 0x0909);
    let fates = table.fates();
    for role in [Role::CLIENT, Role::REPLY, Role::MASK, Role::MASK_REPLY] {
        assert!(fates.contains(&(role, Fate::Stray)), "{role}: {fates:?}");
    }
    // One that is not masqueraded has no mask.
    let (mut table, [client, ..]) = masqueraded(TCP);
    table.change(&client, |flow| flow.flags = 0);
    assert!(table.fates().contains(&(Role::MASK, Fate::Stray)));
    // Nor does one have another's.
    let (mut table, [.., mask, _]) = masqueraded(TCP);
    table.change(&mask, |flow| flow.source_port = 7);
    assert!(table.fates().contains(&(Role::MASK_REPLY, Fate::Stray)));
}

#[test]
fn hairpins_and_what_the_node_asks_itself() {
    let mut table = Table::default();
    let client = table.enter(Role::CLIENT, Side::INGRESS, (CLIENT, FRONTEND), (FRONTEND, CLIENT), TCP);
    table.change(&client, |flow| flow.flags = FlowFlags::HAIRPIN | FlowFlags::PROVEN);
    table.enter(Role::REPLY, Side::INGRESS, (CLIENT, FRONTEND + 1), (FRONTEND, CLIENT), TCP);
    assert!(table.fates().contains(&(Role::CLIENT, Fate::Stray)), "that is another port's");
    let mut table = Table::default();
    let client = table.enter(Role::CLIENT, Side::INGRESS, (CLIENT, FRONTEND), (FRONTEND + 1, CLIENT), TCP);
    table.change(&client, |flow| flow.flags = FlowFlags::HAIRPIN | FlowFlags::PROVEN);
    table.enter(Role::REPLY, Side::INGRESS, (CLIENT, FRONTEND + 1), (FRONTEND, CLIENT), TCP);
    assert_eq!(table.fates(), [(Role::CLIENT, Fate::Stays), (Role::REPLY, Fate::Stays)]);

    let mut table = Table::default();
    let own = table.enter(Role::OWN, Side::INGRESS, (BACKEND, NODE), (BACKEND, NODE), UDP);
    assert_eq!(table.fates(), [(Role::OWN, Fate::Over)]);
    table.change(&own, |flow| flow.last_seen = NOW + 1);
    assert_eq!(table.fates(), [(Role::OWN, Fate::Stays)], "another CPU is a tick ahead");
}
