//! Backends: what a peer becomes in the kernel.

pub mod object;

pub use object::Object;
