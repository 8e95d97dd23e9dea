//! Kubernetes objects, reduced to what decides how traffic is carried, and the index that keeps them together.
//!
//! Whatever a user can get wrong in an object becomes a [`Problem`] that names the object; the rest of it stays in use.

mod address;
mod cluster;
mod detect_local;
mod endpoint_slice;
mod endpoint_slice_object;
mod event;
mod interface;
mod name;
mod node;
mod node_port_addresses;
mod service;
mod service_object;
mod settings;

pub use address::{Family, parse_cidr, parse_ip};
pub use cluster::{Changes, Cluster};
pub use detect_local::DetectLocal;
pub use endpoint_slice::{Endpoint, EndpointSlice, SlicePort};
pub use event::{Delta, Event, Problem};
pub use interface::Interface;
pub use name::{ObjectName, Protocol};
pub use node::Node;
pub use node_port_addresses::{NodePortAddressError, NodePortAddresses, Primary};
pub use service::{Algorithm, Policy, Port, Service};
pub use settings::Settings;
