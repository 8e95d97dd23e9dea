//! What kube-proxy's table of behaviour says, by its row numbers: who dials what, which endpoints there are, and what
//! becomes of it. The agent resolves objects into policies (proxy-userspace, `desired/policy.rs`); here is what the
//! datapath makes of them.

extern crate std;

use core::cell::Cell;
use std::{collections::BTreeMap, string::String, vec::Vec};

use super::*;
use crate::{
    datapath::Family,
    wire::{Address, Config, Device, FrontendKey, Kind, Policy, Rule, Scope, Sets},
};

const fn policy(kind: Kind, pod: Rule, host: Rule, outside: Rule) -> Policy {
    Policy::new(kind).with(Class::Pod, pod).with(Class::Host, host).with(Class::Outside, outside)
}

const fn rule(reach: Reach, masquerade: Masquerade) -> Rule {
    Rule { reach, masquerade }
}

const ALL: Rule = rule(Reach::Cluster, Masquerade::Never);
const ALL_REMOTE: Rule = rule(Reach::Cluster, Masquerade::Remote);
const ALL_ALWAYS: Rule = rule(Reach::Cluster, Masquerade::Always);
const OWN: Rule = rule(Reach::Local, Masquerade::Never);
const OWN_REMOTE: Rule = rule(Reach::Local, Masquerade::Remote);
const OWN_ALWAYS: Rule = rule(Reach::Local, Masquerade::Always);

/// What the agent makes of the traffic policies and of `masqueradeAll`.
mod policies {
    use super::*;

    pub const CLUSTER_IP: Policy = policy(Kind::ClusterIp, ALL, ALL, ALL_REMOTE);
    pub const CLUSTER_IP_LOCAL: Policy = policy(Kind::ClusterIp, OWN, OWN, OWN_REMOTE);
    pub const MASQUERADE_ALL: Policy = policy(Kind::ClusterIp, ALL_ALWAYS, ALL_ALWAYS, ALL_ALWAYS);
    pub const MASQUERADE_ALL_LOCAL: Policy = policy(Kind::ClusterIp, OWN_ALWAYS, OWN_ALWAYS, OWN_ALWAYS);

    pub const fn external(kind: Kind) -> Policy {
        policy(kind, ALL_ALWAYS, ALL_ALWAYS, ALL_REMOTE)
    }

    pub const fn external_local(kind: Kind) -> Policy {
        policy(kind, ALL, ALL_ALWAYS, OWN)
    }

    /// No `clusterCIDR` or the like: pods cannot be told from others.
    pub const fn external_local_pods_unknown(kind: Kind) -> Policy {
        policy(kind, OWN, ALL_ALWAYS, OWN)
    }
}

use policies::*;

/// A pod of this node.
const POD: Origin = Origin { class: Class::Pod, by_pod_link: true, pod_address: true, v6: false };
/// A pod of another node, whose packets come by an uplink or an overlay.
const FAR_POD: Origin = Origin { class: Class::Outside, by_pod_link: false, pod_address: true, v6: false };
/// A process of the node itself.
const HOST: Origin = Origin { class: Class::Host, by_pod_link: false, pod_address: false, v6: false };
const OUTSIDE: Origin = Origin { class: Class::Outside, by_pod_link: false, pod_address: false, v6: false };
/// A virtual machine or a container of another kind behind a link like a pod's.
const MACHINE: Origin = Origin { class: Class::Outside, by_pod_link: true, pod_address: false, v6: false };

/// Where there are endpoints.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoints {
    Both,
    Here,
    There,
    None,
}

use Endpoints::{Both, Here, There};

const SERVICE: u32 = 7;
const HERE: u32 = 100;
const THERE: u32 = 101;

/// What lies in the maps of one service port.
struct Tables {
    sets: Option<Sets>,
    slots: BTreeMap<u32, u32>,
    maglev: BTreeMap<u32, u32>,
    backends: BTreeMap<u32, Backend>,
}

impl Tables {
    /// Slots in the order in which the agent places them: those of this node first.
    fn new(endpoints: Endpoints) -> Self {
        let ids: &[u32] = match endpoints {
            Both => &[HERE, THERE],
            Here => &[HERE],
            There => &[THERE],
            Endpoints::None => &[],
        };
        let cluster = Set { base: 10, count: ids.len() as u32, ..Set::default() };
        let local = Set { count: ids.iter().filter(|&&id| id == HERE).count() as u32, ..cluster };
        let flags = if ids.is_empty() { 0 } else { SetsFlags::HAS_ENDPOINTS };
        let backend = |id: u32| Backend {
            address: Address::from_v4(id),
            flags: BackendFlags::SERVING | if id == HERE { BackendFlags::LOCAL } else { 0 },
            service: SERVICE,
            ..Backend::default()
        };
        Self {
            sets: Some(Sets { cluster, local, service: SERVICE, flags, ..Sets::default() }),
            slots: (10..).zip(ids.iter().copied()).collect(),
            maglev: BTreeMap::new(),
            backends: ids.iter().map(|&id| (id, backend(id))).collect(),
        }
    }

