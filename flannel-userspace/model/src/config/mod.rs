//! The daemon's settings: the network's configuration, the choice of the interface, and where its files are.

pub mod backend;
pub mod cidr;
pub mod error;
pub mod interface;
pub mod json;
pub mod network;
pub mod place;

pub use backend::{BackendConfig, BackendError, UdpConfig};
pub use error::ConfigError;
pub use network::NetworkConfig;
pub use place::{
    DEFAULT_ETCD_PREFIX, control_socket, default_pin_dir, default_state_file, device_lock, network_lock,
};
