//! The nodes as leases: listed page by page, and followed from there.

use std::time::Duration;

use flannel_model::lease::{Revision, Snapshot};
use flannel_registry::{LeaseSource, Manners, RegistryError};
use tracing::debug;

use crate::directory::Entry;
use crate::error::ApiError;
use crate::node::Page;
use crate::nodes::{Nodes, OwnNode};
use crate::watch::NodeWatch;

/// How often a listing is begun again because the API server has forgotten where it stood.
const MOST_LISTINGS: u32 = 3;

impl LeaseSource for Nodes {
    type Watch = NodeWatch;

    /// A node has more than ten kilobytes, and there may be thousands that are read by thousands of hosts. The API
    /// server has a watch resumed whatever happened to the connection, and says so where it cannot.
    const MANNERS: Manners = Manners {
        listing: Duration::from_secs(6 * 60 * 60),
        retry: (Duration::from_millis(800), Duration::from_secs(30)),
    };

    async fn list(&self) -> Result<Snapshot, RegistryError> {
        let own = self.name().await?;
        let (entries, revision) = pages(self, own).await?;
        if !entries.iter().any(|(entry, _)| *entry.name == *own) {
            self.see_own(OwnNode::Absent);
        }
        let history_reset = revision < self.heard(revision);
        debug!(nodes = entries.len(), %revision, "listed the nodes");
        let (snapshot, shared) = self.replace(own, entries, revision);
        self.report(shared).await;
        Ok(Snapshot { history_reset, ..snapshot })
    }

    async fn reconnect(&self) {
        self.api().reconnect().await;
    }

    async fn watch(&self, revision: Revision) -> Result<NodeWatch, RegistryError> {
        Ok(NodeWatch::open(self.clone(), revision).await?)
    }
}

/// Every node, as of one moment.
async fn pages(nodes: &Nodes, own: &str) -> Result<(Vec<(Entry, Revision)>, Revision), ApiError> {
    let mut listings = 0;
    let (mut entries, mut next) = (Vec::new(), String::new());
    loop {
        let Page { metadata, items } = match nodes.api().page(&next).await {
            Ok(page) => page,
            // The moment at which the listing was begun is forgotten.
            Err(ApiError::Gone { .. }) if listings < MOST_LISTINGS => {
                listings += 1;
                (entries, next) = (Vec::new(), String::new());
                continue;
            }
            Err(error) => return Err(error),
        };
        for node in items {
            if node.metadata.name == own {
                nodes.see_metadata(&node.metadata);
            }
            let revision = nodes.revision_of(&node.metadata.resource_version)?;
            entries.push((Entry::new(nodes.prefix(), node.metadata, Some(&node.spec)), revision));
        }
        let revision = nodes.revision_of(&metadata.resource_version)?;
        next = metadata.next;
        if next.is_empty() {
            return Ok((entries, revision));
        }
    }
}

#[cfg(test)]
mod tests;
