use std::path::PathBuf;

/// Flags of `sheave agent`.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArgs {
    /// File with a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), as kubeadm writes it for kube-proxy
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Name of this node's Node object [default: the host name, lower-cased]
    #[arg(long, value_name = "NAME")]
    pub hostname_override: Option<String>,

    /// Credentials and address of the API server [default: the service account of the pod]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Address of the API server, instead of the one in the kubeconfig or in the pod's environment. Several, separated
    /// by commas, are tried in turn. In a pod, name one that works without service addresses: those are what this
    /// program provides
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub master: Vec<String>,

    /// Take Services, EndpointSlices and Nodes from the YAML and JSON files of a directory, not from an API server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    pub manifests: Option<PathBuf>,

    /// Addresses that NodePorts answer on: prefixes, or "primary" (those of the Node object, the default), or "all"
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,

    /// Where pods have their addresses: one prefix, or one of each family. Without it, whatever is behind a pod link is
    /// taken for a pod
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,

    /// How pods of this node are told from other clients: ClusterCIDR, NodeCIDR (the podCIDRs of the Node object),
    /// BridgeInterface or InterfaceNamePrefix [default: ClusterCIDR]
    #[arg(long, value_name = "MODE", default_value = "", hide_default_value = true)]
    pub detect_local_mode: String,

    /// With BridgeInterface: the bridge whose ports lead to pods
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub pod_bridge_interface: String,

    /// With InterfaceNamePrefix: how the names of pod links, or of their bridges, begin
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub pod_interface_name_prefix: String,

    /// Where /readyz and /livez are served; empty: nowhere [default: [::]:10256, all addresses of both families]
    #[arg(long, value_name = "IP:PORT")]
    pub healthz_bind_address: Option<String>,

    /// Directory of the pinned maps and links, on a BPF filesystem; one for each agent of a kernel
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sheave")]
    pub pin_dir: PathBuf,

    /// The most Services that are carried; the sizes of the maps follow it
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_services: u32,

    /// How programs are attached: tcx needs Linux 6.6
    #[arg(long, value_enum, default_value_t)]
    pub attach_mode: AttachMode,

    /// Whether traffic that comes from outside for a backend on another node skips this node's network stack. With auto
    /// it does where nobody wants to see it there: no rule of nftables or iptables that forwarded packets meet, no IPsec
    /// policy
    #[arg(long, value_enum, default_value_t)]
    pub fast_path: FastPathMode,

    /// Whose connections to Services are led to a backend when a socket dials, before there is a packet
    #[arg(long = "socket-lb", value_name = "WHOSE", value_enum, default_value_t)]
    pub socket_lb: SocketLb,

    /// Control group (version 2) whose processes are served at their sockets, with all groups below it [default: the
    /// topmost one that is mounted]
    #[arg(long, value_name = "DIR")]
    pub cgroup: Option<PathBuf>,

    /// Names of the host sides of pod links, * for any characters [default: recognised by what they are]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub pod_links: Vec<String>,

    /// Names of the devices that lead to other machines, * for any characters [default: recognised by what they are]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub uplinks: Vec<String>,

    /// Names of the tunnels that lead to other nodes, * for any characters [default: recognised by what they are]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub overlays: Vec<String>,

    /// Names of devices to leave alone, * for any characters
    #[arg(long, value_name = "PATTERN", value_delimiter = ',')]
    pub exclude_links: Vec<String>,

    /// What the kernel programs log, packet by packet; anything but off costs speed
    #[arg(long, value_enum, default_value_t)]
    pub ebpf_log_level: EbpfLogLevel,

    /// The kernel's type information (BTF)
    #[arg(long, value_name = "FILE", default_value = "/sys/kernel/btf/vmlinux")]
    pub btf: PathBuf,

    /// How log lines are written
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Log more; twice: much more
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// How programs are put on devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum AttachMode {
    /// TCX where the kernel has it, clsact otherwise
    #[default]
    Auto,
    Tcx,
    Clsact,
}

/// Who decides whether traffic may skip the network stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum FastPathMode {
    /// The kernel is asked who looks, and asked again while the agent runs
    #[default]
    Auto,
    /// Whoever looks, firewalls included
    Always,
    Never,
}

/// Whose sockets are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SocketLb {
    /// Those of processes in the node's own network namespace
    #[default]
    Host,
    /// Nobody's: processes of the node itself do not reach Services
    Off,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Log level of the kernel programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EbpfLogLevel {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl EbpfLogLevel {
    /// 0 = off, 1 = error, ... 5 = trace: the numbers of aya-log.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl AgentArgs {
    /// The given flags that a configuration file has fields for.
    pub(super) fn flags_a_file_overrides(&self) -> Vec<&'static str> {
        let Self { kubeconfig, nodeport_addresses, cluster_cidr, healthz_bind_address, .. } = self;
        let Self { detect_local_mode, pod_bridge_interface, pod_interface_name_prefix, .. } = self;
        [
            ("--kubeconfig", kubeconfig.is_some()),
            ("--nodeport-addresses", !nodeport_addresses.is_empty()),
            ("--cluster-cidr", !cluster_cidr.is_empty()),
            ("--detect-local-mode", !detect_local_mode.is_empty()),
            ("--pod-bridge-interface", !pod_bridge_interface.is_empty()),
            ("--pod-interface-name-prefix", !pod_interface_name_prefix.is_empty()),
            ("--healthz-bind-address", healthz_bind_address.is_some()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }
}
