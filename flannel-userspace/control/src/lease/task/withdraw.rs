//! How a host gives its lease up.

use flannel_model::family::Subnets;
use flannel_registry::{Expected, LeaseStore, RegistryError};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{LeaseHandle, LeaseOrder, LeaseTask};

/// What became of a lease that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withdrawn {
    /// It was deleted, or was gone already.
    Deleted,
    /// It is a reservation, which is the operator's.
    Kept,
}

/// The lease is still held.
#[derive(Debug, thiserror::Error)]
pub enum WithdrawError {
    /// The registry does not take it.
    #[error("the lease cannot be withdrawn, and stays held")]
    Registry(#[from] RegistryError),
    /// It is not as it was written.
    #[error("somebody has just written the lease of {0}, and it stays held; ask again")]
    Changed(Subnets),
    /// The lease is another host's.
    #[error("the lease is held no more")]
    Lost,
}

impl LeaseHandle {
    /// Has the lease deleted, and not written again. A reservation stays.
    ///
    /// # Errors
    /// It is still held, and kept on.
    pub async fn withdraw(&self) -> Result<Withdrawn, WithdrawError> {
        let (reply, outcome) = oneshot::channel();
        self.send(LeaseOrder::Withdraw(reply));
        outcome.await.unwrap_or(Err(WithdrawError::Lost))
    }
}

impl<R: LeaseStore> LeaseTask<R> {
    pub(super) async fn withdraw(&self) -> Result<Withdrawn, WithdrawError> {
        let Some(term) = self.lease.term else {
            tracing::info!(subnet = %self.lease.subnets, "the reservation stays: it is the operator's");
            return Ok(Withdrawn::Kept);
        };
        if !self.registry.delete(&self.lease).await? && self.expected != Expected::Absent {
            return Err(WithdrawError::Changed(self.lease.subnets));
        }
        tracing::info!(subnet = %self.lease.subnets, "withdrew the lease");
        // Nothing hangs on it any more; left to itself it would stay for as long as it was granted.
        if let Err(error) = self.registry.revoke(term).await {
            tracing::debug!(%error, %term, "the term ends by itself");
        }
        Ok(Withdrawn::Deleted)
    }
}
