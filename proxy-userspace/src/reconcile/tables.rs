//! What the reconciler asks of the maps. The kernel implements it; tests implement it over vectors.

use proxy_common::wire::{Address, Backend, Config, Device, Frontend, FrontendKey, Service, ServiceName, Sets};

use crate::model::Family;

/// Everything that the maps hold, as read at start.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub names: Vec<(u32, ServiceName)>,
    pub frontends: Vec<(FrontendKey, Frontend)>,
    /// Indexed by service id.
    pub services: Vec<Service>,
    /// By the index that `services` has.
    pub sets: Vec<Sets>,
    /// Indexed by slot.
    pub slots: Vec<u32>,
    /// Indexed by element.
    pub maglev: Vec<u32>,
    /// Indexed by backend id.
    pub backends: Vec<Backend>,
    /// Words.
    pub frontend_filter: Vec<u32>,
    /// Words.
    pub target_filter: Vec<u32>,
    pub local_addresses: Vec<Address>,
    pub devices: Vec<(u32, Device)>,
    pub config: Config,
}

/// How many elements each map takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Service ports.
    pub services: u32,
    pub frontends: u32,
    /// Rows, the one with index 0 included.
    pub sets: u32,
    pub slots: u32,
    pub maglev: u32,
    /// Rows, the one with index 0 included.
    pub backends: u32,
}

/// One of the two filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMap {
    Frontends,
    Targets,
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

/// The maps of the control plane.
///
/// What cannot fail are stores into mapped memory, word by word: whoever sees one of them, or of the updates by system
/// call, sees all that came before. An index beyond the capacity is ignored; the caller checks the capacity first.
pub trait Tables {
    fn capacity(&self) -> Capacity;
    fn snapshot(&self) -> Result<Snapshot, TableError>;

    fn set_backend(&mut self, id: u32, backend: Backend);
    /// Changes only the state of a row that flows may refer to: two aligned stores.
    fn set_backend_state(&mut self, id: u32, flags: u32, generation: u32);
    fn set_slots(&mut self, base: u32, backends: &[u32]);
    fn set_maglev(&mut self, base: u32, backends: &[u32]);
    fn set_sets(&mut self, index: u32, sets: Sets);
    /// Names other sets to be those of a service port: one aligned store, the switch.
    fn set_service(&mut self, id: u32, family: Family, sets: u32);
    fn set_filter(&mut self, filter: FilterMap, word: u32, bits: u32);
    fn set_config(&mut self, config: &Config);
    /// [`Config::epoch`]: one aligned store.
    fn set_epoch(&mut self, epoch: u32);

    fn put_names(&mut self, names: &[(u32, ServiceName)]) -> Result<(), TableError>;
    fn delete_names(&mut self, ids: &[u32]) -> Result<(), TableError>;
    fn put_frontends(&mut self, frontends: &[(FrontendKey, Frontend)]) -> Result<(), TableError>;
    fn delete_frontends(&mut self, keys: &[FrontendKey]) -> Result<(), TableError>;

    fn put_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError>;
    fn delete_local_addresses(&mut self, addresses: &[Address]) -> Result<(), TableError>;
    fn put_devices(&mut self, devices: &[(u32, Device)]) -> Result<(), TableError>;
    fn delete_devices(&mut self, indexes: &[u32]) -> Result<(), TableError>;
}
