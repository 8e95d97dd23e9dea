use ipnet::IpNet;

/// How the pods of this node are told from other clients (`detectLocalMode` of kube-proxy): they are not masqueraded
/// to a ClusterIP, and `externalTrafficPolicy: Local` does not keep them from endpoints of other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DetectLocal {
    /// By their addresses, which are in these prefixes; the first one of each family counts.
    ClusterCidr(Vec<IpNet>),
    /// By their addresses, which are in the podCIDRs of this node's object.
    NodeCidr,
    /// By the bridge whose ports they are behind.
    BridgeInterface(String),
    /// By how the names of their devices, or of the bridges that those are ports of, begin.
    InterfaceNamePrefix(String),
}

impl DetectLocal {
    /// Whether the devices tell, not the addresses.
    pub const fn is_by_device(&self) -> bool {
        matches!(self, Self::BridgeInterface(_) | Self::InterfaceNamePrefix(_))
    }

    /// Whether a device, which may be a port of `bridge`, has pods behind it; `None`: addresses tell.
    pub fn by_device(&self, device: &str, bridge: Option<&str>) -> Option<bool> {
        // What comes from a port of a bridge has come in by the bridge, as far as the routing of the kernel knows, and so
        // for kube-proxy.
        let mut names = bridge.into_iter().chain([device]);
        match self {
            Self::ClusterCidr(_) | Self::NodeCidr => None,
            Self::BridgeInterface(wanted) => Some(names.any(|name| name == wanted)),
            Self::InterfaceNamePrefix(prefix) => Some(names.any(|name| name.starts_with(prefix.as_str()))),
        }
    }
}

impl Default for DetectLocal {
    fn default() -> Self {
        Self::ClusterCidr(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_71_72_devices_tell_by_their_name_or_by_that_of_their_bridge() {
        let bridge = DetectLocal::BridgeInterface("cni0".into());
        let prefix = DetectLocal::InterfaceNamePrefix("cni".into());
        for (mode, device, controller, expected) in [
            (&bridge, "veth1", Some("cni0"), true),
            (&bridge, "veth1", Some("docker0"), false),
            (&bridge, "veth1", None, false),
            (&bridge, "cni0", None, true),
            (&bridge, "cni01", None, false),
            (&prefix, "cni7", None, true),
            (&prefix, "veth1", Some("cni0"), true),
            (&prefix, "xcni0", Some("docker0"), false),
        ] {
            assert_eq!(mode.by_device(device, controller), Some(expected), "{mode:?} {device} {controller:?}");
        }
        assert_eq!(DetectLocal::NodeCidr.by_device("cni0", None), None);
    }
}
