use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Delta, DetectLocal, EndpointSlice, Event, Family, Interface, Node, ObjectName, Problem, Protocol, Service, Settings,
};

/// What the sources have said so far, indexed by service.
#[derive(Debug, Default)]
pub struct Cluster {
    node_name: String,
    settings: Settings,
    services: HashMap<ObjectName, Service>,
    /// By service, then by the name of the slice.
    slices: HashMap<ObjectName, BTreeMap<String, EndpointSlice>>,
    /// The service that each known slice belongs to.
    owners: HashMap<ObjectName, ObjectName>,
    node: Option<Node>,
    /// Those of the last object of this node that had any.
    pod_cidrs: Vec<IpNet>,
    /// Every address of a device of this node.
    own_addresses: BTreeSet<IpAddr>,
    /// The addresses of the last object of this node that had any.
    node_addresses: Vec<IpAddr>,
    unmatched: HashMap<ObjectName, BTreeSet<(String, Protocol)>>,
    complete: Lists,
}

/// The lists that have been complete once.
#[derive(Clone, Copy, Debug, Default)]
struct Lists {
    services: bool,
    endpoint_slices: bool,
    nodes: bool,
}

/// What an event touched.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Services to compile anew, deleted ones among them.
    pub services: BTreeSet<ObjectName>,
    /// Every service is to be compiled anew: the zone of this node changed, or whether its pods can be told from others.
    pub all: bool,
    /// The object of this node changed.
    pub node: bool,
    /// What the objects together get wrong, reported when it begins.
    pub problems: Vec<Problem>,
}

impl std::ops::AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.services.extend(other.services);
        self.all |= other.all;
        self.node |= other.node;
        self.problems.extend(other.problems);
    }
}

impl Cluster {
    /// `node_name`: the name of this node's object. It is lower-cased, as kube-proxy does.
    pub fn new(node_name: &str, settings: Settings) -> Self {
        Self { node_name: node_name.trim().to_lowercase(), settings, ..Self::default() }
    }

    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The object of this node.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Where the pods of this node, or of the cluster, have their addresses of a family; `None`: not known.
    pub fn pod_prefix(&self, family: Family) -> Option<IpNet> {
        let prefixes = match &self.settings.detect_local {
            DetectLocal::ClusterCidr(prefixes) => prefixes,
            DetectLocal::NodeCidr => &self.pod_cidrs,
            DetectLocal::BridgeInterface(_) | DetectLocal::InterfaceNamePrefix(_) => return None,
        };
        prefixes.iter().find(|net| Family::of(&net.addr()) == family).copied()
    }

    /// Whether pods of this node can be told from other clients of a family: kube-proxy's "local detector".
    pub fn detects_pods(&self, family: Family) -> bool {
        self.settings.detect_local.is_by_device() || self.pod_prefix(family).is_some()
    }

    /// Whether a device of this node has the address.
    pub fn is_own_address(&self, address: &IpAddr) -> bool {
        self.own_addresses.contains(address)
    }

    /// Takes in the devices of this node: touched are the services with a ClusterIP that has become, or is no longer, an
    /// address of one of them.
    pub fn set_interfaces(&mut self, interfaces: &[Interface]) -> Changes {
        let addresses: BTreeSet<IpAddr> =
            interfaces.iter().flat_map(|interface| &interface.addresses).copied().collect();
        let mut changes = Changes::default();
        let before = std::mem::replace(&mut self.own_addresses, addresses);
        // The devices of pods come and go with addresses that are valid on their link only.
        let can_be_served = |ip: &&IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let moved: Vec<&IpAddr> = before.symmetric_difference(&self.own_addresses).filter(can_be_served).collect();
        if !moved.is_empty() {
            let is_touched = |service: &&Service| service.cluster_ips.iter().any(|ip| moved.contains(&ip));
            changes.services.extend(self.services.values().filter(is_touched).map(|service| service.name.clone()));
        }
        changes
    }

    /// The addresses of this node's object, in its order, internal ones first. Those that it had last while it is gone
    /// or has none: they are still the node's. Empty before the first ones.
    pub fn node_addresses(&self) -> &[IpAddr] {
        &self.node_addresses
    }

    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// In no particular order.
    pub fn service_names(&self) -> impl Iterator<Item = &ObjectName> {
        self.services.keys()
    }

    pub fn endpoint_slices(&self, service: &ObjectName) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether every list has been complete once: nothing may be programmed before. A source that knows no nodes
    /// sends an empty list of them.
    pub fn is_complete(&self) -> bool {
        self.awaited_lists().next().is_none()
    }

