//! `flanneld`: its command line, and the daemon's life from start to end.
//!
//! What starts, in which order, and what ends it lives here. What the parts do does not.

pub mod cli;
pub mod daemon;
