//! Why the daemon ends by itself.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use flannel_cloud::CloudError;
use flannel_control::exclusive::ExclusiveError;
use flannel_control::kernel::KernelError;
use flannel_control::lease::{AcquireError, AddressTaken, Lost, PoolError};
use flannel_control::service::End;
use flannel_control::subnet_file::SubnetFileError;
use flannel_datapath::{DatapathError, Unavailable};
use flannel_model::backend::Kind;
use flannel_model::config::{BackendError, ConfigError, ConfigurationError};
use flannel_net::OpenError;
use flannel_net::interface::InterfaceError;
use flannel_net::rules::RulesError;
use flannel_observe::ListenError;
use flannel_privileges::PrivilegeError;
use flannel_registry::RegistryError;
use tokio::task::JoinError;

/// Why the daemon ends by itself. Texts are stock flannel's if it has any.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The process may not do its work.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// An endpoint of health or metrics is not available.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] io::Error),
    /// The settings for etcd are invalid.
    #[error("cannot use these settings for etcd")]
    Registry(#[source] RegistryError),
    /// Kubernetes cannot be used as the registry.
    #[error("Failed to create SubnetManager")]
    SubnetManager(#[source] Box<dyn Error + Send + Sync>),
    /// The configuration asks for what is not served.
    #[error("cannot serve the network configuration")]
    Config(#[from] ConfigError),
    /// The configured backend is not served.
    #[error("Error fetching backend")]
    Backend(#[from] BackendError),
    /// No netlink socket can be opened.
    #[error(transparent)]
    Netlink(#[from] OpenError),
    /// The kernel does not answer.
    #[error(transparent)]
    Kernel(#[from] flannel_net::Error),
    /// No interface carries the tunnel.
    #[error("failed to find any valid interface to use")]
    Interface(#[from] InterfaceError),
    /// The backend's device cannot be made.
    #[error("Error registering network")]
    Prepare(#[source] KernelError),
    /// `SubnetMin` and `SubnetMax` describe no subnets.
    #[error("Error registering network")]
    Pool(#[from] PoolError),
    /// No lease can be acquired.
    #[error("Error registering network")]
    Acquire(#[from] AcquireError),
    /// Another host has this one's public address.
    #[error("Error registering network")]
    Address(#[from] AddressTaken),
    /// The rules that were asked for cannot be written.
    #[error("Failed to setup masquerade rules")]
    Rules(#[from] RulesError),
    /// Another daemon does the same.
    #[error(transparent)]
    Exclusive(#[from] ExclusiveError),
    /// The host takes no programs, and the backend does not forward without.
    #[error("the backend {0} forwards by eBPF programs alone, which cannot be used: {1}")]
    NeedsPrograms(Kind, Unavailable),
    /// The host takes no programs now, and those of an earlier daemon still forward by the peers it knew.
    #[error(
        "the programs pinned in {path} forward by what an earlier flanneld knew and cannot be kept up to date, for \
         {reason}; they cannot be taken away either"
    )]
    Abandoned {
        /// Where they are pinned.
        path: PathBuf,
        /// Why no others take their place.
        reason: Unavailable,
        /// Why they cannot be taken away.
        source: Box<DatapathError>,
    },
    /// Programs, maps or pins.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Flannel's device or programs cannot be put in their places.
    #[error("cannot set the datapath up")]
    State(#[source] KernelError),
    /// The cloud could never be asked.
    #[error("Error registering network")]
    Cloud(#[from] CloudError),
    /// The subnet file cannot be read or written.
    #[error(transparent)]
    SubnetFile(#[from] SubnetFileError),
    /// The lease is another host's.
    #[error(transparent)]
    Lost(Lost),
    /// A task of the daemon failed: a bug.
    #[error("a task of flanneld ended abruptly; please report this")]
    Task(#[source] JoinError),
}

impl From<ConfigurationError> for DaemonError {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::Network(error) => Self::Config(error),
            ConfigurationError::Backend(error) => Self::Backend(error),
        }
    }
}

impl From<End> for DaemonError {
    fn from(end: End) -> Self {
        match end {
            End::Lost(lost) => Self::Lost(lost),
            End::Failed(task) => Self::Task(task),
        }
    }
}
