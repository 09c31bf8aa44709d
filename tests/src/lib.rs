//! The rig: hosts, pods and routers played by network namespaces of one machine, with a private etcd and the real
//! daemon, and the means to send and observe traffic.
//!
//! Everything a run makes has its process id (`fl-<pid>-…`) and is gone when the run is over, however it ends; see
//! [`claim`].

pub mod bench;
pub mod binaries;
pub mod cards;
pub mod claim;
pub mod cloud;
pub mod cluster;
pub mod container;
pub mod containers;
pub mod daemon;
pub mod demo;
pub mod etcd;
pub mod fallback;
pub mod kubernetes;
pub mod leases;
pub mod ledger;
pub mod namespace;
pub mod network;
pub mod process;
pub mod stock_udp;
pub mod traffic;
pub mod vxlan_host;
pub mod wait;
