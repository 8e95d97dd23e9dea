//! How long the way from objects to maps takes, for any [`Tables`] and any clock.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use super::{Limits, Reconciler, Report, TableError, Tables};
use crate::model::{
    Algorithm, Cluster, Delta, Endpoint, EndpointSlice, Event, Family, ObjectName, Policy, Port, Protocol, Service,
    Settings, SlicePort,
};

/// A cluster to make up.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub services: u32,
    /// Of each service.
    pub endpoints: u32,
    /// Of one more service, which then loses and regains an endpoint.
    pub changing_endpoints: u32,
    /// So many times, faster than [`Limits::grace`] sets old places free: all the sets have to fit into the slots.
    pub changes: u32,
}

/// What [`measure`] saw.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the lists of objects in memory to the maps.
    pub full_sync: Duration,
    pub full_sync_writes: u64,
    /// The same lists again, after a restart of the agent.
    pub adopt: Duration,
    pub adopt_writes: u64,
    /// From a decoded EndpointSlice to the maps; one for each change.
    pub changes: Vec<Duration>,
    /// Of the last change.
    pub change_writes: u64,
    /// Services that found no room: unless it is 0, the maps are too small and the rest means nothing.
    pub refused: usize,
}

/// Runs `workload` on empty `tables`. `clock` is one that never goes back.
///
/// # Errors
/// If a map cannot be read or written.
pub fn measure(
    tables: &mut impl Tables,
    workload: &Workload,
    mut clock: impl FnMut() -> Duration,
) -> Result<Measured, TableError> {
    let limits = Limits { services: workload.services as usize + 1, ..Limits::default() };
    let mut measured = Measured::default();

    let mut cluster = Cluster::new("node", Settings::default());
    let mut reconciler = Reconciler::adopt(tables, limits)?;
    let events = lists(workload);
    let start = clock();
    let report = full_sync(&mut cluster, &mut reconciler, tables, events, start);
    measured.full_sync = clock() - start;
    measured.full_sync_writes = succeeded(report)?;

    let events = lists(workload);
    let start = clock();
    let mut cluster = Cluster::new("node", Settings::default());
    let mut reconciler = Reconciler::adopt(tables, limits)?;
    let report = full_sync(&mut cluster, &mut reconciler, tables, events, start);
    measured.adopt = clock() - start;
    measured.adopt_writes = succeeded(report)?;

    for change in 0..workload.changes {
        let mut slice = slice(workload.services, workload.changing_endpoints);
        if change % 2 == 0 {
            let gone = change % workload.changing_endpoints.max(1);
            slice
                .endpoints
                .retain(|endpoint| endpoint.address != address(workload.services, workload.changing_endpoints, gone));
        }
        let event = Event::EndpointSlices(Delta::Apply(slice));
        let start = clock();
        let changes = cluster.apply(event);
        let report = reconciler.follow(tables, &cluster, &changes, start);
        measured.changes.push(clock() - start);
        measured.change_writes = succeeded(report)?;
    }
    measured.refused = reconciler.refused().count();
    Ok(measured)
}

fn full_sync(
    cluster: &mut Cluster,
    reconciler: &mut Reconciler,
    tables: &mut impl Tables,
    events: [Event; 2],
    now: Duration,
) -> Report {
    for event in events {
        cluster.apply(event);
    }
    reconciler.sync_all(tables, cluster, now)
}

fn succeeded(report: Report) -> Result<u64, TableError> {
    match report.error {
        Some(error) => Err(error),
        None => Ok(report.writes.total()),
    }
}

fn lists(workload: &Workload) -> [Event; 2] {
    let services = (0..=workload.services).map(service).collect();
    let slices = (0..workload.services).map(|at| slice(at, workload.endpoints));
    let changing = slice(workload.services, workload.changing_endpoints);
    [
        Event::Services(Delta::Replace(services)),
        Event::EndpointSlices(Delta::Replace(slices.chain([changing]).collect())),
    ]
}

fn name(at: u32) -> ObjectName {
    ObjectName::new(format!("namespace-{}", at / 100), format!("service-{at}"))
}

fn service(at: u32) -> Service {
    Service {
        name: name(at),
        created: i64::from(at),
        cluster_ips: vec![Ipv4Addr::from(0x0a60_0000 + at + 1).into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![Port { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port: 0 }],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        algorithm: Some(Algorithm::Random),
    }
}

fn slice(at: u32, endpoints: u32) -> EndpointSlice {
    let service = name(at);
    EndpointSlice {
        name: ObjectName::new(service.namespace.clone(), format!("{}-abcde", service.name)),
        service,
        family: Family::V4,
        ports: vec![SlicePort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..endpoints)
            .map(|endpoint| Endpoint {
                address: address(at, endpoints, endpoint),
                node: Some(format!("node-{}", endpoint % 64).into()),
                ready: true,
                serving: true,
                terminating: false,
                for_nodes: Box::default(),
                for_zones: Box::default(),
            })
            .collect(),
    }
}

/// Each service has its own part of 11.0.0.0/8, as long as they fit in there.
fn address(service: u32, endpoints: u32, endpoint: u32) -> IpAddr {
    let first = service.wrapping_mul(endpoints.max(1).next_power_of_two()) % 0x00ff_0000;
    Ipv4Addr::from(0x0b00_0000 + first + endpoint).into()
}
