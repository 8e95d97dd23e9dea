use super::ConfigError;

/// The name of this node's object: as configured, or the host name; lower-cased, as kubelet and kube-proxy do.
pub(super) fn node_name(configured: Option<&str>) -> Result<String, ConfigError> {
    let name = match configured.map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) => name.to_lowercase(),
        None => nix::unistd::gethostname()?.to_string_lossy().trim().to_lowercase(),
    };
    if name.is_empty() { Err(ConfigError::NodeName) } else { Ok(name) }
}
