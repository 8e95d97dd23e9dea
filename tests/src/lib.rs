//! What the suites that need root are made of.

pub mod runner;
