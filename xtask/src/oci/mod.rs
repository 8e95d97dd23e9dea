//! Container images, written without a container engine.

mod archive;
mod layer;

pub use archive::{Compression, Image};
pub use layer::Layer;
