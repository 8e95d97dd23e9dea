//! What the maps hold against what they are to hold.

mod tables;

pub use tables::{Capacity, Snapshot, TableError, Tables};
