//! A UDP flow whose frontend passes to another Service: kubernetes/kubernetes#103857.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxy_tests::cluster::{Client, Endpoint, Family, Place, Pod, Service, Stage, eventually};

use crate::{NODE_PORT, answered_from, external, node_port, route_external, stage, with_external};

/// Of the streams, which go on under one tuple whatever happens.
const STREAM: u16 = 20_200;
/// So many datagrams of a stream may still go to the old owner once a new flow was given to the new one: what tells
/// flows to ask anew is written behind what they are to find.
const LATE: usize = 3;

/// Where the frontends that move are.
fn frontends(stage: &Stage) -> impl Iterator<Item = SocketAddr> {
    let of = |family| [node_port(stage, family, NODE_PORT), (external(family), Service::HTTP).into()];
    Family::BOTH.into_iter().flat_map(of)
}

/// The service with those.
fn with(service: &Service) -> Service {
    with_external(service.clone().node_port(NODE_PORT))
}

#[test]
fn udp_frontend_moves() -> Result<()> {
    let [one, two] = [Service::new("one", 1), Service::new("two", 2)];
    let stage = stage(&[(&with(&one), "b"), (&two, "c")], route_external)?;
    let cluster = &stage.cluster;
    let (outside, pod): (&Client, &Pod) = (cluster.client(), cluster.pod("a"));
    // There and back, since the one lives on this node and the other on another.
    for (old, new, from, to) in [(&one, &two, "b", "c"), (&two, &one, "c", "b")] {
        for frontend in frontends(&stage) {
            for owner in [answered_from(outside, STREAM, frontend)?, answered_from(pod, STREAM, frontend)?] {
                ensure!(owner.as_deref() == Some(from), "{frontend}: {owner:?} before the move\n{}", stage.evidence());
            }
        }
        let pod_of = |name| [Endpoint::of(cluster.pod(name))];
        cluster.manifests().apply(old, &pod_of(from))?;
        cluster.manifests().apply(&with(new), &pod_of(to))?;
        let moved = Instant::now();
        for frontend in frontends(&stage) {
            // Any port but that of the streams: a flow that was not there before.
            eventually(Duration::from_secs(1), || {
                let owner = answered_from(outside, 0, frontend)?;
                ensure!(owner.as_deref() == Some(to), "{frontend}: {owner:?} is asked");
                Ok(())
            })?;
            follows(outside, frontend, to).with_context(|| stage.evidence())?;
            follows(pod, frontend, to).with_context(|| stage.evidence())?;
        }
        println!("all streams at {to} after {:?}", moved.elapsed());
    }
    Ok(())
}

/// The stream reaches the new owner now.
fn follows(from: &impl Place, frontend: SocketAddr, owner: &str) -> Result<()> {
    let mut answers = Vec::new();
    for _ in 0..=LATE {
        let answer = answered_from(from, STREAM, frontend)?;
        if answer.as_deref() == Some(owner) {
            return Ok(());
        }
        answers.push(answer);
    }
    anyhow::bail!("{} to {frontend} is not answered by {owner} but {answers:?}", from.name())
}
