//! What the daemon is told: the network's configuration, the choice of the interface, and the file that
//! tells others the outcome.

pub mod interface;
