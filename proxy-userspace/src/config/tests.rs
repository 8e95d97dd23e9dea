use std::{path::Path, time::Duration};

use clap::Parser;

use super::*;
use crate::model::DetectLocal;

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

fn by_cidr(prefixes: &[&str]) -> DetectLocal {
    DetectLocal::ClusterCidr(prefixes.iter().map(|text| text.parse().unwrap()).collect())
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
    assert_eq!(file.shared.local.parse().unwrap(), by_cidr(&["10.244.0.0/16", "fd00:10:244::/56"]));
    assert_eq!(file.shared.conntrack, ConntrackTimeouts::default());
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
        "mode: nftables\nipvs: {scheduler: lc, excludeCIDRs: [10.0.0.0/8]}\nconntrack: {tcpBeLiberal: true}\n\
         iptables: {masqueradeAll: true}\nfeatureGates: {AllowServiceExternalIPs: false}\nclientConnection: {qps: 50}\n\
         metricsBindAddress: 0.0.0.0:10249\n\
         colour: red\nnftables: {speed: 9}\n",
    );
    let mut warnings = file.unwrap().warnings;
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "these fields are unknown and ignored: colour, nftables.speed",
            "these fields have no effect here: clientConnection.qps, conntrack.tcpBeLiberal, \
             featureGates.AllowServiceExternalIPs, iptables.masqueradeAll, ipvs.excludeCIDRs, ipvs.scheduler, metricsBindAddress",
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
fn pods_are_detected_in_each_of_the_four_ways() {
    let prefix = || by_cidr(&["10.0.0.0/8"]);
    for (text, expected) in [
        ("clusterCIDR: 10.0.0.0/8", prefix()),
        ("clusterCIDR: 10.0.0.0/8\ndetectLocalMode: ClusterCIDR", prefix()),
        ("detectLocalMode: \"\"", by_cidr(&[])),
        ("clusterCIDR: 10.0.0.0/8\ndetectLocalMode: NodeCIDR", DetectLocal::NodeCidr),
        (
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0, interfaceNamePrefix: null}",
            DetectLocal::BridgeInterface("cni0".into()),
        ),
        (
            "detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: veth}",
            DetectLocal::InterfaceNamePrefix("veth".into()),
        ),
    ] {
        let file = parse(&format!("mode: nftables\n{text}")).unwrap();
        assert_eq!((file.shared.local.parse().unwrap(), file.warnings), (expected, vec![]), "{text}");
    }
    for (flags, expected) in [
        (&["--detect-local-mode=NodeCIDR"][..], DetectLocal::NodeCidr),
        (
            &["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"],
            DetectLocal::BridgeInterface("cni0".into()),
        ),
        (
            &["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"],
            DetectLocal::InterfaceNamePrefix("veth".into()),
        ),
    ] {
        assert_eq!(load(flags).unwrap().config.settings.detect_local, expected, "{flags:?}");
    }
}

