use std::collections::BTreeMap;
use std::time::Duration;

use aya::maps::{HashMap, MapData};
use proxy_common::datapath::{Family, State, Tuple, V4};
use proxy_common::tcp::Seen;
use proxy_common::wire::{Config, Flow4, FlowFlags, FlowKey4, LAYOUT, Role, Side, Timeouts};
use proxy_userspace::kernel::Runtime;
use proxy_userspace::kernel::tick::Tick;
use proxy_userspace::reconcile::{FlowNeeds, Tables};
use zerocopy::{FromBytes, IntoBytes};

use crate::sandbox::{Sandbox, sandbox};

const TCP: u8 = 6;
const UDP: u8 = 17;

struct Table {
    map: HashMap<MapData, [u8; 16], [u8; 32]>,
    now: u32,
}

impl Table {
    fn open(sandbox: &Sandbox) -> Self {
        let pin = sandbox.pin_dir().join(format!("v{LAYOUT}/maps/FLOWS4"));
        let map = aya::maps::Map::HashMap(MapData::from_pin(pin).unwrap());
        Self { map: map.try_into().unwrap(), now: Tick::detect().unwrap().now().unwrap() }
    }

    /// What translates one pair of ends, address and port in one number, to another.
    fn enter(&mut self, role: u8, side: u8, [from, to]: [(u32, u32); 2], protocol: u8, flags: u8, idle: u32) {
        let tuple = |(source, destination): (u32, u32)| Tuple {
            source,
            destination,
            source_port: source as u16,
            destination_port: destination as u16,
            protocol,
        };
        let last_seen = self.now.wrapping_sub(idle);
        let state = State { subject: 0, generation: 0, stamp: 7, last_seen, role, flags, seen: Seen::ACK };
        let (key, flow) = (V4::key(&tuple(from), side), V4::flow(&tuple(to), state));
        let key: [u8; 16] = key.as_bytes().try_into().unwrap();
        let flow: [u8; 32] = flow.as_bytes().try_into().unwrap();
        self.map.insert(key, flow, 0).unwrap();
    }

    /// A masqueraded flow from the client to the backend, through frontend 900 and from node 990.
    fn flow(&mut self, client: u32, backend: u32, protocol: u8, idle: u32) {
        let flags = FlowFlags::MASQUERADE | FlowFlags::PROVEN;
        let (frontend, node) = (900, 990 + client);
        let (client_to, to_client) = ((client, backend), (backend, client));
        self.enter(Role::CLIENT, Side::INGRESS, [(client, frontend), client_to], protocol, flags, idle);
        self.enter(Role::REPLY, Side::EGRESS, [to_client, (frontend, client)], protocol, 0, idle);
        self.enter(Role::MASK, Side::EGRESS, [client_to, (node, backend)], protocol, 0, idle);
        self.enter(Role::MASK_REPLY, Side::INGRESS, [(backend, node), to_client], protocol, 0, idle);
    }

    /// How many entries there are, by client or backend that they come from.
    fn sources(&self) -> BTreeMap<u32, usize> {
        let mut sources = BTreeMap::new();
        for entry in self.map.iter() {
            let (key, flow) = entry.unwrap();
            let (key, _) = (FlowKey4::read_from_bytes(&key).unwrap(), Flow4::read_from_bytes(&flow).unwrap());
            *sources.entry(key.source).or_default() += 1;
        }
        sources
    }
}

#[test]
fn a_sweep_removes_what_has_ended_and_what_belongs_to_nothing() {
    sandbox(async |sandbox| {
        let mut runtime = Runtime::open(&sandbox.options()).unwrap();
        let mut table = Table::open(&sandbox);
        table.flow(1, 101, TCP, 500);
        table.flow(2, 102, UDP, 500);
        table.flow(3, 103, UDP, 5);
        table.enter(Role::REPLY, Side::EGRESS, [(104, 4), (900, 4)], TCP, 0, 500);
        table.enter(Role::REPLY, Side::EGRESS, [(105, 5), (900, 5)], TCP, 0, 0);
        // Without a configuration nothing has a time, so nothing has ended.
        let swept = runtime.sweeper.sweep().unwrap();
        assert_eq!((swept.entries, swept.over, swept.strays), (0, 0, 0));

        let timeouts = Timeouts { tcp_established: 10_000, udp: 125, ..Timeouts::default() };
        runtime.tables.set_config(&Config { timeouts, ..Config::default() });
        let swept = runtime.sweeper.sweep().unwrap();
        assert_eq!((swept.entries, swept.over, swept.strays), (14, 1, 1));
        assert!(swept.took < Duration::from_secs(60));
        let left = BTreeMap::from([(1, 2), (101, 2), (3, 2), (103, 2), (105, 1)]);
        assert_eq!(table.sources(), left);
        let swept = runtime.sweeper.sweep().unwrap();
        assert_eq!((swept.entries, swept.over, swept.strays), (9, 0, 0));

        let mut needs = FlowNeeds::none();
        for client in [1, 3] {
            needs.add_frontend(&V4::wide(900));
            needs.add_frontend(&V4::wide(990 + client));
        }
        for (backend, protocol) in [(101, TCP), (103, UDP)] {
            needs.add_target(&V4::wide(backend), backend as u16, protocol);
        }
        assert_eq!(swept.needs, needs);
    });
}

#[test]
fn a_sweep_tells_whoever_listens_and_ends_with_him() {
    sandbox(async |sandbox| {
        let runtime = Runtime::open(&sandbox.options()).unwrap();
        let mut swept = runtime.sweeper.start().unwrap();
        swept.changed().await.unwrap();
        assert_eq!(swept.borrow().as_ref().map(|swept| swept.entries), Some(0));
    });
}
