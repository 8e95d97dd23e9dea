//! What the reconciler asks of the maps. The kernel implements it; tests implement it over vectors.

use proxy_common::wire::{Address, Backend, Config, Device, Frontend, FrontendKey, ServiceName};

/// Everything that the maps hold, as read at start.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub services: Vec<(u32, ServiceName)>,
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Indexed by slot.
    pub slots: Vec<u32>,
    /// Indexed by element.
    pub maglev: Vec<u32>,
    /// Indexed by backend id.
    pub backends: Vec<Backend>,
    pub local_addresses: Vec<Address>,
    pub devices: Vec<(u32, Device)>,
}

/// How many elements each map takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub services: u32,
    pub frontends: u32,
    pub slots: u32,
    pub maglev: u32,
    pub backends: u32,
}

/// A map write that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: {operation} of {count} elements failed: {cause}")]
pub struct TableError {
    pub map: &'static str,
    pub operation: &'static str,
    pub count: usize,
    pub cause: std::io::Error,
}

/// The maps of the control plane. Writes to `slots`, `maglev` and `backends` are stores into mapped memory: they
/// cannot fail, and an index beyond the capacity is ignored (the caller checks capacity first). Implementations order
/// them before every later map update.
pub trait Tables {
    fn capacity(&self) -> Capacity;
    fn snapshot(&self) -> Result<Snapshot, TableError>;

    fn set_backend(&mut self, id: u32, backend: Backend);
    /// Changes only the state of a row that flows may refer to: two aligned stores.
    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32);
    fn set_slots(&mut self, base: u32, backends: &[u32]);
    fn set_maglev(&mut self, base: u32, backends: &[u32]);

    fn put_services(&mut self, services: &[(u32, ServiceName)]) -> Result<(), TableError>;
    fn delete_services(&mut self, ids: &[u32]) -> Result<(), TableError>;
    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError>;
    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError>;

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError>;
    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError>;
    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError>;
    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError>;
    fn set_config(&mut self, config: &Config) -> Result<(), TableError>;
}
