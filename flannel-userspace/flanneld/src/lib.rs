//! `flanneld`: its command line, and the daemon's life from start to end.
//!
//! The order in which parts start and end lives here. What the parts do does not.

pub mod cli;
pub mod daemon;
