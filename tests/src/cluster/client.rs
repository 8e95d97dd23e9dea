use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Addresses, Namespace, Place, plan, process::Lifetime, sysctl};

/// A machine outside of the cluster, behind the fabric.
pub struct Client {
    pub(super) namespace: Namespace,
    pub(super) directory: PathBuf,
    pub(super) lifetime: Lifetime,
}

impl Client {
    /// The fabric has made the device.
    pub(super) fn configure(&self) -> Result<()> {
        let own = plan::CLIENT;
        let gateway = plan::CLIENT_GATEWAY;
        sysctl::set(&self.namespace, &[("net/ipv4/ip_local_port_range", "20000 60999")])?;
        self.namespace.ip(&format!(
            "link set lo up
             addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad
             link set eth0 up
             route add default via {}
             route add default via {}
            ",
            own.v4, own.v6, gateway.v4, gateway.v6
        ))
    }
}

impl Place for Client {
    fn name(&self) -> &str {
        "client"
    }

    fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    fn addresses(&self) -> &Addresses {
        const ADDRESSES: Addresses = plan::CLIENT;
        &ADDRESSES
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn lifetime(&self) -> Lifetime {
        self.lifetime
    }
}
