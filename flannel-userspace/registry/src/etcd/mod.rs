//! The registry in etcd, by its v3 API: the keys and bytes of stock flannel.

mod config_changes;
mod connection;
mod keys;
mod options;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KvClient, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse, WatchOptions,
};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision, SubnetKey};
use tokio::time::Instant;

use self::connection::{Connection, Session};
use self::keys::Keys;
use super::{
    Claim, ConfigSource, Expected, Found, LeaseSource, LeaseStore, RegistryError, Snapshot, Written,
};
use crate::{EtcdMetrics, EtcdOperation};
pub use config_changes::EtcdConfigChanges;
pub use options::{Options, Password};
pub use watch::EtcdWatch;

/// Leases per request of a listing, where nothing speaks for fewer.
const PAGE: i64 = 2000;
/// The same after an answer that did not arrive in time: some 3 kB.
const SLOW_PAGE: i64 = 16;
/// After pages that arrive within this time, there may be larger ones.
const BRISK: Duration = Duration::from_secs(1);
/// Longest answer that is accepted, in bytes: the library's limit breaks at some 22,000 leases.
const MAX_ANSWER: usize = 64 << 20;
/// How often a listing starts again because history was compacted meanwhile.
const MAX_LISTINGS: usize = 5;

/// A registry in etcd.
#[derive(Clone)]
pub struct Etcd {
    connection: Arc<Connection>,
    keys: Keys,
    /// Leases per request of a listing, by what the connection to etcd has carried.
    page: Arc<AtomicI64>,
}

impl Etcd {
    /// Connects on first use.
    ///
    /// # Errors
    /// The options contradict each other, or name no endpoint.
    pub fn new(options: Options) -> Result<Self, RegistryError> {
        Self::measured(options, EtcdMetrics::default())
    }

    /// The same, with every request counted in `metrics`.
    ///
    /// # Errors
    /// The options contradict each other, or name no endpoint.
    pub fn measured(options: Options, metrics: EtcdMetrics) -> Result<Self, RegistryError> {
        let keys = Keys::new(&options.prefix);
        let connection = Arc::new(Connection::new(options, metrics)?);
        Ok(Self { connection, keys, page: Arc::new(AtomicI64::new(PAGE)) })
    }

    async fn get(
        &self,
        operation: EtcdOperation,
        key: Vec<u8>,
        options: GetOptions,
    ) -> Result<GetResponse, RegistryError> {
        let request = |session: Session| {
            let (key, options) = (key.clone(), options.clone());
            async move { large(session.client.kv_client()).get(key, Some(options)).await }
        };
        self.connection.call(operation, request).await
    }

    /// Lists page by page, all pages at the revision of the first.
    async fn list_at_one_revision(&self) -> Result<Snapshot, RegistryError> {
        let told = self.connection.newest_revision();
        let mut snapshot = Snapshot::default();
        let (mut start, mut most) = (self.keys.leases().into_bytes(), PAGE);
        loop {
            let page = self.page.load(Ordering::Relaxed).min(most);
            let options = GetOptions::new()
                .with_range(self.keys.leases_end())
                .with_limit(page)
                .with_revision(snapshot.revision.number());
            let since = Instant::now();
            let answer = match self.get(EtcdOperation::List, start.clone(), options).await {
                // Somebody stores megabytes in lease keys: smaller pages, down to one key.
                Err(error) if page > 1 && says(&error, "message length too large") => {
                    most = (page / 8).max(1);
                    continue;
                }
                // The path to etcd may be so slow that a page takes longer than a request may. The next listing is by
                // smaller ones.
                Err(error) if is_too_slow(&error) => {
                    self.page.fetch_min(SLOW_PAGE, Ordering::Relaxed);
                    return Err(error);
                }
                answer => answer?,
            };
            if since.elapsed() < BRISK {
                self.page.fetch_max((page * 2).min(PAGE), Ordering::Relaxed);
            }
            if snapshot.revision == Revision::ZERO {
                snapshot.revision = answer.header().map_or(Revision::ZERO, revision_of);
                let is_another = |header| self.connection.is_of_another_history(header);
                snapshot.history_reset = snapshot.revision < told || answer.header().is_some_and(is_another);
            }
            for kv in answer.kvs() {
                match self.keys.entry(kv) {
                    Ok(lease) => snapshot.leases.push(lease),
                    Err(rejected) => snapshot.rejected.push(rejected),
                }
            }
            match answer.kvs().last() {
                // The next key in order: the same with a zero byte behind it.
                Some(last) if answer.more() => start = [last.key(), b"\0"].concat(),
                _ => {
                    self.connection.note_listing(&snapshot, answer.header());
                    return Ok(snapshot);
                }
            }
        }
    }
}

