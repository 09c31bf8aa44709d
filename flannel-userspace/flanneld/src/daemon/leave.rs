//! Leaving the network for good: this host's keys are taken out of the registry, and what is in the kernel stays.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use flannel_control::identity::Identity;
use flannel_control::lease::{AddressClaim, LeaseHandle, WithdrawError};
use flannel_control::socket::{Claimed, Left};
use flannel_model::error::Chain;
use flannel_registry::RegistryError;
use flannel_registry::etcd::Etcd;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long whoever had this host leave may take to hear that it has.
const TELL: Duration = Duration::from_secs(3);

/// What this host has in the registry.
pub(super) struct Presence {
    /// Where a claim to the public address would be.
    pub(super) claims: Option<Etcd>,
    pub(super) identity: Identity,
    pub(super) lease: LeaseHandle,
}

/// The order to leave.
pub(super) struct Leave {
    reply: oneshot::Sender<Result<Left, String>>,
    /// Ends when whoever gave the order has the answer, or is gone.
    written: oneshot::Receiver<Infallible>,
}

/// What comes of an order.
type Outcome = oneshot::Receiver<Result<Left, String>>;

impl Leave {
    /// An order, what comes of it, and what is to go away when that was told.
    pub(super) fn new() -> (Self, Outcome, oneshot::Sender<Infallible>) {
        let (reply, outcome) = oneshot::channel();
        let (until_written, written) = oneshot::channel();
        (Self { reply, written }, outcome, until_written)
    }

    /// Leaves, and returns whether that was done; else everything is as before.
    pub(super) async fn carry_out(self, presence: &Presence) -> bool {
        if self.reply.is_closed() {
            return false;
        }
        match presence.withdraw().await {
            Ok(left) => {
                info!("leaving the network; the datapath goes on forwarding");
                if self.reply.send(Ok(left)).is_ok() {
                    let _ = timeout(TELL, self.written).await;
                }
                true
            }
            Err(error) => {
                let text = Chain(&error).to_string();
                warn!("cannot leave the network: {text}");
                let _ = self.reply.send(Err(text));
                false
            }
        }
    }
}

impl Presence {
    async fn withdraw(&self) -> Result<Left, WithdrawError> {
        let held = self.lease.state().borrow().lease.clone();
        let lease = self.lease.withdraw().await?;
        let claim = match self.withdraw_claim(held.attributes.public.first()).await {
            Ok(()) => Claimed::Deleted,
            Err(error) => {
                warn!(%error, "cannot end the claim to the public address, which expires");
                Claimed::Expires
            }
        };
        Ok(Left { subnets: held.subnets.iter().collect(), lease, claim })
    }

    async fn withdraw_claim(&self, public_ip: Option<IpAddr>) -> Result<(), RegistryError> {
        match (&self.claims, public_ip) {
            (Some(etcd), Some(public_ip)) => AddressClaim::withdraw(etcd, &self.identity, public_ip).await,
            _ => Ok(()),
        }
    }
}
