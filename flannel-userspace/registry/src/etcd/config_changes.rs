//! Changes of the network configuration.

use std::sync::Arc;

use etcd_client::{WatchResponse, WatchStream};

use super::connection::{Connection, Session};
use crate::{ConfigChanges, EtcdOperation, RegistryError, WatchError};

/// A watch on the one key of the network configuration.
pub struct EtcdConfigChanges {
    stream: WatchStream,
    connection: Arc<Connection>,
    session: Session,
    /// How the watch has begun, unless [`ConfigChanges::next`] has looked at that.
    begun: Option<WatchResponse>,
}

impl EtcdConfigChanges {
    /// Watches `key` from now on.
    pub(super) async fn open(connection: Arc<Connection>, key: String) -> Result<Self, RegistryError> {
        let request = |session: Session| {
            let key = key.clone();
            async move {
                let mut stream = session.client.watch_client().watch(key, None).await?;
                // etcd answers the request itself before it has made the watch.
                let begun = stream.message().await?;
                Ok((stream, begun, session))
            }
        };
        let (stream, begun, session) = connection.call(EtcdOperation::WatchConfig, request).await?;
        Ok(Self { stream, connection, session, begun })
    }

    async fn receive(&mut self) -> Result<WatchResponse, WatchError> {
        let broken = |error| WatchError::Broken { endpoint: self.session.url.clone(), error };
        let response = match self.begun.take() {
            Some(begun) => begun,
            None => match self.stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => return Err(broken(None)),
                Err(error) => return Err(broken(Some(error))),
            },
        };
        if response.canceled() {
            let (endpoint, reason) = (self.session.url.clone(), response.cancel_reason().to_owned());
            return Err(WatchError::Cancelled { endpoint, reason });
        }
        Ok(response)
    }
}

impl ConfigChanges for EtcdConfigChanges {
    async fn next(&mut self) -> Result<(), WatchError> {
        loop {
            match self.receive().await {
                Ok(response) if response.events().is_empty() => {}
                Ok(_) => return Ok(()),
                Err(error) => {
                    // The next one is opened at another endpoint, with a fresh token.
                    self.connection.abandon(&self.session).await;
                    return Err(error);
                }
            }
        }
    }
}
