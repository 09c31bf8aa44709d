//! The nodes of the cluster, and what is known of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flannel_common::Mac;
use flannel_model::family::{Addresses, Family, PerFamily, Subnets};
use flannel_model::lease::{Revision, Snapshot};
use flannel_registry::{KubernetesMetrics, RegistryError};
use tokio::sync::{OnceCell, watch};
use tracing::{error, info};

use crate::annotations::{Annotations, Prefix};
use crate::api::{Access, Api};
use crate::directory::{Directory, Entry, Shared};
use crate::error::ApiError;
use crate::node::{Metadata, Node};

/// How this host's node is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeName {
    /// So: `NODE_NAME`.
    Given(String),
    /// As the pod says in which the daemon runs: `POD_NAMESPACE` and `POD_NAME`.
    OfPod {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
}

/// It is not known how this host's node is called.
#[derive(Debug, thiserror::Error)]
pub enum NodeNameError {
    /// The pod cannot be asked.
    #[error("error retrieving pod spec for '{namespace}/{pod}': {error}")]
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
        /// Why not.
        error: ApiError,
    },
    /// The pod runs nowhere.
    #[error("node name not present in pod spec '{namespace}/{pod}'")]
    Nowhere {
        /// The pod's namespace.
        namespace: String,
        /// Its name.
        pod: String,
    },
}

impl NodeNameError {
    /// Whether the API server says that there is no name to be had.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Pod { error, .. } => matches!(error, ApiError::Denied { .. } | ApiError::NotFound { .. }),
            Self::Nowhere { .. } => true,
        }
    }

    /// Whether the API server has not answered.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        match self {
            Self::Pod { error, .. } => error.is_absence(),
            Self::Nowhere { .. } => false,
        }
    }
}

impl From<NodeNameError> for RegistryError {
    fn from(error: NodeNameError) -> Self {
        let is_absence = error.is_absence();
        Self::Other { error: Box::new(error), is_absence }
    }
}

/// All nodes of the cluster. Clones are one.
#[derive(Clone)]
pub struct Nodes(Arc<Inner>);

struct Inner {
    api: Api,
    prefix: Prefix,
    name: NodeName,
    found_name: OnceCell<String>,
    /// The families whose leases are wanted.
    families: Mutex<Vec<Family>>,
    directory: Mutex<Option<Directory>>,
    own: watch::Sender<OwnNode>,
    /// The last revision that was heard of.
    revision: Mutex<Revision>,
}

/// This host's node as it was seen last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnNode {
    /// Not yet.
    Unseen,
    /// There is none.
    Absent,
    /// It is there.
    Present {
        uid: String,
        /// Those of flannel.
        annotations: Annotations,
    },
}

impl Nodes {
    /// The nodes as `access` shows them, to the host whose node is called `name`.
    ///
    /// # Errors
    /// The settings do not say how to reach the API server. Whether it is there is not asked.
    pub async fn open(
        access: Access,
        prefix: Prefix,
        name: NodeName,
        metrics: KubernetesMetrics,
    ) -> Result<Self, ApiError> {
        Ok(Self(Arc::new(Inner {
            api: Api::open(access, metrics).await?,
            prefix,
            name,
            found_name: OnceCell::new(),
            families: Mutex::new(Family::ALL.to_vec()),
            directory: Mutex::new(None),
            own: watch::Sender::new(OwnNode::Unseen),
            revision: Mutex::new(Revision::ZERO),
        })))
    }

    /// The URL of the API server.
    #[must_use]
    pub fn server(&self) -> String {
        self.0.api.server()
    }

    /// How this host's node is called.
    ///
    /// # Errors
    /// The pod must be asked, and does not say it.
    pub async fn name(&self) -> Result<&str, NodeNameError> {
        let (namespace, pod) = match &self.0.name {
            NodeName::Given(name) => return Ok(name),
            NodeName::OfPod { namespace, pod } => (namespace, pod),
        };
        let of_pod =
            || async {
                let pod_of_node = self.0.api.pod(namespace, pod).await.map_err(|error| {
                    NodeNameError::Pod { namespace: namespace.clone(), pod: pod.clone(), error }
                })?;
                let node = pod_of_node.spec.node_name;
                if node.is_empty() {
                    return Err(NodeNameError::Nowhere { namespace: namespace.clone(), pod: pod.clone() });
                }
                info!(node, "this host's node");
                Ok(node)
            };
        Ok(self.0.found_name.get_or_try_init(of_pod).await?)
    }

