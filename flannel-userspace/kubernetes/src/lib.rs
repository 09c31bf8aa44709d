//! Kubernetes as the registry, as in stock flannel's mode `--kube-subnet-mgr`: each node is a lease of the subnet it was
//! assigned (`spec.podCIDRs`), and its annotations are what its host says of itself.
//!
//! The [nodes](Nodes) are what the control plane lists and watches, [`NodeOwner`] holds this host's own lease, and
//! [`NetConf`] is the file with the network's configuration. What is done with leases does not live here.

mod annotations;
mod api;
mod directory;
mod error;
mod net_conf;
mod node;
mod nodes;
mod owner;
mod pods;
mod source;
#[cfg(test)]
mod stage;
mod watch;

pub use annotations::{Annotations, Prefix, PrefixError};
pub use api::Access;
pub use error::ApiError;
pub use net_conf::{NetConf, NetConfError};
pub use nodes::{Hints, HintsError, NodeName, NodeNameError, Nodes};
pub use owner::{NodeOwner, Unassignable};
pub use pods::{PodError, PodName, PodNameError};
