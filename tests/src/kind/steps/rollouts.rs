//! Pods and agents are replaced, one after the other, and no connection fails.

use anyhow::{Result, ensure};

use super::Effort;
use crate::kind::cluster::Proxy;
use crate::kind::connections::Connections;
use crate::kind::stage::{REPLICAS, Stage};

/// The image that `deploy/kind` names, and the same under another tag.
const IMAGES: [&str; 2] = ["docker.io/library/sheave:dev", "docker.io/library/sheave:dev-next"];

/// Pods of the deployment that is asked.
pub fn of_pods(stage: &Stage, effort: &Effort) -> Result<String> {
    let connections = Connections::start(stage)?;
    for _ in 0..effort.rollouts {
        stage.cluster.kubectl("rollout restart deployment/web")?;
        stage.cluster.rollout("deployment/web")?;
    }
    let carried = connections.stop()?;
    // Else nothing was replaced, or the new ones were not asked.
    let fewest = REPLICAS * effort.rollouts as usize;
    ensure!(carried.servers > fewest, "{} pods answered, and not more than {fewest}", carried.servers);
    Ok(format!("{} rolling updates of {REPLICAS} pods: {carried}", effort.rollouts))
}

/// The proxy's pods.
pub fn of_proxy(stage: &Stage, _: &Effort) -> Result<String> {
    let connections = Connections::start(stage)?;
    stage.system(&format!("rollout restart daemonset/{}", stage.proxy))?;
    stage.rollout_proxy()?;
    Ok(format!("{} on {} nodes: {}", stage.proxy, stage.pods.len(), connections.stop()?))
}

/// The agents get another image, and back.
pub fn upgrades(stage: &Stage, effort: &Effort) -> Result<String> {
    let connections = Connections::start(stage)?;
    let mut images = IMAGES.iter().cycle().skip(1);
    let upgrade = |image: &str| -> Result<()> {
        stage.system(&format!("set image daemonset/{} sheave={image} prepare={image}", Proxy::Sheave))?;
        stage.rollout_proxy()
    };
    for image in images.by_ref().take(effort.upgrades as usize) {
        upgrade(image)?;
    }
    Ok(format!("{} upgrades on {} nodes: {}", effort.upgrades, stage.pods.len(), connections.stop()?))
}