    /// The same, if it is known without asking.
    #[must_use]
    pub fn known_name(&self) -> Option<&str> {
        match &self.0.name {
            NodeName::Given(name) => Some(name),
            NodeName::OfPod { .. } => self.0.found_name.get().map(String::as_str),
        }
    }

    /// The nodes that lease subnets, without this host's, and what they lease; none before they were listed.
    #[must_use]
    pub fn names(&self) -> Vec<(String, Subnets)> {
        self.with_directory(|directory| {
            directory.holders().map(|(name, subnets)| (name.to_owned(), subnets)).collect()
        })
        .unwrap_or_default()
    }

    /// What this host's node says, for the start.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn hints(&self) -> Result<Hints, HintsError> {
        let name = self.name().await?;
        let Node { metadata, .. } = self.0.api.node(name).await?;
        let annotations = &metadata.annotations;
        Ok(Hints { local: self.0.prefix.local(annotations), vtep_macs: self.0.prefix.vtep_macs(annotations) })
    }

    /// From now on leases are wanted of these families.
    pub(crate) fn serve(&self, families: Vec<Family>) {
        *lock(&self.0.families) = families;
    }

    pub(crate) fn api(&self) -> &Api {
        &self.0.api
    }

    pub(crate) fn prefix(&self) -> &Prefix {
        &self.0.prefix
    }

    pub(crate) fn own(&self) -> watch::Receiver<OwnNode> {
        self.0.own.subscribe()
    }

    /// Passes what was seen of this host's node on.
    pub(crate) fn see_own(&self, seen: OwnNode) {
        self.0.own.send_if_modified(|known| {
            let changed = *known != seen;
            *known = seen;
            changed
        });
    }

    pub(crate) fn see_metadata(&self, metadata: &Metadata) {
        let annotations = self.0.prefix.select(metadata.annotations.clone());
        self.see_own(OwnNode::Present { uid: metadata.uid.clone(), annotations });
    }

    /// Has `work` done with what is known of the nodes, once they were listed.
    pub(crate) fn with_directory<T>(&self, work: impl FnOnce(&mut Directory) -> T) -> Option<T> {
        lock(&self.0.directory).as_mut().map(work)
    }

    /// Hears of a revision; returns the one that was heard of before.
    pub(crate) fn heard(&self, revision: Revision) -> Revision {
        std::mem::replace(&mut *lock(&self.0.revision), revision)
    }

    /// Knows exactly these nodes of the cluster.
    pub(crate) fn replace(
        &self,
        own: &str,
        entries: Vec<(Entry, Revision)>,
        revision: Revision,
    ) -> (Snapshot, Vec<Shared>) {
        let families = lock(&self.0.families).clone();
        let mut directory = lock(&self.0.directory);
        let known = directory.take().unwrap_or_else(|| Directory::new(own, families.clone()));
        let mut next = known.serving(families);
        let listed = next.replace(entries, revision);
        *directory = Some(next);
        listed
    }

    /// Reports addresses that several nodes announce.
    pub(crate) async fn report(&self, shared: Vec<Shared>) {
        for Shared { address, nodes } in shared {
            let [_, _, ..] = &*nodes else {
                info!(%address, "the public address is one node's alone now");
                continue;
            };
            let text = format!(
                "the nodes {} announce one public address, {address}: packets for pods of one reach the other; give \
                 each node its own (--public-ip, --iface, the annotation {}public-ip-overwrite)",
                nodes.join(" and "),
                self.0.prefix
            );
            error!("{text}");
            let own = self.name().await.unwrap_or_default().to_owned();
            let seen = self.0.own.borrow().clone();
            if let OwnNode::Present { uid, .. } = seen
                && nodes.contains(&own)
            {
                self.0.api.tell(&own, &uid, "FlannelAddressShared", &text).await;
            }
        }
    }

    /// A resource version as the number it is; of two, the greater one is later (KEP-5504).
    pub(crate) fn revision_of(&self, version: &str) -> Result<Revision, ApiError> {
        version.parse().map(Revision::new).map_err(|_| ApiError::Answer {
            server: self.server(),
            operation: "tell a version",
            reason: format!("its resourceVersion {version:?} is no number"),
        })
    }
}

/// This host's node does not say anything.
#[derive(Debug, thiserror::Error)]
pub enum HintsError {
    /// It is not known how it is called.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// It cannot be read.
    #[error(transparent)]
    Node(#[from] ApiError),
}

/// What a node says that matters before there is a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// The local addresses that the operator has this node announce.
    pub local: Addresses,
    /// Ethernet addresses of its VTEPs, by which peers know it.
    pub vtep_macs: PerFamily<Mac>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
