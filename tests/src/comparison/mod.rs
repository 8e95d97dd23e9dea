//! The benchmark of real connections: a ClusterIP beside the pod's own address, in one run, interleaved, as ratios.
//!
//! Absolute rates of a small virtual machine say little and do not transfer; the ratio of two paths measured seconds
//! apart does, as long as two measurements of the *same* path agree, which is measured along (the control).

mod machine;
mod paths;
mod ratio;
mod report;
mod rounds;
mod samples;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cluster::{AgentOptions, Cluster};

pub use machine::stay_on_one_processor;
pub use paths::{Metric, Placement, Stand};
pub use ratio::{Estimate, Judgement, judge};
pub use report::{comparisons, figures};
pub use rounds::{Comparison, Effort, STREAM_BAR};
pub use samples::{Estimates, Samples, Turn};

/// Services that the agents carry: those that are measured alone; and as many as a large cluster has.
const SERVICES: [usize; 2] = [MEASURED, 20_000];
const MEASURED: usize = 2;

/// Every metric at both placements, with few and with many services. `said` is told of each as it is done.
///
/// # Errors
/// A cluster, an agent or a request failed.
pub fn run(effort: Effort, mut said: impl FnMut(&Comparison)) -> Result<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    for services in SERVICES {
        let stand = Stand::build()?;
        fill(stand.cluster(), services)?;
        let options = AgentOptions { timeout: Duration::from_secs(60), ..AgentOptions::default() };
        let _agents = stand.cluster().start_agents(&options)?;
        let _servers = stand.start_servers()?;
        for placement in Placement::BOTH {
            for metric in Metric::ALL {
                let comparison = rounds::compare(&stand, metric, placement, services, effort)?;
                said(&comparison);
                comparisons.push(comparison);
            }
        }
    }
    Ok(comparisons)
}

/// Adds services with an endpoint that nobody asks, up to `count` in all.
fn fill(cluster: &Cluster, count: usize) -> Result<()> {
    const FIRST: usize = 1000;
    let objects: Vec<Value> = (FIRST..).take(count.saturating_sub(MEASURED)).flat_map(unasked).collect();
    cluster.manifests().objects("unasked.json", &objects)
}

/// The `number`th service nobody asks, and its endpoint.
fn unasked(number: usize) -> [Value; 2] {
    let (name, [.., high, low]) = (format!("unasked-{number}"), number.to_be_bytes());
    let ip = format!("10.96.{high}.{low}");
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "clusterIP": ip,
            "clusterIPs": [ip],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [format!("10.244.{}.{low}", 100 + high % 100)], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
    });
    [service, slice]
}
