//! Following the nodes. Only their metadata is followed, which has all that changes: a node's heartbeat then is a tenth
//! of the whole node. What a node was assigned is asked for once.

use std::time::Duration;

use flannel_control::chance;
use flannel_model::lease::{Event, Revision};
use flannel_registry::{KubernetesOperation as Operation, Watch, WatchError};
use kube::core::WatchEvent;
use kube::core::watch::Bookmark;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::api::Events;
use crate::directory::{Changes, Directory, Entry};
use crate::error::ApiError;
use crate::node::{Listed, Metadata};
use crate::nodes::{Nodes, OwnNode};

/// Changes that wait to be taken; then the API server waits as well.
const WAITING: usize = 1024;
/// A watch that the API server ends sooner is not simply opened again.
const SHORT: Duration = Duration::from_secs(5);
/// Pause before one that ended is opened again, so that hosts that the API server sent away do not come back together.
const PAUSE: std::ops::Range<f64> = 0.0..1.0;

/// A stream of changes of leases.
pub struct NodeWatch {
    batches: mpsc::Receiver<Result<Batch, WatchError>>,
    revision: Revision,
    follower: JoinHandle<()>,
}

/// What happened up to a revision.
struct Batch {
    events: Vec<Event>,
    revision: Revision,
}

impl NodeWatch {
    pub(crate) async fn open(nodes: Nodes, revision: Revision) -> Result<Self, ApiError> {
        let events = open(&nodes, revision).await?;
        let (sender, batches) = mpsc::channel(WAITING);
        let follower = Follower { nodes, revision, batches: sender };
        // What is asked of the API server in between must not be lost with a future that is dropped.
        let follower = tokio::spawn(follower.run(events));
        Ok(Self { batches, revision, follower })
    }
}

async fn open(nodes: &Nodes, revision: Revision) -> Result<Events, ApiError> {
    nodes.api().watch(&revision.to_string(), chance::between(0.0..1.0)).await
}

impl Watch for NodeWatch {
    async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            let Some(batch) = self.batches.recv().await else {
                return Err(WatchError::Ended("the watch of the nodes ended abruptly".into()));
            };
            let Batch { events, revision } = batch?;
            self.revision = revision;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn revision(&self) -> Revision {
        self.revision
    }
}

impl Drop for NodeWatch {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Follows the nodes for as long as somebody takes what it finds.
struct Follower {
    nodes: Nodes,
    revision: Revision,
    batches: mpsc::Sender<Result<Batch, WatchError>>,
}

impl Follower {
    async fn run(mut self, mut events: Events) {
        loop {
            let since = Instant::now();
            let outcome = self.follow(events).await;
            let outcome = match outcome {
                Ok(()) if since.elapsed() < SHORT => Err(WatchError::Ended(
                    format!("the API server {} ended the watch of the nodes at once", self.nodes.server())
                        .into(),
                )),
                outcome => outcome,
            };
            let error = match outcome {
                // As it does to every watch after a time.
                Ok(()) => {
                    sleep(Duration::from_secs_f64(chance::between(PAUSE))).await;
                    match open(&self.nodes, self.revision).await {
                        Ok(reopened) => {
                            events = reopened;
                            continue;
                        }
                        Err(error) => ended(error),
                    }
                }
                Err(error) => error,
            };
            let _ = self.batches.send(Err(error)).await;
            return;
        }
    }

    /// Takes in what happens until the API server ends the watch.
    async fn follow(&mut self, mut events: Events) -> Result<(), WatchError> {
        while let Some(event) = events.next().await {
            let Changes { events, shared } = self.take(event.map_err(ended)?).await.map_err(ended)?;
            self.nodes.report(shared).await;
            let _ = self.nodes.heard(self.revision);
            let batch = Batch { events, revision: self.revision };
            if self.batches.send(Ok(batch)).await.is_err() {
                // Nobody follows any more.
                std::future::pending::<()>().await;
            }
        }
        Ok(())
    }

    /// What follows from an event.
    async fn take(&mut self, event: WatchEvent<Listed>) -> Result<Changes, ApiError> {
        match event {
            WatchEvent::Added(Listed { metadata, .. }) | WatchEvent::Modified(Listed { metadata, .. }) => {
                self.put(metadata).await
            }
            WatchEvent::Deleted(Listed { metadata, .. }) => self.remove(&metadata).await,
            WatchEvent::Bookmark(Bookmark { metadata, .. }) => {
                self.revision = self.nodes.revision_of(&metadata.resource_version)?;
                Ok(Changes::default())
            }
            WatchEvent::Error(status) => {
                let server = self.nodes.server();
                Err(ApiError::of_status(server, Operation::Watch.phrase(), status.code, status.message))
            }
        }
    }

    async fn put(&mut self, metadata: Metadata) -> Result<Changes, ApiError> {
        let revision = self.nodes.revision_of(&metadata.resource_version)?;
        if self.is_own(&metadata).await {
            self.nodes.see_metadata(&metadata);
        }
        let name = metadata.name.clone();
        let uid = metadata.uid.clone();
        let entry = Entry::new(self.nodes.prefix(), metadata.clone(), None);
        let complete = self.nodes.with_directory(|directory| directory.complete(entry));
        let Some(mut entry) = complete else { return Ok(Changes::default()) };
        if entry.lacks_assignment() {
            match self.nodes.api().node(&name).await {
                Ok(node) if node.metadata.uid == uid => {
                    entry = Entry::new(self.nodes.prefix(), metadata, Some(&node.spec));
                }
                // There is another one by now, of which the watch will tell.
                Ok(_) | Err(ApiError::NotFound { .. }) => {
                    debug!(node = name, "the node is gone already");
                }
                Err(error) => return Err(error),
            }
        }
        self.revision = revision;
        Ok(self.nodes.with_directory(|directory| directory.put(entry, revision)).unwrap_or_default())
    }

    async fn remove(&mut self, metadata: &Metadata) -> Result<Changes, ApiError> {
        let revision = self.nodes.revision_of(&metadata.resource_version)?;
        if self.is_own(metadata).await {
            self.nodes.see_own(OwnNode::Absent);
        }
        self.revision = revision;
        let remove = |directory: &mut Directory| directory.remove(&metadata.name, revision);
        Ok(self.nodes.with_directory(remove).unwrap_or_default())
    }

    async fn is_own(&self, metadata: &Metadata) -> bool {
        // The nodes were listed, and so the name is known.
        self.nodes.name().await.is_ok_and(|own| own == metadata.name)
    }
}

/// The end of a watch by an error.
fn ended(error: ApiError) -> WatchError {
    match error {
        ApiError::Gone { .. } => WatchError::Expired(Box::new(error)),
        error => WatchError::Ended(Box::new(error)),
    }
}
