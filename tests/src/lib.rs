//! What the suites that need root are made of.

pub mod packet;
pub mod rows;
pub mod runner;
