//! Backends: what a peer becomes in the kernel.

pub mod kind;
pub mod object;

pub use kind::Kind;
pub use object::Object;
