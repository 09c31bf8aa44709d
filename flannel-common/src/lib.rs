//! What the kernel programs and the daemon of flannel-ebpf must agree on, and nothing else:
//! addresses, header layouts, map layouts and the reasons a packet is counted under.
//!
//! Nothing here allocates, calls the kernel or knows of etcd.
#![no_std]

#[cfg(target_endian = "big")]
compile_error!(
    "programs and daemon read the keys of maps as little-endian words: there is no build for this processor"
);

pub mod addr;
pub mod flow;
pub mod line;
pub mod maps;
pub mod reason;
pub mod trace;
pub mod vni;
pub mod wire;

pub use addr::{Ip4, Mac};
pub use reason::{Hook, Reason, Verdict};
pub use vni::Vni;

/// Version of everything in [`maps`]. It is a part of the pin path, so that a daemon never reads or
/// writes a map of another layout. Raise it with every change of a key, a value, a capacity or the
/// meaning of a field; `tests::layout_snapshot` in [`maps`] fails until it is raised.
pub const ABI_VERSION: u32 = 6;
