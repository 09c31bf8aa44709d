//! What the daemon is told: the network's configuration, the choice of the interface, and the file that
//! tells others the outcome.

pub mod backend;
pub mod cidr;
pub mod error;
pub mod interface;
pub mod json;
pub mod network;
pub mod pin_dir;
pub mod subnet_file;

pub use backend::{BackendConfig, BackendError};
pub use error::ConfigError;
pub use network::NetworkConfig;
pub use pin_dir::default_pin_dir;
pub use subnet_file::SubnetFile;
