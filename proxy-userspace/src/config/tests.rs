use std::path::Path;

use clap::Parser;

use super::*;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    agent: AgentArgs,
}

fn load(flags: &[&str]) -> Result<Loaded, ConfigError> {
    let flags = std::iter::once("sheave").chain(flags.iter().copied());
    AgentConfig::load(Cli::try_parse_from(flags).unwrap().agent)
}

fn parse(text: &str) -> Result<KubeProxyFile, ConfigError> {
    let text = format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{text}");
    KubeProxyFile::parse(Path::new("config.conf"), &text)
}

/// What kubeadm puts into the ConfigMap of kube-proxy.
const KUBEADM: &str = r#"
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: nftables
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

#[test]
fn the_file_of_kubeadm_is_taken_as_it_is() {
    let file = parse(KUBEADM).unwrap();
    assert_eq!(file.warnings, [""; 0]);
    assert_eq!(file.shared.kubeconfig.as_deref(), Some(Path::new("/var/lib/kube-proxy/kubeconfig.conf")));
    assert_eq!(file.shared.cluster_cidrs, ["10.244.0.0/16", "fd00:10:244::/56"]);
    assert_eq!((file.shared.hostname, file.shared.bind_address, file.shared.masquerade_all), (None, None, false));
}

#[test]
fn values_that_are_the_defaults_of_kube_proxy_are_not_worth_a_word() {
    let file = parse(
        "mode: nftables\nconfigSyncPeriod: 15m0s\nclientConnection: {qps: 5, burst: 10}\niptables: {syncPeriod: 30s, \
         minSyncPeriod: 1s, masqueradeBit: 14}\nconntrack: {maxPerCore: 32768, tcpEstablishedTimeout: 24h0m0s}\n\
         detectLocalMode: ClusterCIDR\noomScoreAdj: -999\nfeatureGates: {}\n",
    );
    assert_eq!(file.unwrap().warnings, [""; 0]);
}

#[test]
fn every_field_without_effect_is_named() {
    let file = parse(
        "mode: nftables\nipvs: {scheduler: lc, excludeCIDRs: [10.0.0.0/8]}\nconntrack: {udpStreamTimeout: 5m}\n\
         iptables: {masqueradeAll: true}\nfeatureGates: {AllowServiceExternalIPs: false}\nclientConnection: {qps: 50}\n\
         detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: br0}\nmetricsBindAddress: 0.0.0.0:10249\n\
         colour: red\nnftables: {speed: 9}\n",
    );
    let mut warnings = file.unwrap().warnings;
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "these fields are unknown and ignored: colour, nftables.speed",
            "these fields have no effect here: clientConnection.qps, conntrack.udpStreamTimeout, \
             detectLocal.bridgeInterface, detectLocalMode, featureGates.AllowServiceExternalIPs, \
             iptables.masqueradeAll, ipvs.excludeCIDRs, ipvs.scheduler, metricsBindAddress",
        ]
    );
}

#[test]
fn the_mode_decides_which_masquerade_all_counts() {
    for (text, expected) in [
        ("mode: nftables\nnftables: {masqueradeAll: true}", true),
        ("mode: nftables\niptables: {masqueradeAll: true}", false),
        ("mode: iptables\niptables: {masqueradeAll: true}", true),
        ("mode: ipvs\niptables: {masqueradeAll: true}", true),
        ("iptables: {masqueradeAll: true}", true),
        ("nftables: {masqueradeAll: true}", false),
    ] {
        assert_eq!(parse(text).unwrap().shared.masquerade_all, expected, "{text}");
    }
}

#[test]
fn a_cluster_cidr_counts_only_if_pods_are_detected_by_it() {
    let file = parse("mode: nftables\nclusterCIDR: 10.0.0.0/8\ndetectLocalMode: NodeCIDR").unwrap();
    assert_eq!(cluster_cidrs(&file.shared.cluster_cidrs).unwrap(), []);
    assert_eq!(file.warnings, ["these fields have no effect here: detectLocalMode"]);
}

