//! The configuration file of a running agent. Needs root and the agent.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxy_tests::cluster::{AgentOptions, Cluster, Cni, Endpoint, Service};
use proxy_tests::patience::patience;

const CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

/// The file is looked at every few seconds, however much there is to do meanwhile.
#[test]
fn a_change_is_noticed_under_a_stream_of_events() -> Result<()> {
    let service = Service::new("web", 1);
    let cluster = Cluster::builder().nodes(1).cni(Cni::Routed).pod(1, "a").pod(1, "b").build()?;
    let file = cluster.directory().join("config.conf");
    std::fs::write(&file, CONFIG)?;
    let options = AgentOptions::default().with(&["--config", &file.display().to_string()]);
    let agent = cluster.start_agents(&options)?.remove(0);
    std::fs::write(&file, format!("{CONFIG}mode: nftables\n"))?;

    // A file of a directory counts when it has been left alone for 50 ms: an event every 100 ms.
    let started = Instant::now();
    for pod in ["a", "b"].into_iter().cycle() {
        cluster.manifests().apply(&service, &[Endpoint::of(cluster.pod(pod))])?;
        std::thread::sleep(Duration::from_millis(100));
        if agent.log().contains("the configuration file has changed") {
            return Ok(());
        }
        ensure!(started.elapsed() < patience(Duration::from_secs(60)), "not noticed:\n{}", agent.log());
    }
    Ok(())
}