    /// All that can become of a flow, whatever the dice say: where it goes, with a star where the node's address takes
    /// the client's place.
    fn answers(&self, policy: Policy, origin: &Origin) -> String {
        let key = FrontendKey { scope: Scope::ADDRESS, ..FrontendKey::default() };
        let frontend = Frontend::new(&key, SERVICE, policy);
        let mut answers: Vec<String> = Vec::new();
        for fall in [0, u32::MAX / 2, u32::MAX / 2 + 1, u32::MAX] {
            let word = match decide(self, &frontend, origin, &Dice(Cell::new(fall))) {
                Decision::To { id, masquerade, .. } => {
                    std::format!("{}{}", if id == HERE { "here" } else { "there" }, if masquerade { "*" } else { "" })
                }
                Decision::Reject => "rejected".into(),
                Decision::NoLocalEndpoint => "dropped".into(),
                Decision::Stale => "stale".into(),
            };
            if !answers.contains(&word) {
                answers.push(word);
            }
        }
        answers.join(" ")
    }
}

/// Both kinds of dice fall the same way.
struct Dice(Cell<u32>);

impl Pick for Dice {
    fn random(&self) -> u32 {
        self.0.get()
    }

    fn hash(&self) -> u32 {
        self.0.get()
    }
}

impl Lookup for Tables {
    fn sets(&self, service: u32, v6: bool) -> Option<&Sets> {
        self.sets.as_ref().filter(|_| service == SERVICE && !v6)
    }

    fn slot(&self, index: u32) -> Option<u32> {
        self.slots.get(&index).copied()
    }

    fn maglev(&self, index: u32) -> Option<u32> {
        self.maglev.get(&index).copied()
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.get(&id).copied()
    }

    // `decide` asks for nothing else.
    fn config(&self) -> Option<&Config> {
        unreachable!()
    }

    fn frontend(&self, _: &FrontendKey) -> Option<Frontend> {
        unreachable!()
    }

    fn is_node_port_address(&self, _: &Address) -> bool {
        unreachable!()
    }

    fn device(&self, _: u32) -> Option<&Device> {
        unreachable!()
    }

    fn may_be_frontend(&self, _: u32) -> bool {
        unreachable!()
    }

    fn may_be_target(&self, _: u32) -> bool {
        unreachable!()
    }

    fn peek<F: Family>(&self, _: &F::Key, _: &mut F::Flow) -> bool {
        unreachable!()
    }

    fn has<F: Family>(&self, _: &F::Key) -> bool {
        unreachable!()
    }

    fn now(&self) -> u32 {
        unreachable!()
    }
}