impl Etcd {
    /// An etcd lease for a key that is to expire.
    async fn grant(&self, ttl: Duration) -> Result<Option<EtcdLeaseId>, RegistryError> {
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX).max(1);
        let request =
            |session: Session| async move { session.client.lease_client().grant(seconds, None).await };
        let answer = self.connection.call(EtcdOperation::Grant, request).await?;
        Ok(EtcdLeaseId::from_id(answer.id()))
    }

    /// Revokes an etcd lease without keys. It would expire by itself, so failure does not matter.
    async fn discard(&self, term: Option<EtcdLeaseId>) {
        if let Some(term) = term
            && let Err(error) = self.revoke(term).await
        {
            tracing::debug!(error = %error, %term, "an empty etcd lease is left to expire");
        }
    }

    /// Puts the value if the key is as expected, else returns what is there.
    async fn put(
        &self,
        key: SubnetKey,
        attributes: &Attributes,
        term: Option<EtcdLeaseId>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        let SubnetKey(subnets) = key;
        let key = self.keys.lease(key);
        let value = attributes.to_json().map_err(RegistryError::Encode)?;
        let revision = match expected {
            Expected::Absent => 0,
            Expected::Revision(revision) => revision.number(),
        };
        // The former key has its time of creation.
        let put = PutOptions::new().with_lease(term.map_or(0, EtcdLeaseId::id)).with_prev_key();
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, revision)])
            .and_then([TxnOp::put(key.clone(), value, Some(put))])
            .or_else([TxnOp::get(key, None)]);
        let request = |session: Session| {
            let txn = txn.clone();
            async move { large(session.client.kv_client()).txn(txn).await }
        };
        let answer = self.connection.call(EtcdOperation::Write, request).await?;
        let found = match answer.op_responses().first() {
            Some(TxnOpResponse::Put(put)) => {
                let mod_revision = answer.header().map_or(Revision::ZERO, revision_of);
                self.connection.note_revision(mod_revision);
                let created = put.prev_key().map_or(mod_revision, |kv| Revision::new(kv.create_revision()));
                return Ok(Written::Done(Lease {
                    subnets,
                    attributes: attributes.clone(),
                    mod_revision,
                    created,
                    term,
                }));
            }
            Some(TxnOpResponse::Get(get)) => self.keys.found(get.kvs().first()),
            _ => Found::Nothing,
        };
        Ok(match found {
            // The same, written already by a request whose answer was lost.
            Found::Lease(lease) if lease.term == term && lease.attributes == *attributes => {
                Written::Done(lease)
            }
            found => Written::Refused(found),
        })
    }
}

impl ConfigSource for Etcd {
    type Changes = EtcdConfigChanges;

    async fn config(&self) -> Result<String, RegistryError> {
        let key = self.keys.config();
        let answer = self.get(EtcdOperation::Config, key.clone().into_bytes(), GetOptions::new()).await?;
        match answer.kvs().first().map(etcd_client::KeyValue::value_str) {
            Some(Ok(config)) => Ok(config.to_owned()),
            Some(Err(_)) => Err(RegistryError::ConfigNotText { key }),
            None => Err(RegistryError::ConfigMissing { key }),
        }
    }

    async fn config_changes(&self) -> Result<EtcdConfigChanges, RegistryError> {
        EtcdConfigChanges::open(self.connection.clone(), self.keys.config()).await
    }
}

impl LeaseSource for Etcd {
    type Watch = EtcdWatch;

    async fn list(&self) -> Result<Snapshot, RegistryError> {
        for _ in 1..MAX_LISTINGS {
            match self.list_at_one_revision().await {
                Err(error) if says(&error, "revision has been compacted") => {}
                answer => return answer,
            }
        }
        self.list_at_one_revision().await
    }

    async fn reconnect(&self) {
        self.connection.give_up().await;
    }

    async fn watch(&self, revision: Revision) -> Result<EtcdWatch, RegistryError> {
        let options = WatchOptions::new()
            .with_range(self.keys.leases_end())
            .with_start_revision(revision.next().number())
            .with_fragment()
            .with_progress_notify();
        let request = |session: Session| {
            let (key, options) = (self.keys.leases(), options.clone());
            async move {
                let mut watch = session.client.watch_client().max_decoding_message_size(MAX_ANSWER);
                Ok((watch.watch(key, Some(options)).await?, session))
            }
        };
        let (stream, session) = self.connection.call(EtcdOperation::Watch, request).await?;
        Ok(EtcdWatch {
            stream,
            keys: self.keys.clone(),
            connection: self.connection.clone(),
            session,
            revision,
        })
    }
}

