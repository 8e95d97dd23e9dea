//! The flow tables, seen from the agent: which entries belong together, which can go, and how they are shown.

mod kin;
mod list;
mod sweep;

pub use list::Flow;
pub(super) use list::list;
pub use sweep::{Sweeper, Swept};