#[test]
fn conntrack_timeouts_are_those_of_the_flows() {
    let file = parse(
        "mode: nftables\nconntrack: {tcpEstablishedTimeout: 2h0m0s, tcpCloseWaitTimeout: null, udpTimeout: 0s, \
         udpStreamTimeout: 5m}",
    );
    let file = file.unwrap();
    assert_eq!(file.warnings, [""; 0]);
    let expected = ConntrackTimeouts {
        tcp_established: Some(Duration::from_secs(7_200)),
        udp_stream: Some(Duration::from_secs(300)),
        ..ConntrackTimeouts::default()
    };
    assert_eq!(file.shared.conntrack, expected);
    let error = parse("conntrack: {udpTimeout: -1s}").unwrap_err().to_string();
    assert!(error.contains("conntrack.udpTimeout \"-1s\" is not a duration"), "{error}");
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
fn a_file_that_kube_proxy_reads_leniently_is_taken_with_a_word() {
    for (text, cidr, masquerade_all, warning) in [
        ("mode: nftables\nmode: iptables\n", "", false, "set more than once, and the last value counts: mode"),
        (
            "mode: iptables\niptables: {masqueradeAll: false, masqueradeAll: true}\nclusterCIDR: 10.0.0.0/8\n\
             clusterCIDR: 10.42.0.0/16\n",
            "10.42.0.0/16",
            true,
            "set more than once, and the last value counts: iptables.masqueradeAll, clusterCIDR",
        ),
        (
            "iptables: {masqueradeAll: true}\niptables: {syncPeriod: 30s}\n",
            "",
            false,
            "set more than once, and the last value counts: iptables",
        ),
        (
            "clusterCIDR: [5]\nclusterCIDR: 10.3.0.0/16\n",
            "10.3.0.0/16",
            false,
            "set more than once, and the last value counts: clusterCIDR",
        ),
        ("clusterCIDR: 10.1.0.0/16\n---\nclusterCIDR: [\n", "10.1.0.0/16", false, "only its first document is used"),
    ] {
        let file = parse(&format!("nodePortAddresses: [all]\n{text}")).unwrap();
        assert_eq!(
            (file.shared.local.cluster_cidrs.join(","), file.shared.masquerade_all),
            (cidr.to_owned(), masquerade_all)
        );
        assert_eq!(file.warnings, [warning], "{text}");
    }
    let (directory, text) = (
        tempfile::tempdir().unwrap(),
        "kind: KubeProxyConfiguration\r\nkind: KubeProxyConfiguration\r\n\
        apiVersion: kubeproxy.config.k8s.io/v1alpha1\r\nmode: nftables\r\n",
    );
    let path = directory.path().join("config.conf");
    let wide = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for bytes in [text.into(), wide] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(
            KubeProxyFile::read(&path).unwrap().warnings,
            ["set more than once, and the last value counts: kind"]
        );
    }
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
    assert_eq!(config.settings.detect_local, by_cidr(&["10.244.0.0/16", "fd00::/64"]));
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
    assert_eq!(config.settings.detect_local, by_cidr(&["10.1.0.0/16"]));
    assert_eq!((config.node_name.as_str(), config.kernel.pin_dir.as_path()), ("from-file", Path::new("/p")));
    assert!(matches!(config.source, SourceConfig::Kubernetes(KubernetesConfig { servers, .. }) if servers.len() == 1));
    let config = load(&[&file, "--hostname-override=from-flag"]).unwrap().config;
    assert_eq!(config.node_name, "from-flag");
}

#[test]
fn probes_are_answered_where_those_of_kube_proxy_were() {
    let address = |flags: &[&str]| load(flags).unwrap().config.healthz_address.map(|address| address.to_string());
    assert_eq!(address(&[]).as_deref(), Some("[::]:10256"));
    assert_eq!(address(&["--healthz-bind-address="]), None);
    for (given, meant) in [
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        ("10.0.0.1", "10.0.0.1:10256"),
        ("[fd00::1]:80", "[fd00::1]:80"),
        ("fd00::1", "[fd00::1]:10256"),
    ] {
        assert_eq!(address(&["--healthz-bind-address", given]).as_deref(), Some(meant));
        assert_eq!(
            parse(&format!("healthzBindAddress: \"{given}\"")).unwrap().shared.healthz_address.as_deref(),
            Some(given)
        );
    }
    assert_eq!(parse("healthzBindAddress: \"\"").unwrap().shared.healthz_address, None);
}

#[test]
fn values_that_mean_nothing_are_named() {
    for (flag, message) in [
        ("--cluster-cidr=10.0.0.0", "cluster CIDR \"10.0.0.0\" is not an address prefix"),
        ("--cluster-cidr=10.0.0.0/8,10.1.0.0/16", "cluster CIDR \"10.1.0.0/16\" is the second one of its family"),
        ("--detect-local-mode=Guess", "detectLocalMode \"Guess\" is unknown; expected ClusterCIDR, NodeCIDR,"),
        (
            "--detect-local-mode=BridgeInterface",
            "detectLocalMode BridgeInterface needs a name: detectLocal.bridgeInterface, or --pod-bridge-interface",
        ),
        ("--nodeport-addresses=eth0", "node port addresses: \"eth0\" is neither an address prefix"),
        ("--healthz-bind-address=eth0:80", "healthz bind address \"eth0:80\" is not IP:PORT"),
        ("--config=/nonexistent", "cannot read /nonexistent: No such file"),
    ] {
        let error = load(&[flag]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
