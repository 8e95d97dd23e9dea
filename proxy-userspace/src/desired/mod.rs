//! What the maps are to hold for a service, in the words of the maps but without their ids: everything that Kubernetes
//! promises about endpoints, policies and frontends is decided here.

mod categorize;
mod compile;
mod gather;
mod node_state;
mod policy;
mod service_port;

pub use compile::compile;
pub use node_state::{NodeSettings, NodeState, Seats, node_addresses, node_state};
pub use service_port::{Endpoint, Frontend, ServicePort, ServicePortName, Sets};
