use anyhow::Result;

use super::{Place, Site, plan, sysctl};

/// A machine outside of the cluster, behind the fabric.
pub struct Client {
    pub(super) site: Site,
}

impl Client {
    /// The fabric has made the device.
    pub(super) fn configure(&self) -> Result<()> {
        sysctl::set(self.namespace(), &[("net/ipv4/ip_local_port_range", "20000 60999")])?;
        self.namespace().configure_host(self.addresses(), &plan::CLIENT_GATEWAY)
    }
}

impl Place for Client {
    fn site(&self) -> &Site {
        &self.site
    }
}
