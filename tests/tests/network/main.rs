//! Hosts, pods and traffic: the real daemon on hosts played by network namespaces.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod reach;
