//! Sheave goes as it came.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Effort, services};
use crate::kind::interrupt::eventually;
use crate::kind::residue::{KernelObjects, NodeState};
use crate::kind::stage::Stage;

/// The kernel frees programs and maps a moment after their last user has gone.
const SETTLE: Duration = Duration::from_secs(10);

/// Removed as its documentation says, it leaves nothing on any node and has changed nothing that is not its own; installed
/// again, `rollout status` returns when traffic is carried.
pub fn leaves_nothing(stage: &Stage, _: &Effort) -> Result<String> {
    let with: Vec<NodeState> = states(stage)?;
    let mut objects = KernelObjects::default();
    for node in stage.nodes()? {
        objects.add_those_of_agent(&stage.cluster, &node.name)?;
    }
    let held = objects.len();
    ensure!(
        held > 0 && objects.left().len() == held,
        "of {held} programs, maps and links only {:?} are found",
        objects.left()
    );

    remove(stage)?;
    for (with, without) in with.iter().zip(states(stage)?) {
        ensure!(without.pins.is_empty(), "{} still has pins: {:?}", without.node, without.pins);
        let changed: BTreeSet<_> = with.network.symmetric_difference(&without.network).collect();
        ensure!(changed.is_empty(), "{}: with Sheave and without it differ {changed:#?}", without.node);
    }
    eventually(SETTLE, || {
        let left = objects.left();
        ensure!(left.is_empty(), "still in the kernel: {left:?}");
        Ok(())
    })?;
    services::expect_silence(stage).context("after the removal")?;

    stage.apply()?;
    stage.rollout_proxy()?;
    services::expect_answers(stage).context("right after `rollout status` returned")?;
    let pins: usize = with.iter().map(|state| state.pins.len()).sum();
    Ok(format!(
        "{pins} pins on {} nodes and {held} programs, maps and links are gone; links, addresses, routes and \
         netfilter as before; installed again, every node carried traffic when `rollout status` returned",
        stage.pods.len()
    ))
}

fn states(stage: &Stage) -> Result<Vec<NodeState>> {
    stage.nodes()?.iter().map(|node| NodeState::look(&stage.cluster, &node.name)).collect()
}

/// As deploy/README.md says, up to where the DaemonSet could be deleted.
///
/// # Errors
/// A node is not clean in time.
pub fn remove(stage: &Stage) -> Result<()> {
    let file = stage.deploy.join("remove.yaml");
    let line = "--namespace kube-system patch daemonset sheave --patch-file";
    stage.cluster.kubectl_with(line, [file])?;
    stage.rollout_proxy()
}
