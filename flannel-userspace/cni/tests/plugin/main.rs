//! The plugin as a runtime runs it: with a delegate that is a script and tells what it was told, and with those that
//! hosts have.
//!
//! Needs root, iproute2, util-linux and Debian's package `containernetworking-plugins`, which `cargo xtask setup` installs.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

mod add;
mod del;
mod gc;
mod protocol;
mod real;
mod rig;
mod status;
