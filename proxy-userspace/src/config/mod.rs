//! The configuration: command-line flags or a file of kube-proxy, validated once into [`AgentConfig`].
//!
//! With `--config`, the flags that the file has fields for are ignored, as kube-proxy does; flags that only Sheave has,
//! and `--hostname-override`, count beside the file. The file is read once: kube-proxy exits when it is written to, so
//! that its supervisor starts it anew; Sheave reports the change and goes on (see [`FileWatch`]), because a restart
//! that nobody asked for is no better on a node whose file is half-written.

mod conntrack;
mod detect_local;
mod error;
mod file_watch;
mod flags;
mod kube_proxy;
mod node_name;
mod unhonoured;

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

pub use conntrack::ConntrackTimeouts;
use detect_local::LocalText;
pub use error::ConfigError;
pub use file_watch::FileWatch;
pub use flags::{AgentArgs, AttachMode, EbpfLogLevel, FastPathMode, LogFormat, SocketLb};
use kube_proxy::KubeProxyFile;

use crate::{
    model::{NodePortAddresses, Settings, parse_ip},
    source::{KubernetesConfig, SourceConfig},
};

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Name of this node's object, lower-cased.
    pub node_name: String,
    pub source: SourceConfig,
    pub settings: Settings,
    pub node_port_addresses: NodePortAddresses,
    /// Stands for the address of the Node object in its family.
    pub bind_address: Option<IpAddr>,
    pub conntrack: ConntrackTimeouts,
    /// Where probes are answered; `[::]` stands for both families.
    pub healthz_address: Option<SocketAddr>,
    pub kernel: KernelConfig,
    /// How often `-v` was given.
    pub verbosity: u8,
    /// The file of `--config`.
    pub file: Option<PathBuf>,
}

/// What the kernel side of the agent is told.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// Directory of the pins, on a BPF filesystem.
    pub pin_dir: PathBuf,
    /// The most Services that are carried.
    pub max_services: u32,
    /// The kernel's type information.
    pub btf: PathBuf,
    pub attach_mode: AttachMode,
    pub fast_path: FastPathMode,
    pub socket_lb: SocketLb,
    /// The control group whose processes are served; `None`: all that can be seen.
    pub cgroup: Option<PathBuf>,
    pub log_level: EbpfLogLevel,
    pub links: LinkPatterns,
}

/// Names of devices, with `*` for any run of characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkPatterns {
    /// Host sides of pod links. Empty: they are recognised by what they are.
    pub pods: Vec<String>,
    /// Devices that traffic of other machines arrives on. Empty: they are recognised by what they are.
    pub uplinks: Vec<String>,
    /// Tunnels that lead to other nodes. Empty: they are recognised by what they are.
    pub overlays: Vec<String>,
    /// Devices that are left alone whatever they look like.
    pub exclude: Vec<String>,
}

/// A configuration, and what a user should know about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: AgentConfig,
    /// One line each: fields that have no effect, flags that are ignored, defaults that differ from kube-proxy's.
    pub warnings: Vec<String>,
}

/// What a file and the flags can both say.
#[derive(Clone, Debug, Default)]
struct Shared {
    kubeconfig: Option<PathBuf>,
    servers: Vec<String>,
    node_port_addresses: Vec<String>,
    local: LocalText,
    conntrack: ConntrackTimeouts,
    hostname: Option<String>,
    bind_address: Option<IpAddr>,
    healthz_address: Option<String>,
    masquerade_all: bool,
}

impl AgentConfig {
    /// Reads the flags, and the file that `--config` names.
    ///
    /// # Errors
    /// A file that cannot be read or is not a `KubeProxyConfiguration`, and values that mean nothing.
    pub fn load(args: AgentArgs) -> Result<Loaded, ConfigError> {
        let mut warnings = Vec::new();
        let from_flags = Shared {
            kubeconfig: args.kubeconfig.clone(),
            servers: args.master.clone(),
            node_port_addresses: args.nodeport_addresses.clone(),
            local: LocalText {
                mode: args.detect_local_mode.clone(),
                cluster_cidrs: args.cluster_cidr.clone(),
                bridge: args.pod_bridge_interface.clone(),
                prefix: args.pod_interface_name_prefix.clone(),
            },
            healthz_address: args.healthz_bind_address.clone(),
            ..Shared::default()
        };
        let shared = match &args.config {
            None => from_flags,
            Some(path) => {
                let file = KubeProxyFile::read(path)?;
                let ignored = args.flags_a_file_overrides();
                if !ignored.is_empty() {
                    warnings.push(format!("with --config these flags are ignored: {}", ignored.join(", ")));
                }
                warnings.extend(file.warnings.iter().map(|warning| format!("{}: {warning}", path.display())));
                // kube-proxy would ignore --master here as well; an address list exists nowhere but in that flag.
                Shared { servers: args.master.clone(), ..file.shared }
            }
        };
        let node_name = node_name::node_name(args.hostname_override.as_deref().or(shared.hostname.as_deref()))?;
        let source = match args.manifests {
            Some(directory) => SourceConfig::Manifests(directory),
            None => {
                SourceConfig::Kubernetes(KubernetesConfig { kubeconfig: shared.kubeconfig, servers: shared.servers })
            }
        };
        let config = Self {
            node_name,
            source,
            settings: Settings {
                masquerade_all: shared.masquerade_all,
                detect_local: shared.local.parse()?,
                ..Settings::default()
            },
            node_port_addresses: NodePortAddresses::parse(&shared.node_port_addresses)?.unwrap_or_default(),
            bind_address: shared.bind_address,
            conntrack: shared.conntrack,
            healthz_address: healthz_address(shared.healthz_address.as_deref())?,
            kernel: KernelConfig {
                pin_dir: args.pin_dir,
                max_services: args.max_services,
                btf: args.btf,
                attach_mode: args.attach_mode,
                fast_path: args.fast_path,
                socket_lb: args.socket_lb,
                cgroup: args.cgroup,
                log_level: args.ebpf_log_level,
                links: LinkPatterns {
                    pods: args.pod_links,
                    uplinks: args.uplinks,
                    overlays: args.overlays,
                    exclude: args.exclude_links,
                },
            },
            verbosity: args.verbose,
            file: args.config,
        };
        Ok(Loaded { config, warnings })
    }
}

/// The port of kube-proxy's health checks, which probes and load balancers ask.
const HEALTHZ_PORT: u16 = 10256;

/// As kube-proxy has it, an address alone stands for one with the usual port.
fn healthz_address(text: Option<&str>) -> Result<Option<SocketAddr>, ConfigError> {
    let Some(text) = text else { return Ok(Some((Ipv6Addr::UNSPECIFIED, HEALTHZ_PORT).into())) };
    if text.is_empty() {
        return Ok(None);
    }
    let with_port = || text.parse().ok();
    let address = parse_ip(text).map(|ip| SocketAddr::from((ip, HEALTHZ_PORT))).or_else(with_port);
    address.map(Some).ok_or_else(|| ConfigError::HealthzAddress(text.to_owned()))
}

#[cfg(test)]
mod tests;
