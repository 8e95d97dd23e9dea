//! What lies in the maps, one file per table. Every type is free of padding and has one fixed size, so that
//! user space and kernel programs cannot disagree about a byte.

mod address;
mod backend;
mod config;
mod counter;
mod device;
mod flow;
mod frontend;
mod service;

pub use address::Address;
pub use backend::{Backend, BackendFlags};
pub use config::{Cidr, Config};
pub use counter::{COUNTERS, counter_index};
pub use device::Device;
pub use flow::{Flow4, Flow6, FlowFlags, FlowKey4, FlowKey6, Side};
pub use frontend::{Frontend, FrontendFlags, FrontendKey, Scope, Set};
pub use service::{NAME_LEN, ServiceName};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of all layouts in this module together. It names the directory of the pinned maps: bytes of one
/// layout are never read with the types of another. Raise it with every change of a size, an order or a meaning.
pub const LAYOUT: u32 = 2;

/// A value that may lie in a map: any bytes are valid, no padding, no references.
pub trait Wire: Copy + FromBytes + IntoBytes + Immutable + KnownLayout {}
impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> Wire for T {}

/// Names of the maps in the kernel object, which are also the names of their pins.
pub mod map {
    pub const FRONTENDS: &str = "FRONTENDS";
    pub const SLOTS: &str = "SLOTS";
    pub const MAGLEV: &str = "MAGLEV";
    pub const BACKENDS: &str = "BACKENDS";
    pub const FLOWS4: &str = "FLOWS4";
    pub const FLOWS6: &str = "FLOWS6";
    pub const LOCAL_ADDRESSES: &str = "LOCAL_ADDRESSES";
    pub const DEVICES: &str = "DEVICES";
    pub const CONFIG: &str = "CONFIG";
    pub const SERVICES: &str = "SERVICES";
    pub const COUNTERS: &str = "COUNTERS";
    pub const REJECTS: &str = "REJECTS";
}
