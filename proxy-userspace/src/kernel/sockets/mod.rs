//! Programs at the sockets of the node's own processes, attached to a control group, and sockets that have to dial again.

mod diag;
mod hooks;
mod redial;
mod root;

pub(super) use hooks::detach_all;
pub use hooks::{SocketHooks, SocketLoad};
pub use redial::Redialler;
pub(super) use root::cgroup2_of;
