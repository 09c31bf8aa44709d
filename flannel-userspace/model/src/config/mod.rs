//! The daemon's settings: the network's configuration, the choice of the interface, and where its files are.

pub mod access_key;
pub mod backend;
pub mod cidr;
pub mod cloud;
pub mod configuration;
pub mod error;
pub mod gce;
pub mod interface;
pub mod json;
pub mod network;
pub mod place;

pub use backend::{BackendConfig, BackendError, UdpConfig};
pub use cloud::CloudConfig;
pub use configuration::{Change, Changes, Configuration, ConfigurationError};
pub use error::ConfigError;
pub use network::NetworkConfig;
pub use place::{
    DEFAULT_ETCD_PREFIX, RUN_DIR, control_socket, default_pin_dir, default_state_file, device_lock,
    is_control_socket, network_lock,
};
