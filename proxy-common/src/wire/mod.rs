//! What lies in the maps, one file per table. Every type is free of padding and has one fixed size, so that
//! user space and kernel programs cannot disagree about a byte.

mod address;
mod backend;
mod config;
mod counter;
mod device;
mod filter;
mod flow;
mod frontend;
mod name;
mod peers;
mod policy;
mod sets;

pub use address::Address;
pub use backend::{Backend, BackendFlags};
pub use config::{Cidr, Config, ConfigFlags, Timeouts};
pub use counter::{COUNTERS, REJECT_ROWS, counter_index, reject_row};
pub use device::{Device, DeviceFlags, NETWORKS, Network4, Network6};
pub use filter::Filter;
pub use flow::{Flow4, Flow6, FlowFlags, FlowKey4, FlowKey6, Role, Seat4, Seat6, Side};
pub use frontend::{Frontend, FrontendKey, Scope};
pub use name::{NAME_LEN, ServiceName};
pub use peers::{End, Peer, Peers};
pub use policy::{Class, Kind, Masquerade, Policy, Reach, Rule};
pub use sets::{Service, Set, Sets, SetsFlags};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of all layouts in this module together. It names the directory of the pinned maps: bytes of one
/// layout are never read with the types of another. Raise it with every change of a size, an order or a meaning.
pub const LAYOUT: u32 = 4;

/// A value that may lie in a map: any bytes are valid, no padding, no references.
pub trait Wire: Copy + FromBytes + IntoBytes + Immutable + KnownLayout {}
impl<T: Copy + FromBytes + IntoBytes + Immutable + KnownLayout> Wire for T {}

/// Names of the maps in the kernel object, which are also the names of their pins.
pub mod map {
    pub const FRONTENDS: &str = "FRONTENDS";
    pub const SERVICES: &str = "SERVICES";
    pub const SETS: &str = "SETS";
    pub const SLOTS: &str = "SLOTS";
    pub const MAGLEV: &str = "MAGLEV";
    pub const BACKENDS: &str = "BACKENDS";
    pub const FRONTEND_FILTER: &str = "FRONTEND_FILTER";
    pub const TARGET_FILTER: &str = "TARGET_FILTER";
    pub const FLOWS4: &str = "FLOWS4";
    pub const FLOWS6: &str = "FLOWS6";
    pub const OPENING4: &str = "OPENING4";
    pub const OPENING6: &str = "OPENING6";
    pub const PROVEN4: &str = "PROVEN4";
    pub const PROVEN6: &str = "PROVEN6";
    pub const OPENING_HANDS: &str = "OPENING_HANDS";
    pub const PROVEN_HANDS: &str = "PROVEN_HANDS";
    pub const LOCAL_ADDRESSES: &str = "LOCAL_ADDRESSES";
    pub const DEVICES: &str = "DEVICES";
    pub const CONFIG: &str = "CONFIG";
    pub const NAMES: &str = "NAMES";
    pub const COUNTERS: &str = "COUNTERS";
    pub const REJECTS: &str = "REJECTS";
    pub const PEERS: &str = "PEERS";
}
