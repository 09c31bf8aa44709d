//! One packet in, one packet out: the packet logic over byte vectors, and the same frames through the
//! programs in the kernel with equal results.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

mod flows;
mod frames;
mod kernel;
mod model;
mod reasons;
