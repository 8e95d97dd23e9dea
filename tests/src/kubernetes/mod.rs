//! A real Kubernetes control plane on the nodes made of namespaces: etcd, kube-apiserver and kube-controller-manager on
//! a node of their own, kubectl, and Pods whose status we patch in place of a kubelet. EndpointSlices are made by the
//! real controller.
//!
//! `cargo xtask test kubernetes` finds or builds the programs and names them by `TEST_ASSET_...`, as envtest does.

mod api;
mod binaries;
mod control_plane;
mod credentials;
mod cutter;
mod flips;
mod objects;
mod proxy_agent;
mod tail;
mod token_volume;

pub use control_plane::{ApiServer, ControlPlane};
pub use cutter::Cutter;
pub use flips::{Flip, Flips, Verdict};
pub use objects::{Readiness, node, pod, selecting};
pub use proxy_agent::{ProxyAgent, Sync};
pub use token_volume::TokenVolume;