/// One line of the tables below: the row of the contract, who dials, and what becomes of it with endpoints on both nodes,
/// on this one, on another one and nowhere.
type Line<'a> = (&'a str, Origin, [&'a str; 4]);

fn check(what: &str, policy: Policy, lines: &[Line<'_>]) {
    for (row, origin, expected) in lines {
        let found =
            [Both, Here, There, Endpoints::None].map(|endpoints| Tables::new(endpoints).answers(policy, origin));
        assert_eq!(&found.each_ref().map(String::as_str), expected, "{what}, {row}: {origin:?}");
    }
}

const NO: &str = "rejected";
const DROP: &str = "dropped";

#[test]
#[rustfmt::skip] // Columns.
fn cluster_ips() {
    // Where kube-proxy masquerades every client that is no pod, Sheave keeps the address towards backends of this node
    // (docs/decisions/0002).
    check("iTP Cluster", CLUSTER_IP, &[
        // Row                                 Who      Both            Here     There     None
        ("22: pods keep their address",        POD,     ["here there",  "here",  "there",  NO]),
        ("22: not local traffic",              HOST,    ["here there*", "here",  "there*", NO]),
        ("22: not local traffic",              OUTSIDE, ["here there*", "here",  "there*", NO]),
        ("22, 69: not local traffic",          MACHINE, ["here there*", "here",  "there*", NO]),
        ("22: replies come back through here", FAR_POD, ["here there*", "here",  "there*", NO]),
    ]);
    check("iTP Local", CLUSTER_IP_LOCAL, &[
        ("16, 18, 22",                         POD,     ["here",        "here",  DROP,     NO]),
        ("16, 18, 22",                         HOST,    ["here",        "here",  DROP,     NO]),
        ("16, 18, 22",                         OUTSIDE, ["here",        "here",  DROP,     NO]),
        ("16, 18, 22",                         MACHINE, ["here",        "here",  DROP,     NO]),
        ("16, 18, 22",                         FAR_POD, ["here",        "here",  DROP,     NO]),
    ]);
    check("masqueradeAll", MASQUERADE_ALL, &[
        ("22: always",                         POD,     ["here* there*", "here*", "there*", NO]),
        ("22: always",                         HOST,    ["here* there*", "here*", "there*", NO]),
        ("22: always",                         OUTSIDE, ["here* there*", "here*", "there*", NO]),
        ("22: always",                         MACHINE, ["here* there*", "here*", "there*", NO]),
        ("22: always",                         FAR_POD, ["here* there*", "here*", "there*", NO]),
    ]);
    check("masqueradeAll, iTP Local", MASQUERADE_ALL_LOCAL, &[
        ("22: always",                         POD,     ["here*",        "here*", DROP,     NO]),
        ("22: always",                         HOST,    ["here*",        "here*", DROP,     NO]),
        ("22: always",                         OUTSIDE, ["here*",        "here*", DROP,     NO]),
        ("22: always",                         MACHINE, ["here*",        "here*", DROP,     NO]),
        ("22: always",                         FAR_POD, ["here*",        "here*", DROP,     NO]),
    ]);
}

#[test]
#[rustfmt::skip] // Columns.
fn external_ips_load_balancer_addresses_and_node_ports() {
    for (row, kind) in [("23", Kind::ExternalIp), ("24", Kind::LoadBalancer), ("25", Kind::NodePort)] {
        check(row, external(kind), &[
            // Row                                 Who      Both             Here     There     None
            ("eTP Cluster: pods always",           POD,     ["here* there*", "here*", "there*", NO]),
            ("eTP Cluster: always",                HOST,    ["here* there*", "here*", "there*", NO]),
            ("eTP Cluster: as decision 2 has it",  OUTSIDE, ["here there*",  "here",  "there*", NO]),
            ("eTP Cluster: as decision 2 has it",  MACHINE, ["here there*",  "here",  "there*", NO]),
            ("eTP Cluster: pods always",           FAR_POD, ["here* there*", "here*", "there*", NO]),
        ]);
        check(row, external_local(kind), &[
            ("26: past the policy",                POD,     ["here there",   "here",  "there",  NO]),
            ("27: past the policy, masqueraded",   HOST,    ["here* there*", "here*", "there*", NO]),
            ("18, 28: its own address",            OUTSIDE, ["here",         "here",  DROP,     NO]),
            ("18, 28: its own address",            MACHINE, ["here",         "here",  DROP,     NO]),
            // Row 26 takes it past the policy as well; but the answer of an endpoint elsewhere would not come back here.
            ("28: not a pod of this node",         FAR_POD, ["here",         "here",  DROP,     NO]),
        ]);
        check(row, external_local_pods_unknown(kind), &[
            ("29: pods as everybody",              POD,     ["here",         "here",  DROP,     NO]),
            ("27, 29: past the policy",            HOST,    ["here* there*", "here*", "there*", NO]),
            ("28, 29",                             OUTSIDE, ["here",         "here",  DROP,     NO]),
        ]);
    }
}

#[test]
fn rows_6_and_37_a_family_has_sets_of_its_own() {
    assert_eq!(Tables::new(Both).answers(CLUSTER_IP, &Origin { v6: true, ..POD }), "stale");
}

#[test]
fn row_38_a_lookup_table_decides_where_there_is_one() {
    let mut tables = Tables::new(Both);
    let sets = tables.sets.as_mut().unwrap();
    (sets.cluster.maglev_base, sets.cluster.maglev_size) = (50, 1);
    tables.maglev.insert(50, THERE);
    assert_eq!(tables.answers(CLUSTER_IP, &POD), "there");
    tables.maglev.clear();
    assert_eq!(tables.answers(CLUSTER_IP, &POD), "stale");
}

/// Whatever a reader finds while the agent writes, it never goes to a backend of another service port.
#[test]
fn tables_that_change_under_the_reader_lead_nowhere() {
    for (what, spoil) in [
        ("the row of sets is another's", (|tables| tables.sets.as_mut().unwrap().service += 1) as fn(&mut Tables)),
        ("the row of sets is gone", |tables| tables.sets = None),
        ("a slot is gone", |tables| tables.slots.clear()),
        ("a backend is gone", |tables| tables.backends.clear()),
        ("a backend is another's", |tables| tables.backends.values_mut().for_each(|backend| backend.service += 1)),
    ] {
        let mut tables = Tables::new(Both);
        spoil(&mut tables);
        for policy in [CLUSTER_IP, CLUSTER_IP_LOCAL, external(Kind::NodePort)] {
            assert_eq!(tables.answers(policy, &POD), "stale", "{what}");
        }
    }
}
