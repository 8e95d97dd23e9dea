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
        sysctl::set(&self.namespace, &[("net/ipv4/ip_local_port_range", "20000 60999")])?;
        self.namespace.configure_host(&plan::CLIENT, &plan::CLIENT_GATEWAY)
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
