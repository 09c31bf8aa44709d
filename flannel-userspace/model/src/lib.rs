//! What flannel-ebpf speaks of: leases and subnets, the network configuration, peers' objects in the kernel, and the
//! texts of errors.
//!
//! Plain data, what it is read from and what it is written as live here. What talks to the kernel, a registry, a file or
//! a clock does not.

pub mod backend;
pub mod cloud;
pub mod condition;
pub mod config;
pub mod device;
pub mod error;
pub mod family;
pub mod lease;
pub mod object;
pub mod secret;
pub mod underlay;
pub mod vxlan;
