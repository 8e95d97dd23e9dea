//! What the agent is given: credentials as a pod of its DaemonSet and as a kubeconfig, and the manifests themselves.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use proxy_tests::cluster::{Family, Place, Service};
use proxy_tests::kubernetes::{ApiServer, Readiness, selecting};

use crate::{SOON, assert_served_by, cluster, control_plane, served_by_a, turn, wait_served_by};

/// Without a kubeconfig, as a pod of a DaemonSet that has its service account and what its environment says.
#[test]
fn a_pod_needs_nothing_but_its_service_account() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let mut plane = control_plane(&cluster)?;
    let shell = cluster.pod("shell");
    let (web, [_, b]) = served_by_a(&plane, &cluster)?;
    // A token ends with the object that it is bound to; one that ends by itself lives for ten minutes at least.
    plane.kubectl(&["create", "secret", "generic", "first", "--namespace=kube-system"])?;
    let first = plane.create_token(&["--bound-object-kind=Secret", "--bound-object-name=first"])?;
    let volume = plane.token_volume("token-volume", &first)?;
    let [v4, v6] = Family::BOTH.map(|family| cluster.node(3).ip(family));
    let mut agent = plane.start_agent_in_pod(cluster.node(1), &volume, v4)?;
    let mut other = plane.start_agent_in_pod(cluster.node(2), &volume, v6)?;
    agent.wait_ready()?;
    other.wait_ready()?;
    assert_served_by(shell, &web, &["a"])?;
    assert_served_by(cluster.pod("c"), &web, &["a"]).context("the API server at an IPv6 address")?;

    plane.kubectl(&["delete", "secret", "first", "--namespace=kube-system"])?;
    // Else the watches go on, since a token is looked at when they begin.
    plane.stop_server(ApiServer::First);
    plane.start_server(ApiServer::First)?;
    for agent in [&mut agent, &mut other] {
        for resource in ["services", "endpointslices", "nodes"] {
            agent.wait_for_words(&["cannot", resource, "401 Unauthorized"], SOON).context("the token is over")?;
        }
    }
    plane.apply_slices(&web, &b)?;
    assert_served_by(shell, &web, &["a"]).context("the last state stays in force")?;

    volume.set_token(&plane.create_token(&[])?)?;
    let took = wait_served_by(shell, &web, &["b"], SOON)?;
    wait_served_by(cluster.pod("c"), &web, &["b"], SOON)?;
    println!("the new token was in use after {took:?}");
    Ok(())
}

/// As an editor of another system wraps it, with the variables of a shell behind a proxy around the agent; and it comes
/// after the agent has begun to look for it.
#[test]
fn a_kubeconfig_is_read_as_kubectl_reads_it() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let _servers = cluster.start_servers()?;
    let plane = control_plane(&cluster)?;
    let (web, [_, b]) = served_by_a(&plane, &cluster)?;
    let kubeconfig = plane.path("by-hand.kubeconfig");
    let mut agent = plane.start_agent_by(cluster.node(1), &kubeconfig, |command| {
        let proxy = "http://192.0.2.1:3128";
        command.envs([("HTTP_PROXY", proxy), ("HTTPS_PROXY", proxy), ("ALL_PROXY", proxy)]);
        command.env("NO_PROXY", format!("localhost,.svc,{}/32", cluster.node(3).ip(Family::V4)));
    })?;
    agent.wait_for_words(&["cannot", "services", "by-hand.kubeconfig: cannot be read"], SOON)?;

    let authority = base64::engine::general_purpose::STANDARD.encode(plane.authority()?);
    let lines: String =
        authority.as_bytes().chunks(76).map(|line| format!("      {}\n", String::from_utf8_lossy(line))).collect();
    let text = format!(
        "current-context: old\ncurrent-context: c\nclusters:\n- name: k\n  cluster:\n    server: {}\n    \
         certificate-authority-data: |\n{lines}contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\nusers:\n- name: \
         u\n  user: {{tokenFile: ./by-hand.token, colour: red}}\n---\nanother: document\n",
        plane.url(ApiServer::First)
    );
    std::fs::write(plane.path("by-hand.token"), format!("{}\n", plane.create_token(&[])?))?;
    std::fs::write(&kubeconfig, text.replace('\n', "\r\n"))?;
    let path = kubeconfig.to_str().context("a path in UTF-8")?;
    plane.kubectl(&["get", "services", "--kubeconfig", path]).context("kubectl reads it")?;
    agent.wait_ready()?;
    agent.wait_for_words(&["set more than once, and the last value counts: current-context"], SOON)?;
    assert_served_by(cluster.pod("shell"), &web, &["a"])?;
    plane.apply_slices(&web, &b)?;
    wait_served_by(cluster.pod("shell"), &web, &["b"], SOON).map(drop)
}

#[test]
fn the_deployment_is_valid_and_grants_no_more_than_needed() -> Result<()> {
    let _turn = turn();
    let cluster = cluster()?;
    let plane = control_plane(&cluster)?;
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
    let (base, kind, remove) = (format!("{deploy}/base"), format!("{deploy}/kind"), format!("{deploy}/remove.yaml"));
    for overlay in [&base, &kind] {
        plane.kubectl(&["apply", "--dry-run=server", "--warnings-as-errors", "--kustomize", overlay])?;
    }
    // Removing is a change of what the containers do, and applying the manifests again takes it back.
    let show = |path: &str| {
        let path = format!("jsonpath={{.spec.template.spec{path}}}");
        plane.kubectl(&["--namespace", "kube-system", "get", "daemonset", "sheave", "--output", &path])
    };
    let tasks =
        || -> Result<[String; 2]> { Ok([show(".initContainers[*].args[0]")?, show(".containers[*].args[0]")?]) };
    let probes = || show(".containers[*]['startupProbe', 'livenessProbe', 'readinessProbe'].httpGet.path");
    for (act, expected, probed) in [
        (&["patch", "daemonset", "sheave", "--patch-file", &remove][..], ["cleanup", "pause"], ""),
        (&["apply", "--kustomize", &base], ["mount", "agent"], "/livez /livez /readyz"),
    ] {
        plane.kubectl(&[&["--namespace", "kube-system"], act].concat())?;
        ensure!((tasks()?, probes()?.as_str()) == (expected.map(str::to_owned), probed), "after {act:?}");
    }

    let may = |verb: &str, resource: &str| {
        let arguments = ["auth", "can-i", verb, resource, "--as=system:serviceaccount:kube-system:sheave", "--quiet"];
        plane.kubectl(&arguments).is_ok()
    };
    for resource in ["services", "endpointslices.discovery.k8s.io", "nodes"] {
        ensure!(may("list", resource) && may("watch", resource), "{resource} cannot be watched");
        ensure!(!may("update", resource), "{resource} can be changed");
    }
    for (verb, resource) in [("get", "secrets"), ("list", "pods"), ("create", "events")] {
        ensure!(!may(verb, resource), "{verb} {resource} is granted and not needed");
    }

    // What the other tests rely on: pods that are patched ready become endpoints.
    let web = Service::new("web", 100);
    plane.run_pod(cluster.pod("a"), "web")?;
    plane.apply(&selecting(&web, "web"))?;
    plane.wait_endpoints(&web, 1)?;
    plane.set_readiness(cluster.pod("a"), Readiness::Unready)?;
    plane.wait_endpoints(&web, 0)
}