    /// The kinds whose list has not been complete yet.
    pub fn awaited_lists(&self) -> impl Iterator<Item = &'static str> {
        let Lists { services, endpoint_slices, nodes } = self.complete;
        let kinds = [("Services", services), ("EndpointSlices", endpoint_slices), ("Nodes", nodes)];
        kinds.into_iter().filter_map(|(kind, complete)| (!complete).then_some(kind))
    }

    /// Takes in an event. Objects that are equal to the known ones touch nothing.
    pub fn apply(&mut self, event: Event) -> Changes {
        let mut changes = Changes::default();
        match event {
            Event::Services(delta) => self.apply_services(delta, &mut changes.services),
            Event::EndpointSlices(delta) => {
                self.apply_slices(delta, &mut changes.services);
                changes.services.retain(|name| self.services.contains_key(name));
            }
            Event::Nodes(delta) => self.apply_nodes(delta, &mut changes),
        }
        for name in &changes.services {
            changes.problems.extend(self.new_unmatched(name));
        }
        changes
    }

    fn apply_services(&mut self, delta: Delta<Service>, touched: &mut BTreeSet<ObjectName>) {
        match delta {
            Delta::Replace(list) => {
                self.complete.services = true;
                let mut old = std::mem::take(&mut self.services);
                self.services.reserve(list.len());
                for service in list {
                    if old.remove(&service.name).as_ref() != Some(&service) {
                        touched.insert(service.name.clone());
                    }
                    self.services.insert(service.name.clone(), service);
                }
                touched.extend(old.into_keys());
            }
            Delta::Apply(service) => {
                if self.services.get(&service.name) != Some(&service) {
                    touched.insert(service.name.clone());
                    self.services.insert(service.name.clone(), service);
                }
            }
            Delta::Delete(name) => {
                if self.services.remove(&name).is_some() {
                    touched.insert(name);
                }
            }
        }
    }

    fn apply_slices(&mut self, delta: Delta<EndpointSlice>, touched: &mut BTreeSet<ObjectName>) {
        match delta {
            Delta::Replace(list) => {
                self.complete.endpoint_slices = true;
                let listed: BTreeSet<ObjectName> = list.iter().map(|slice| slice.name.clone()).collect();
                let gone: Vec<ObjectName> =
                    self.owners.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                for slice in gone {
                    touched.extend(self.remove_slice(&slice));
                }
                for slice in list {
                    self.insert_slice(slice, touched);
                }
            }
            Delta::Apply(slice) => self.insert_slice(slice, touched),
            Delta::Delete(name) => touched.extend(self.remove_slice(&name)),
        }
    }

    fn insert_slice(&mut self, slice: EndpointSlice, touched: &mut BTreeSet<ObjectName>) {
        let known = self.slices.get(&slice.service).and_then(|slices| slices.get(&slice.name.name));
        if known == Some(&slice) {
            return;
        }
        if self.owners.get(&slice.name).is_some_and(|owner| *owner != slice.service) {
            touched.extend(self.remove_slice(&slice.name));
        }
        touched.insert(slice.service.clone());
        self.owners.insert(slice.name.clone(), slice.service.clone());
        self.slices.entry(slice.service.clone()).or_default().insert(slice.name.name.clone(), slice);
    }

    /// Returns the service that the slice belonged to.
    fn remove_slice(&mut self, name: &ObjectName) -> Option<ObjectName> {
        let owner = self.owners.remove(name)?;
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(&name.name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        Some(owner)
    }

    fn apply_nodes(&mut self, delta: Delta<Node>, changes: &mut Changes) {
        let is_first = !self.complete.nodes && self.node.is_none();
        let node = match delta {
            Delta::Replace(list) => {
                self.complete.nodes = true;
                list.into_iter().find(|node| node.name.name == self.node_name)
            }
            Delta::Apply(node) if node.name.name == self.node_name => Some(node),
            Delta::Delete(name) if name.name == self.node_name => None,
            Delta::Apply(_) | Delta::Delete(_) => return,
        };
        let zone = |node: &Option<Node>| node.as_ref().and_then(|node| node.zone.clone());
        changes.all = zone(&node) != zone(&self.node);
        changes.node = node != self.node;
        let before = std::mem::replace(&mut self.node, node);
        if let Some(node) = self.node.as_ref().filter(|node| !node.pod_cidrs.is_empty()) {
            let detected = Family::ALL.map(|family| self.detects_pods(family));
            self.pod_cidrs.clone_from(&node.pod_cidrs);
            changes.all |= detected != Family::ALL.map(|family| self.detects_pods(family));
        }
        if let Some(node) = self.node.as_ref().filter(|node| !node.addresses.is_empty()) {
            self.node_addresses.clone_from(&node.addresses);
        } else if is_first || before.is_some_and(|node| !node.addresses.is_empty()) {
            changes.problems.push(self.no_node_addresses());
        }
    }

    /// kube-proxy only logs it as well.
    fn no_node_addresses(&self) -> Problem {
        let what = if self.node.is_some() { "has no addresses" } else { "does not exist" };
        let then = match &self.node_addresses[..] {
            [] => "until it has, NodePorts with nodePortAddresses \"primary\" begin to answer nowhere".to_owned(),
            last => format!(
                "the last ones stay in use: {}",
                last.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ")
            ),
        };
        Problem::new("Node", &ObjectName::new("", &self.node_name), format!("{what}; {then}"))
    }

    /// Ports without a counterpart in any slice, if they had one at the last call. A service whose slices have no
    /// endpoint yet has no port in them either, and nothing wrong with it.
    fn new_unmatched(&mut self, name: &ObjectName) -> Vec<Problem> {
        let mut unmatched = BTreeSet::new();
        if let Some(service) = self.services.get(name)
            && self.endpoint_slices(name).any(|slice| !slice.endpoints.is_empty())
        {
            for port in &service.ports {
                let mut slice_ports = self.endpoint_slices(name).flat_map(|slice| &slice.ports);
                if !slice_ports.any(|other| other.name == port.name && other.protocol == port.protocol) {
                    unmatched.insert((port.name.clone(), port.protocol));
                }
            }
        }
        let before = if unmatched.is_empty() {
            self.unmatched.remove(name)
        } else {
            self.unmatched.insert(name.clone(), unmatched.clone())
        };
        let before = before.unwrap_or_default();
        let message = |(port, protocol): &(String, Protocol)| {
            let message =
                format!("port {port:?} ({protocol}) matches no port of its EndpointSlices: it has no endpoint");
            Problem::new("Service", name, message)
        };
        unmatched.difference(&before).map(message).collect()
    }
}
