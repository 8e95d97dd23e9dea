use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use proxy_common::wire::NAME_LEN;

use super::{Algorithm, Family, ObjectName, Policy, Port, Problem, Protocol, Service, parse_ip};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const ALGORITHM_ANNOTATION: &str = "sheave.dev/algorithm";

impl Service {
    /// Converts an object of the API. `None`: nothing is to be programmed for it, because it is headless, stands for a
    /// DNS name, belongs to another proxy, or is broken as a whole.
    pub fn from_object(object: &api::Service) -> (Option<Self>, Vec<Problem>) {
        let metadata = &object.metadata;
        let name = ObjectName::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default(),
        );
        let mut conversion = Conversion { name: &name, problems: Vec::new() };
        let service = conversion.service(object);
        let problems = conversion.problems;
        (service, problems)
    }
}

struct Conversion<'a> {
    name: &'a ObjectName,
    problems: Vec<Problem>,
}

impl Conversion<'_> {
    fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::new("Service", self.name, message));
    }

    fn service(&mut self, object: &api::Service) -> Option<Service> {
        let labels = object.metadata.labels.as_ref();
        if labels.is_some_and(|labels| labels.contains_key(PROXY_NAME_LABEL)) {
            return None;
        }
        let spec = object.spec.as_ref()?;
        let headless = spec.cluster_ip.as_deref() == Some("None");
        if spec.type_.as_deref() == Some("ExternalName") || headless {
            return None;
        }
        for (what, text) in [("namespace", &self.name.namespace), ("name", &self.name.name)] {
            if !is_storable(text) || text.is_empty() {
                self.problem(format!("its {what} is not 1 to {NAME_LEN} bytes; the service is left out"));
                return None;
            }
        }
        let cluster_ips = self.cluster_ips(spec);
        if cluster_ips.is_empty() {
            self.problem("has no usable clusterIP; the service is left out");
            return None;
        }
        let ports = self.ports(spec);
        if ports.is_empty() {
            self.problem("has no usable port; the service is left out");
            return None;
        }
        if spec.session_affinity.as_deref() == Some("ClientIP") {
            self.problem("sessionAffinity ClientIP is not supported yet; flows are balanced without affinity");
        }
        Some(Service {
            name: self.name.clone(),
            created: object.metadata.creation_timestamp.as_ref().map_or(i64::MAX, |time| time.0.as_second()),
            external_ips: self.external_ips(spec),
            load_balancer_ips: self.load_balancer_ips(object, spec),
            algorithm: self.algorithm(object),
            internal_policy: self.policy("internalTrafficPolicy", spec.internal_traffic_policy.as_deref()),
            external_policy: self.policy("externalTrafficPolicy", spec.external_traffic_policy.as_deref()),
            cluster_ips,
            ports,
        })
    }

    /// The first address of each family. Without `ipFamilies` an address belongs to the family it is of.
    fn cluster_ips(&mut self, spec: &api::ServiceSpec) -> Vec<IpAddr> {
        let several = spec.cluster_ips.as_deref().unwrap_or_default();
        let single = spec.cluster_ip.as_ref().filter(|ip| several.is_empty() && !ip.is_empty());
        let families = spec.ip_families.as_deref().unwrap_or_default();
        let mut found: Vec<IpAddr> = Vec::new();
        for (at, text) in several.iter().chain(single).enumerate() {
            let Some(ip) = parse_ip(text) else {
                self.problem(format!("clusterIP {text:?} is not an IP address"));
                continue;
            };
            let family = Family::of(&ip);
            let declared = families.get(at).map(String::as_str);
            if !families.is_empty() && declared.and_then(Family::from_api) != Some(family) {
                let declared = declared.unwrap_or("none");
                self.problem(format!("clusterIP {ip} is {family}, but the family listed for it is {declared}"));
                continue;
            }
            if !found.iter().any(|other| Family::of(other) == family) {
                found.push(ip);
            }
        }
        found
    }

    fn ports(&mut self, spec: &api::ServiceSpec) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for port in spec.ports.as_deref().unwrap_or_default() {
            let name = port.name.as_deref().unwrap_or_default();
            let shown = if name.is_empty() { port.port.to_string() } else { format!("{} ({name})", port.port) };
            let Some(protocol) = Protocol::from_api(port.protocol.as_deref()) else {
                let protocol = port.protocol.as_deref().unwrap_or_default();
                self.problem(format!("port {shown}: protocol {protocol} is not supported; the port is left out"));
                continue;
            };
            if !is_storable(name) {
                self.problem(format!("port {shown}: its name is longer than {NAME_LEN} bytes; the port is left out"));
                continue;
            }
            let Some(number) = u16::try_from(port.port).ok().filter(|&number| number != 0) else {
                self.problem(format!("port {shown}: not a port number; the port is left out"));
                continue;
            };
            if ports.iter().any(|other| other.name == name && other.protocol == protocol) {
                self.problem(format!("port {shown}: a second {protocol} port of that name; the port is left out"));
                continue;
            }
            let node_port = u16::try_from(port.node_port.unwrap_or_default()).unwrap_or_else(|_| {
                self.problem(format!("port {shown}: its nodePort is not a port number; it is left out"));
                0
            });
            ports.push(Port { name: name.to_owned(), protocol, port: number, node_port });
        }
        ports
    }

    fn external_ips(&mut self, spec: &api::ServiceSpec) -> Vec<IpAddr> {
        let texts = spec.external_ips.as_deref().unwrap_or_default();
        self.addresses("externalIP", texts.iter())
    }

    /// Addresses of an ingress whose mode is "Proxy" go to the real load balancer, as do those with a host name only
    /// (KEP-1860).
    fn load_balancer_ips(&mut self, object: &api::Service, spec: &api::ServiceSpec) -> Vec<IpAddr> {
        let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
        let texts = ingress
            .iter()
            .filter(|ingress| matches!(ingress.ip_mode.as_deref(), None | Some("VIP")))
            .filter_map(|ingress| ingress.ip.as_ref().filter(|ip| !ip.is_empty()));
        let addresses = self.addresses("load balancer address", texts);
        let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
        if !addresses.is_empty() && ranges.iter().any(|range| !range.trim().is_empty()) {
            let list = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
            self.problem(format!(
                "loadBalancerSourceRanges is not supported yet; its load balancer addresses ({list}) are left out, \
                 so that they are not open to everyone"
            ));
            return Vec::new();
        }
        addresses
    }

    fn addresses<'a>(&mut self, what: &str, texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for text in texts {
            match parse_ip(text) {
                Some(ip) if addresses.contains(&ip) => {}
                Some(ip) => addresses.push(ip),
                None => self.problem(format!("{what} {text:?} is not an IP address")),
            }
        }
        addresses
    }

    fn policy(&mut self, field: &str, word: Option<&str>) -> Policy {
        match word {
            None | Some("" | "Cluster") => Policy::Cluster,
            Some("Local") => Policy::Local,
            Some(other) => {
                self.problem(format!("{field} {other:?} is unknown; Cluster is used"));
                Policy::Cluster
            }
        }
    }

    fn algorithm(&mut self, object: &api::Service) -> Option<Algorithm> {
        match object.metadata.annotations.as_ref()?.get(ALGORITHM_ANNOTATION)?.as_str() {
            "random" => Some(Algorithm::Random),
            "maglev" => Some(Algorithm::Maglev),
            other => {
                self.problem(format!(
                    "annotation {ALGORITHM_ANNOTATION} is {other:?}, not random or maglev; random is used"
                ));
                Some(Algorithm::Random)
            }
        }
    }
}

/// Whether a name fits into the tables of the kernel. The API server takes no other.
fn is_storable(text: &str) -> bool {
    text.len() <= NAME_LEN && !text.contains('\0')
}