impl LeaseStore for Etcd {
    async fn write(
        &self,
        key: SubnetKey,
        attributes: &Attributes,
        ttl: Option<Duration>,
        expected: Expected,
    ) -> Result<Written, RegistryError> {
        let term = match ttl {
            Some(ttl) => self.grant(ttl).await?,
            None => None,
        };
        let written = self.put(key, attributes, term, expected).await;
        // If it is not known whether it was written, the etcd lease may be needed.
        if matches!(written, Ok(Written::Refused(_)) | Err(RegistryError::Denied { .. })) {
            self.discard(term).await;
        }
        written
    }

    async fn delete(&self, lease: &Lease) -> Result<bool, RegistryError> {
        let key = self.keys.lease(lease.key());
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, lease.mod_revision.number())])
            .and_then([TxnOp::delete(key, None)]);
        let request = |session: Session| {
            let txn = txn.clone();
            async move { session.client.kv_client().txn(txn).await }
        };
        Ok(self.connection.call(EtcdOperation::Delete, request).await?.succeeded())
    }

    async fn time_to_live(&self, term: EtcdLeaseId) -> Result<Option<Duration>, RegistryError> {
        let request = |session: Session| async move {
            session.client.lease_client().time_to_live(term.id(), None).await
        };
        let answer = self.connection.call(EtcdOperation::TimeToLive, request).await?;
        // -1 stands for a lease that is gone.
        Ok(u64::try_from(answer.ttl()).ok().map(Duration::from_secs))
    }

    async fn claim(&self, public_ip: IpAddr, identity: &str, ttl: Duration) -> Result<Claim, RegistryError> {
        let key = self.keys.host(public_ip);
        let term = self.grant(ttl).await?;
        let put = || {
            TxnOp::put(
                key.clone(),
                identity,
                Some(PutOptions::new().with_lease(term.map_or(0, EtcdLeaseId::id))),
            )
        };
        let is_own = Compare::value(key.clone(), CompareOp::Equal, identity);
        let is_absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
        // Absent, or else this machine's own from before, or else another's.
        let if_present = Txn::new().when([is_own]).and_then([put()]).or_else([TxnOp::get(key.clone(), None)]);
        let txn = Txn::new().when([is_absent]).and_then([put()]).or_else([TxnOp::txn(if_present)]);
        let request = |session: Session| {
            let txn = txn.clone();
            async move { session.client.kv_client().txn(txn).await }
        };
        let answer = self.connection.call(EtcdOperation::Claim, request).await;
        if let Err(RegistryError::Denied { .. }) = answer {
            self.discard(term).await;
        }
        match holder(&answer?) {
            Some(other) => {
                self.discard(term).await;
                Ok(Claim::Taken(other))
            }
            None => Ok(Claim::Held(term)),
        }
    }

    async fn keep(&self, term: EtcdLeaseId) -> Result<bool, RegistryError> {
        let request = |session: Session| async move {
            let (mut keeper, mut answers) = session.client.lease_client().keep_alive(term.id()).await?;
            keeper.keep_alive().await?;
            answers.message().await
        };
        let answer = self.connection.call(EtcdOperation::Keep, request).await?;
        // Zero stands for an etcd lease that is gone.
        Ok(answer.is_some_and(|answer| answer.ttl() > 0))
    }

    async fn revoke(&self, term: EtcdLeaseId) -> Result<(), RegistryError> {
        let request = |session: Session| async move { session.client.lease_client().revoke(term.id()).await };
        self.connection.call(EtcdOperation::Revoke, request).await.map(drop)
    }
}

/// The revision of the store that an answer is of.
fn revision_of(header: &ResponseHeader) -> Revision {
    Revision::new(header.revision())
}

/// A client that accepts large answers.
fn large(client: KvClient) -> KvClient {
    client.max_decoding_message_size(MAX_ANSWER)
}

/// Whether an answer may have been in transit at the timeout: a ping behind it got no answer.
fn is_too_slow(error: &RegistryError) -> bool {
    match error {
        RegistryError::Timeout { .. } => true,
        RegistryError::Request { error: etcd_client::Error::GRpcStatus(status), .. } => {
            status.message().contains("error reading a body from connection")
        }
        _ => false,
    }
}

/// Whether etcd's, or the library's, refusal has that text.
fn says(error: &RegistryError, text: &str) -> bool {
    matches!(error, RegistryError::Request { error, .. } if error.to_string().contains(text))
}

/// Who stands at a host's key, where that is somebody else.
fn holder(answer: &etcd_client::TxnResponse) -> Option<String> {
    answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Txn(inner) => holder(&inner),
        TxnOpResponse::Get(get) => {
            get.kvs().first().map(|kv| String::from_utf8_lossy(kv.value()).into_owned())
        }
        _ => None,
    })
}
