//! From what the maps are to hold to the writes that get them there, in an order in which a packet sees the old state
//! of a service or the new one and never a mix.
//!
//! Pure: time is an argument, the maps are behind [`Tables`].

mod adopt;
mod adopt_sets;
mod batch;
mod claims;
mod filters;
mod follow;
mod ids;
pub mod measure;
mod memory;
mod node;
mod place_sets;
mod plan;
mod port;
mod ranges;
mod reconciler;
mod report;
mod space;
mod tables;

pub use filters::FlowNeeds;
pub use memory::MemoryTables;
pub use reconciler::{Limits, Reconciler};
pub use report::{Report, Writes};
pub use tables::{Capacity, FilterMap, Snapshot, TableError, Tables};
