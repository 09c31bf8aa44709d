//! Containers as people run them: by a real dockerd or podman, on hosts with a `flanneld` each and no bridge but theirs.

mod command;
mod dockerd;
mod engine;
mod image;
mod machine;
mod options;
mod podman;
mod site;

pub use dockerd::Dockerd;
pub use engine::{Container, Engine};
pub use machine::Machine;
pub use options::{SCRIPT, docker_options};
pub use podman::Podman;
pub use site::{Site, SiteHost};
