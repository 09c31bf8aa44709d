//! The stream of events.

use std::sync::Arc;

use etcd_client::{KeyValue, ResponseHeader, WatchResponse, WatchStream};
use flannel_model::lease::{Event, Revision};

use super::connection::{Connection, Session};
use super::keys::Keys;
use super::revision_of;
use crate::{Watch, WatchError};

/// A watch on the lease prefix.
pub struct EtcdWatch {
    pub(super) stream: WatchStream,
    pub(super) keys: Keys,
    pub(super) connection: Arc<Connection>,
    pub(super) session: Session,
    pub(super) revision: Revision,
}

impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let events = match self.receive().await {
                Ok(response) => self.read(&response)?,
                Err(error) => {
                    // The next one is opened at another endpoint, with a fresh token.
                    self.connection.abandon(&self.session).await;
                    return Err(error);
                }
            };
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

impl EtcdWatch {
    async fn receive(&mut self) -> Result<WatchResponse, WatchError> {
        let endpoint = || self.session.url.clone();
        match self.stream.message().await {
            Ok(Some(response)) if response.canceled() && response.compact_revision() == 0 => {
                Err(WatchError::Cancelled {
                    endpoint: endpoint(),
                    reason: response.cancel_reason().to_owned(),
                })
            }
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(WatchError::Broken { endpoint: endpoint(), error: None }),
            Err(error) => Err(WatchError::Broken { endpoint: endpoint(), error: Some(error) }),
        }
    }

    fn read(&mut self, response: &WatchResponse) -> Result<Vec<Event>, WatchError> {
        // Tells compaction apart where the reason for the cancellation is empty.
        if response.compact_revision() > 0 {
            return Err(WatchError::Compacted { revision: Revision::new(response.compact_revision()) });
        }
        let is_reset = |header: &&ResponseHeader| {
            revision_of(header) < self.revision
                || response.created() && self.connection.is_of_another_history(header)
        };
        if let Some(header) = response.header().filter(is_reset) {
            return Err(WatchError::Reset { revision: revision_of(header), known: self.revision });
        }
        let kvs: Vec<&KeyValue> = response.events().iter().filter_map(etcd_client::Event::kv).collect();
        self.revision = match (kvs.last(), response.header()) {
            // The rest of this revision may follow in another fragment.
            (Some(kv), _) => self.revision.max(Revision::new(kv.mod_revision() - 1)),
            (None, Some(header)) if !response.created() => self.revision.max(revision_of(header)),
            (None, _) => self.revision,
        };
        self.connection
            .note_revision(kvs.last().map_or(self.revision, |kv| Revision::new(kv.mod_revision())));
        Ok(kvs.into_iter().map(|kv| self.event(kv)).collect())
    }

    fn event(&self, kv: &KeyValue) -> Event {
        // Only a deleted key has version zero; the client's own accessor panics on kinds it does not know.
        if kv.version() == 0 {
            return Event::Delete { key: self.keys.key(kv), mod_revision: Revision::new(kv.mod_revision()) };
        }
        self.keys.entry(kv).map_or_else(Event::Rejected, Event::Put)
    }
}
