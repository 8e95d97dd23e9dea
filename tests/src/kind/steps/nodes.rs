//! Nodes come and go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{Effort, services};
use crate::kind::cluster::{is_ready, items, name};
use crate::kind::interrupt::eventually;
use crate::kind::stage::Stage;

/// For a node and all of its pods to be there again.
const LIMIT: Duration = Duration::from_secs(300);

/// A node restarts, and without a hand all is as it was: its pods are ready, and every client is answered everywhere. Its
/// addresses may be others.
pub fn restart(stage: &Stage, effort: &Effort) -> Result<String> {
    let node = stage.last_worker()?;
    let before = containers(stage, &node.name)?;
    let began = Instant::now();
    stage.cluster.restart_node(&node.name)?;
    eventually(LIMIT, || {
        let now = containers(stage, &node.name)?;
        for (pod, old) in &before {
            let (id, ready) = now.get(pod).with_context(|| format!("pod {pod} has gone"))?;
            ensure!(*ready && *id != old.0, "pod {pod} is not ready again");
        }
        Ok(())
    })?;
    let took = began.elapsed().as_secs_f64();
    let seen = services::answers(stage, effort)?;
    Ok(format!("{}: its {} pods were ready after {took:.0} s; {seen}", node.name, before.len()))
}

/// Of a node's pods: the containers' ids, and whether it is ready.
fn containers(stage: &Stage, node: &str) -> Result<BTreeMap<String, (String, bool)>> {
    let list = stage.cluster.json(&format!("get pods --all-namespaces --field-selector spec.nodeName={node}"))?;
    let of = |pod: &serde_json::Value| {
        let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let ids: Vec<&str> = statuses.filter_map(|status| status["containerID"].as_str()).collect();
        Ok((name(pod)?.to_owned(), (ids.join(" "), is_ready(pod))))
    };
    items(&list).iter().map(of).collect()
}
