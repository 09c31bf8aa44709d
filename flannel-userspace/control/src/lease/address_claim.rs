//! One host per public address. Stock flannel gives two hosts that announce one address the same lease, and packets for
//! the one go to the other. So each host writes which machine it is to a key of its own, `<prefix>/hosts/<address>`,
//! and renews it; stock flannel does not read it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::lease::EtcdLeaseId;
use flannel_registry::{Claim, LeaseStore, RegistryError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::LeaseState;
use crate::identity::Identity;
use crate::within;

/// How long an address stays a host's after its last renewal.
const TTL: Duration = Duration::from_secs(60);
/// Pause between two signs of life.
const PAUSE: Duration = Duration::from_secs(20);
/// Pause after one that failed.
const RETRY: Duration = Duration::from_secs(2);

/// Another host announces the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the public address {public_ip} is that of another host, {other}, which was there within the last {TTL:?}; give \
     every host its own (--public-ip, --iface)"
)]
pub struct AddressTaken {
    /// The address.
    pub public_ip: IpAddr,
    /// The machine that claims it.
    pub other: String,
}

/// Keeps an address this host's.
pub struct AddressClaim<R> {
    registry: R,
    identity: Identity,
    public_ip: IpAddr,
    term: Option<EtcdLeaseId>,
    /// Whether somebody else has the address, which was reported.
    is_contested: bool,
}

impl<R: LeaseStore> AddressClaim<R> {
    /// Not made yet: that is up to [`AddressClaim::run`].
    pub const fn new(registry: R, identity: Identity, public_ip: IpAddr) -> Self {
        Self { registry, identity, public_ip, term: None, is_contested: false }
    }

    /// Makes the claim. A registry that is away, does not answer within `patience`, or denies the write, is no obstacle:
    /// then the claim is made as soon as it can be.
    ///
    /// # Errors
    /// Another host has the address.
    pub async fn made_within(mut self, patience: Option<Duration>) -> Result<Self, AddressTaken> {
        let end = patience.map(|patience| Instant::now() + patience);
        let public_ip = self.public_ip;
        match within(end, self.try_claim()).await {
            Some(Ok(None)) => {}
            Some(Ok(Some(taken))) => return Err(taken),
            Some(Err(error)) => warn!(%error, "cannot make sure that no other host announces {public_ip}"),
            None => warn!("cannot make sure that no other host announces {public_ip}: etcd takes too long"),
        }
        Ok(self)
    }

    /// Ends the claim of this machine to the address, whatever term it is held for by now.
    ///
    /// # Errors
    /// The registry cannot be written; the claim ends by itself.
    pub async fn withdraw(registry: &R, identity: &Identity, public_ip: IpAddr) -> Result<(), RegistryError> {
        // Claimed once more, it hangs on a term that is known.
        match registry.claim(public_ip, identity.as_str(), TTL).await? {
            Claim::Held(Some(term)) => registry.revoke(term).await,
            Claim::Held(None) | Claim::Taken(_) => Ok(()),
        }
    }

    async fn try_claim(&mut self) -> Result<Option<AddressTaken>, RegistryError> {
        match self.registry.claim(self.public_ip, self.identity.as_str(), TTL).await? {
            Claim::Held(term) => {
                self.term = term;
                Ok(None)
            }
            Claim::Taken(other) => Ok(Some(AddressTaken { public_ip: self.public_ip, other })),
        }
    }

    /// Renews the claim, and follows the lease to another address.
    pub async fn run(mut self, mut held: watch::Receiver<LeaseState>) -> Infallible {
        loop {
            let pause = match self.keep().await {
                Ok(()) => PAUSE,
                Err(error) => {
                    debug!(%error, "cannot give a sign of life; trying again");
                    RETRY
                }
            };
            tokio::select! {
                biased;
                () = sleep(pause) => {}
                Ok(()) = held.changed() => self.move_to(held.borrow_and_update().lease.attributes.public.first()),
            }
        }
    }

    fn move_to(&mut self, public_ip: Option<IpAddr>) {
        if let Some(public_ip) = public_ip.filter(|public_ip| *public_ip != self.public_ip) {
            // The claim to the former address ends by itself.
            self.public_ip = public_ip;
            self.term = None;
        }
    }

    async fn keep(&mut self) -> Result<(), RegistryError> {
        if let Some(term) = self.term
            && self.registry.keep(term).await?
        {
            return Ok(());
        }
        self.term = None;
        match self.try_claim().await? {
            None if std::mem::take(&mut self.is_contested) => {
                info!(public_ip = %self.public_ip, "no other host announces the public address any more");
            }
            None => {}
            Some(taken) if std::mem::replace(&mut self.is_contested, true) => debug!(%taken, "still"),
            Some(taken) => error!("{taken}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use flannel_common::Mac;
    use flannel_registry::memory::{Fault, Memory};

    use super::{AddressClaim, Identity};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn identity(last: u8) -> Identity {
        Identity::of(Mac([2, 0, 0, 0, 0, last]))
    }

    #[tokio::test]
    async fn the_second_host_of_an_address_is_refused() {
        let registry = Memory::default();
        let _first =
            AddressClaim::new(registry.clone(), identity(1), ADDRESS).made_within(None).await.unwrap();
        let error =
            AddressClaim::new(registry.clone(), identity(2), ADDRESS).made_within(None).await.err().unwrap();
        assert!(
            error.to_string().contains("192.0.2.1") && error.other.contains("02:00:00:00:00:01"),
            "{error}"
        );
        let other_address = Ipv4Addr::new(192, 0, 2, 2).into();
        assert!(AddressClaim::new(registry, identity(2), other_address).made_within(None).await.is_ok());
    }

    #[tokio::test]
    async fn the_same_host_comes_back() {
        let registry = Memory::default();
        drop(AddressClaim::new(registry.clone(), identity(1), ADDRESS).made_within(None).await.unwrap());
        assert!(AddressClaim::new(registry, identity(1), ADDRESS).made_within(None).await.is_ok());
    }

    #[tokio::test]
    async fn a_registry_that_fails_is_no_obstacle() {
        let registry = Memory::default();
        registry.fail(Fault::Request, 1);
        assert!(AddressClaim::new(registry, identity(1), ADDRESS).made_within(None).await.is_ok());
    }
}
