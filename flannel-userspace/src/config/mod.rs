//! What the daemon is told: the network's configuration, the choice of the interface, and the file that
//! tells others the outcome.

pub mod backend;
pub mod cidr;
pub mod error;
pub mod interface;
pub mod json;
pub mod network;
pub mod place;
pub mod subnet_file;

pub use backend::{BackendConfig, BackendError, UdpConfig};
pub use error::ConfigError;
pub use network::NetworkConfig;
pub use place::{default_pin_dir, default_state_file};
pub use subnet_file::SubnetFile;
