//! What operators see: Prometheus itself scrapes a running daemon, and reads the alerts and the dashboard that come
//! with it.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

mod log;
mod prometheus;
mod same;
mod scrape;
mod service_manager;
mod shipped;
