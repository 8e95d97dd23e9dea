use proxy_common::wire::{Class, Frontend, FrontendKey, Masquerade, Reach, Rule, Scope, Service, Sets, SetsFlags};
use serde::Serialize;

use super::Row;
use super::names::{Names, end, protocol};
use crate::kernel::KernelError;
use crate::kernel::read::Reader;

/// A frontend.
#[derive(Serialize)]
pub(super) struct ServiceRow {
    service: String,
    protocol: String,
    /// `NodePort` is any address of the node that NodePorts are open on.
    frontend: String,
    /// `ClusterIP`, `ExternalIP`, `LoadBalancer` or `NodePort`.
    kind: &'static str,
    algorithm: &'static str,
    /// Backends of the whole cluster that new flows are spread over.
    cluster: u32,
    /// Those of this node that they are spread over where a policy says `Local`.
    local: u32,
    /// What each class of clients gets: `cluster` or `local`, and with `+masquerade` the node's address in the place of
    /// its own, with `+masquerade-remote` only towards backends of other nodes.
    pod: &'static str,
    host: &'static str,
    outside: &'static str,
    /// What becomes of clients without a backend.
    otherwise: &'static str,
}

impl Row for ServiceRow {
    const HEADER: &'static [&'static str] = &[
        "SERVICE",
        "PROTOCOL",
        "FRONTEND",
        "KIND",
        "ALGORITHM",
        "CLUSTER",
        "LOCAL",
        "POD",
        "HOST",
        "OUTSIDE",
        "OTHERWISE",
    ];

    fn cells(&self) -> Vec<String> {
        let Self { service, protocol, frontend, kind, algorithm, cluster, local, pod, host, outside, otherwise } = self;
        let words = [*algorithm, &cluster.to_string(), &local.to_string(), pod, host, outside, otherwise];
        [service, protocol, frontend, *kind].into_iter().chain(words).map(str::to_owned).collect()
    }
}

pub(super) fn rows(reader: &Reader) -> Result<Vec<ServiceRow>, KernelError> {
    let names = Names::read(reader)?;
    let (services, sets) = (reader.services()?, reader.sets()?);
    let frontends = reader.frontends()?;
    let mut rows: Vec<ServiceRow> = frontends
        .iter()
        .map(|(key, frontend)| row(key, frontend, sets_of(key, frontend, &services, &sets).unwrap_or_default(), &names))
        .collect();
    rows.sort_by(|a, b| (&a.service, &a.protocol).cmp(&(&b.service, &b.protocol)));
    Ok(rows)
}

/// The sets that a frontend leads to.
fn sets_of(key: &FrontendKey, frontend: &Frontend, services: &[Service], sets: &[Sets]) -> Option<Sets> {
    let row = services.get(frontend.service as usize)?;
    let v4 = key.scope == Scope::NODE_PORT4 || (key.scope == Scope::ADDRESS && key.address.is_v4());
    let index = if v4 { row.sets4 } else { row.sets6 };
    sets.get(index as usize).filter(|found| found.service == frontend.service).copied()
}

fn row(key: &FrontendKey, frontend: &Frontend, sets: Sets, names: &Names) -> ServiceRow {
    let port = u16::from_be(key.port);
    let rule = |class| shown(frontend.policy.rule(class));
    let is_hashed = sets.cluster.maglev_size != 0 || sets.local.maglev_size != 0;
    ServiceRow {
        service: names.service_port(frontend.service),
        protocol: protocol(key.protocol),
        frontend: match key.scope {
            Scope::NODE_PORT4 => format!("NodePort(IPv4):{port}"),
            Scope::NODE_PORT6 => format!("NodePort(IPv6):{port}"),
            _ => end(key.address.ip(), port),
        },
        kind: frontend.policy.kind().word(),
        algorithm: if is_hashed { "maglev" } else { "random" },
        cluster: sets.cluster.count,
        local: sets.local.count,
        pod: rule(Class::Pod),
        host: rule(Class::Host),
        outside: rule(Class::Outside),
        otherwise: if sets.flags & SetsFlags::HAS_ENDPOINTS != 0 { "drop" } else { "reject" },
    }
}

const fn shown(rule: Rule) -> &'static str {
    match (rule.reach, rule.masquerade) {
        (Reach::Cluster, Masquerade::Never) => "cluster",
        (Reach::Cluster, Masquerade::Remote) => "cluster+masquerade-remote",
        (Reach::Cluster, Masquerade::Always) => "cluster+masquerade",
        (Reach::Local, Masquerade::Never) => "local",
        (Reach::Local, Masquerade::Remote) => "local+masquerade-remote",
        (Reach::Local, Masquerade::Always) => "local+masquerade",
    }
}
