//! The Sheave agent as a library: `source -> model -> desired -> reconcile -> kernel`.
//!
//! `model`, `desired` and `reconcile` are pure: no aya, no files, no sockets, no clock. `kernel` is the only module
//! that imports aya. `agent` is the only one that knows every part.

pub mod agent;
pub mod cli;
pub mod config;
pub mod desired;
pub mod health;
pub mod kernel;
mod memory;
pub mod model;
pub mod object;
mod own_thread;
pub mod reconcile;
pub mod source;
pub mod yaml;
