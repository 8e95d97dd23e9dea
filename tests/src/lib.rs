//! What the suites that need root are made of.

pub mod bench;
pub mod packet;
pub mod rows;
pub mod runner;
