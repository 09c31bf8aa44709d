//! The packet logic of the kernel programs: no helper call, no map. The same code runs in the kernel and, over a byte
//! vector, in tests and tools on the host.
#![no_std]

#[cfg(not(target_arch = "bpf"))]
extern crate std;

pub mod arrival;
pub mod ecn;
pub mod flows;
pub mod frame;
pub mod guard;
pub mod inner;
pub mod outer;
pub mod packet;
pub mod peers;
pub mod udp;
pub mod vxlan;

#[cfg(not(target_arch = "bpf"))]
pub mod model;