#[test]
fn a_file_of_another_kind_is_refused() {
    let refused = |text: &str| KubeProxyFile::parse(Path::new("f"), text).unwrap_err().to_string();
    assert_eq!(
        refused("apiVersion: kubeproxy.config.k8s.io/v1beta1\nkind: KubeProxyConfiguration"),
        "f: apiVersion is \"kubeproxy.config.k8s.io/v1beta1\"; expected \"kubeproxy.config.k8s.io/v1alpha1\""
    );
    assert_eq!(
        refused("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeletConfiguration"),
        "f: kind is \"KubeletConfiguration\"; expected \"KubeProxyConfiguration\""
    );
    assert!(parse("mode: kernelspace").unwrap_err().to_string().contains("mode \"kernelspace\" is not supported"));
    assert!(parse("bindAddress: eth0").unwrap_err().to_string().contains("bindAddress \"eth0\" is not an IP address"));
    let message = parse("nodePortAddresses: 5").unwrap_err().to_string();
    assert!(message.contains("line 3"), "{message}");
}

#[test]
fn flags_are_enough() {
    let Loaded { config, warnings } = load(&[
        "--hostname-override=Node-1",
        "--master=https://10.0.0.1:6443,https://10.0.0.2:6443",
        "--nodeport-addresses=10.0.0.0/8,192.168.0.0/16",
        "--cluster-cidr=10.244.0.0/16,fd00::/64",
        "--attach-mode=clsact",
        "--fast-path=never",
        "--ebpf-log-level=debug",
        "--uplinks=eth*,bond0",
        "-vv",
    ])
    .unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.node_name, "node-1");
    let servers = ["https://10.0.0.1:6443", "https://10.0.0.2:6443"].map(str::to_owned).to_vec();
    assert_eq!(config.source, SourceConfig::Kubernetes(KubernetesConfig { kubeconfig: None, servers }));
    assert_eq!(config.cluster_cidrs.len(), 2);
    assert!(matches!(config.node_port_addresses, NodePortAddresses::Prefixes(prefixes) if prefixes.len() == 2));
    assert_eq!((config.kernel.attach_mode, config.kernel.log_level.number()), (AttachMode::Clsact, 4));
    assert_eq!(config.kernel.fast_path, FastPathMode::Never);
    assert_eq!(config.kernel.links.uplinks, ["eth*", "bond0"]);
    assert_eq!((config.kernel.pin_dir.as_path(), config.verbosity), (Path::new("/sys/fs/bpf/sheave"), 2));
}

#[test]
fn with_a_file_the_flags_that_it_has_fields_for_are_ignored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.conf");
    std::fs::write(
        &path,
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\nclusterCIDR: \
         10.1.0.0/16\nhostnameOverride: from-file\n",
    )
    .unwrap();
    let file = format!("--config={}", path.display());
    let Loaded { config, warnings } =
        load(&[&file, "--cluster-cidr=10.2.0.0/16", "--pin-dir=/p", "--master=https://a:1"]).unwrap();
    assert_eq!(warnings, ["with --config these flags are ignored: --cluster-cidr"]);
    assert_eq!(config.cluster_cidrs, [parse_cidr("10.1.0.0/16").unwrap()]);
    assert_eq!((config.node_name.as_str(), config.kernel.pin_dir.as_path()), ("from-file", Path::new("/p")));
    assert!(matches!(config.source, SourceConfig::Kubernetes(KubernetesConfig { servers, .. }) if servers.len() == 1));
    let config = load(&[&file, "--hostname-override=from-flag"]).unwrap().config;
    assert_eq!(config.node_name, "from-flag");
}

#[test]
fn values_that_mean_nothing_are_named() {
    for (flag, message) in [
        ("--cluster-cidr=10.0.0.0", "cluster CIDR \"10.0.0.0\" is not an address prefix"),
        ("--cluster-cidr=10.0.0.0/8,10.1.0.0/16", "cluster CIDR \"10.1.0.0/16\" is the second one of its family"),
        ("--nodeport-addresses=eth0", "node port addresses: \"eth0\" is neither an address prefix"),
        ("--config=/nonexistent", "cannot read /nonexistent: No such file"),
    ] {
        let error = load(&[flag]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
