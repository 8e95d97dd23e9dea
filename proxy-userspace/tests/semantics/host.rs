//! A host for the datapath of the kernel programs: packets are byte vectors, maps are in memory.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use proxy_common::{
    checksum,
    datapath::{ChecksumChange, Family, Inserted, Link, Packet, Route, RouteQuery, Tables, ingress},
    reason::{Hook, Reason},
    verdict::Verdict,
    wire::{Address, Backend, Config, Device, Flow4, Flow6, FlowFlags, Frontend, FrontendKey},
};
use proxy_userspace::{model::Protocol, reconcile::MemoryTables};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// What a client that opens a flow gets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// The packet goes where it was sent.
    NotOurs,
    Backend {
        address: SocketAddr,
        masqueraded: bool,
    },
    /// The client is the backend: the packet goes back out of its link.
    TurnedAround {
        address: SocketAddr,
    },
    Refused,
    Dropped(Reason),
}

/// Steps of the golden ratio visit all parts of the range evenly.
const STEP: u32 = 0x9e37_79b9;

/// The flow table and the dice, over borrowed maps.
pub struct Host<'a> {
    pub maps: &'a MemoryTables,
    pub flows: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
    pub now: Cell<u32>,
    dice: Cell<u32>,
}

impl<'a> Host<'a> {
    /// `seed` decides how the dice fall.
    pub fn new(maps: &'a MemoryTables, seed: u32) -> Self {
        let dice = Cell::new(seed.wrapping_mul(STEP));
        Self { maps, flows: RefCell::default(), now: Cell::new(1), dice }
    }

    /// The first packet of a flow, or one more of it.
    pub fn send(&self, hook: Hook, client: SocketAddr, dialled: SocketAddr, protocol: Protocol) -> Answer {
        let mut packet = Bytes(build(client, dialled, protocol));
        match ingress(&mut packet, self, hook, Link::Ip) {
            Verdict::Pass => Answer::NotOurs,
            Verdict::Reply => Answer::Refused,
            Verdict::Drop(reason) => Answer::Dropped(reason),
            Verdict::Back => Answer::TurnedAround { address: destination(&packet.0) },
            Verdict::Translate | Verdict::Forward => {
                Answer::Backend { address: destination(&packet.0), masqueraded: self.has_masqueraded() }
            }
        }
    }

    fn has_masqueraded(&self) -> bool {
        let flags = |flow: &Vec<u8>| {
            let v4 = Flow4::read_from_bytes(flow).map(|flow| flow.flags);
            v4.or_else(|_| Flow6::read_from_bytes(flow).map(|flow| flow.flags)).unwrap()
        };
        self.flows.borrow().values().any(|flow| flags(flow) & FlowFlags::MASQUERADE != 0)
    }
}

fn build(client: SocketAddr, dialled: SocketAddr, protocol: Protocol) -> Vec<u8> {
    let mut transport = [client.port().to_be_bytes(), dialled.port().to_be_bytes()].concat();
    match protocol {
        Protocol::Tcp => transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]),
        Protocol::Udp => transport.extend([0, 8, 0, 0]),
    }
    let length = transport.len() as u8;
    let mut packet = match (client.ip(), dialled.ip()) {
        (IpAddr::V4(client), IpAddr::V4(dialled)) => {
            let start = [0x45, 0, 0, 20 + length, 0, 0, 0, 0, 64, protocol.number(), 0, 0];
            [&start[..], &client.octets(), &dialled.octets()].concat()
        }
        (IpAddr::V6(client), IpAddr::V6(dialled)) => {
            let start = [0x60, 0, 0, 0, 0, length, protocol.number(), 64];
            [&start[..], &client.octets(), &dialled.octets()].concat()
        }
        _ => panic!("{client} cannot dial {dialled}"),
    };
    packet.extend(transport);
    packet
}

fn destination(packet: &[u8]) -> SocketAddr {
    let (ip, l4): (IpAddr, usize) = match packet[0] >> 4 {
        4 => (<[u8; 4]>::try_from(&packet[16..20]).unwrap().into(), 20),
        _ => (<[u8; 16]>::try_from(&packet[24..40]).unwrap().into(), 40),
    };
    SocketAddr::new(ip, u16::from_be_bytes([packet[l4 + 2], packet[l4 + 3]]))
}

struct Bytes(Vec<u8>);

impl Packet for Bytes {
    fn load<T: FromBytes>(&self, offset: usize) -> Option<T> {
        T::read_from_bytes(self.0.get(offset..offset + size_of::<T>())?).ok()
    }

    fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()> {
        self.0.get_mut(offset..offset + size_of::<T>())?.copy_from_slice(value.as_bytes());
        Some(())
    }

    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let old: u16 = self.load(offset)?;
        if change.udp && old == 0 {
            return Some(());
        }
        self.store(offset, &checksum::update(old, checksum::add(change.addresses, change.ports)))
    }

    fn resize(&mut self, len: usize) -> Option<()> {
        self.0.resize(len, 0);
        Some(())
    }

    fn route(&mut self, _: &RouteQuery) -> Route {
        Route { device: 2, ..Route::NONE }
    }

    fn segment(&self) -> usize {
        0
    }
}

impl Tables for Host<'_> {
    fn find<F: Family>(&self, key: &F::Key, _now: u32, _seen: u8, flow: &mut F::Flow) -> bool {
        let known = self.peek::<F>(key);
        if let Some(known) = known {
            *flow = known;
        }
        known.is_some()
    }

    fn peek<F: Family>(&self, key: &F::Key) -> Option<F::Flow> {
        self.flows.borrow().get(key.as_bytes()).map(|flow| F::Flow::read_from_bytes(flow).unwrap())
    }

    fn insert<F: Family>(&self, key: &F::Key, flow: &F::Flow, only_new: bool) -> Inserted {
        let mut flows = self.flows.borrow_mut();
        if only_new && flows.contains_key(key.as_bytes()) {
            return Inserted::Exists;
        }
        flows.insert(key.as_bytes().to_vec(), flow.as_bytes().to_vec());
        Inserted::Yes
    }

    fn remove<F: Family>(&self, key: &F::Key) {
        self.flows.borrow_mut().remove(key.as_bytes());
    }

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.maps.frontends.get(key).copied()
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.maps.slots.get(index as usize).copied()
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        self.maps.maglev.get(index as usize).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.maps.backends.get(id as usize).copied()
    }

    fn is_node_port_address(&self, address: &Address) -> bool {
        self.maps.local_addresses.contains(address)
    }

    fn device(&self, index: u32) -> Option<Device> {
        self.maps.devices.get(&index).copied()
    }

    fn config(&self) -> Option<&Config> {
        self.maps.config.as_ref()
    }

    fn count(&self, _: Hook, _: Reason) {}

    fn take_reject(&self, _now: u32, _per_tick: u32) -> bool {
        true
    }

    fn random(&self) -> u32 {
        self.dice.set(self.dice.get().wrapping_add(STEP));
        self.dice.get()
    }

    fn now(&self) -> u32 {
        self.now.get()
    }
}
