//! Clouds for tests: the services by which a host learns what it is and changes route tables, each in a folder, and the
//! [`Router`] that those tables steer, so that packets arrive only where a real cloud would take them.
//!
//! The hosts of a [`Network`](crate::network::Network) send everything that they have no route for to its router, as
//! instances do: it is the router of the cloud's network. What a cloud does to requests is played by [`Server`]s in the
//! router's namespace.

pub mod ali;
pub mod aws;
pub mod gce;
mod mood;
mod router;
pub mod scene;
mod server;
pub mod tencent;

pub use ali::Ali;
pub use gce::Gce;
pub use mood::Mood;
pub use router::{Router, Steering};
pub use server::{Caller, Server};
pub use tencent::Tencent;
