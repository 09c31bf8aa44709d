//! What can go wrong with the registry.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use flannel_model::lease::{Revision, ValueError};

use crate::remedy::{CLIENT, remedy};

/// The registry could not be used. Errors of the client are in the text as far as they help people; what lies below
/// them would only say it again.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The list of endpoints is empty.
    #[error("no etcd endpoint is given: name one, like http://127.0.0.1:2379, with --etcd-endpoints")]
    NoEndpoint,
    /// Plaintext is asked for along with TLS.
    #[error(
        "etcd endpoint {endpoint} is plaintext although a TLS file is given: write https:// in \
         --etcd-endpoints, or leave --etcd-cafile, --etcd-certfile and --etcd-keyfile out"
    )]
    Plaintext {
        /// The endpoint.
        endpoint: String,
    },
    /// Endpoints with TLS and without.
    #[error(
        "etcd endpoint {endpoint} is plaintext although another one has TLS: a password would be sent to either; write \
         https:// for all of --etcd-endpoints, or for none"
    )]
    MixedSchemes {
        /// The plaintext endpoint.
        endpoint: String,
    },
    /// A user, perhaps with a password, in a URL, which is logged.
    #[error(
        "etcd endpoint {endpoint} was given with a user in it: leave that out, and use --etcd-username and \
         --etcd-password or --etcd-password-file"
    )]
    UserInEndpoint {
        /// The endpoint without it.
        endpoint: String,
    },
    /// One half of a client certificate.
    #[error("--etcd-certfile and --etcd-keyfile belong together: give both or neither")]
    HalfIdentity,
    /// A file is not readable.
    #[error("cannot read {path}, the {what} for etcd{}", right_to_read(source))]
    ReadFile {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A TLS file does not hold what it should.
    #[error(
        "{path} does not hold a {what} in PEM form, with a line -----BEGIN {label}-----: make one with: openssl {command} \
         -in {path} -out NEW.pem (and -inform DER, if it is in that form)"
    )]
    NotPem {
        /// What it should hold.
        what: &'static str,
        /// What the block of it is called.
        label: &'static str,
        /// The program of openssl that makes such a block.
        command: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A private key that only a passphrase opens.
    #[error(
        "{path}, the client key for etcd, is encrypted, and nobody is there to be asked for the passphrase: decrypt it with: \
         openssl pkey -in {path} -out NEW.pem"
    )]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The endpoint is no URL, or its TLS files do not fit each other.
    #[error("cannot connect to etcd at {endpoint}: {}", cause(error))]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// Why.
        error: etcd_client::Error,
    },
    /// The user is not let in.
    #[error("etcd at {endpoint} does not let the user {user} in: {}", cause(error))]
    Login {
        /// The endpoint.
        endpoint: String,
        /// The refused user.
        user: String,
        /// Why.
        error: etcd_client::Error,
    },
    /// The user may not do that.
    #[error(
        "etcd at {endpoint} did not {operation}: permission denied for the user {user} whose role needs to read and \
         write below {prefix}/; grant it with: etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}/"
    )]
    Denied {
        /// What was asked.
        operation: &'static str,
        /// The endpoint.
        endpoint: String,
        /// Who may not.
        user: String,
        /// What every key begins with.
        prefix: String,
    },
    /// etcd, or the connection to it, refused a request.
    #[error("etcd at {endpoint} did not {operation}: {}{}", cause(error), turned_down(endpoint, error))]
    Request {
        /// What was asked.
        operation: &'static str,
        /// The endpoint.
        endpoint: String,
        /// Why.
        error: etcd_client::Error,
    },
    /// No answer.
    #[error("etcd at {endpoint} did not {operation} within {after:?}; is it overloaded or cut off?")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// The endpoint.
        endpoint: String,
        /// How long it had.
        after: Duration,
    },
    /// What answers is not etcd's v3 API.
    #[error(
        "{endpoint} does not serve etcd's v3 API: only that API is supported (etcd 3.1 and newer), the v2 API \
         and its store are not; is it the client URL of etcd, with the right scheme?"
    )]
    NotV3 {
        /// The endpoint.
        endpoint: String,
        /// What gave it away.
        #[source]
        source: etcd_client::Error,
    },
    /// Nobody has written the configuration.
    #[error(
        "flannel config not found in etcd store. Did you create your config using etcdv3 API? The key is \
         {key}; write it with: etcdctl put {key} '{{\"Network\": \"10.5.0.0/16\", \"Backend\": {{\"Type\": \
         \"vxlan\"}}}}'"
    )]
    ConfigMissing {
        /// Where it should stand.
        key: String,
    },
    /// The configuration is not even text.
    #[error("the network configuration at {key} is not UTF-8 text: write it again with etcdctl put")]
    ConfigNotText {
        /// Where it stands.
        key: String,
    },
    /// Own attributes have no JSON form.
    #[error("cannot write the lease as JSON")]
    Encode(#[source] serde_json::Error),
    /// What a registry of another kind says, with all that lies below it.
    #[error("{error}")]
    Other {
        /// What it says.
        error: Box<dyn Error + Send + Sync>,
        /// Whether nothing is known of what stands there.
        is_absence: bool,
    },
}

impl RegistryError {
    /// Whether no registry was reached, so that nothing is known of what stands there. What is read to reach it, as
    /// certificates, may come with what it is needed for; and what answers in its place may be a proxy before it.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Login { .. }
            | Self::Denied { .. }
            | Self::Request { .. }
            | Self::Timeout { .. }
            | Self::ReadFile { .. }
            | Self::NotPem { .. }
            | Self::EncryptedKey { .. }
            | Self::NotV3 { .. } => true,
            Self::Other { is_absence, .. } => *is_absence,
            Self::NoEndpoint
            | Self::Plaintext { .. }
            | Self::MixedSchemes { .. }
            | Self::UserInEndpoint { .. }
            | Self::HalfIdentity
            | Self::ConfigMissing { .. }
            | Self::ConfigNotText { .. }
            | Self::Encode(_) => false,
        }
    }
}

/// What helps against a file that may not be read.
fn right_to_read(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            "; let the user flanneld runs as own it, or grant CAP_DAC_READ_SEARCH (systemd: CapabilityBoundingSet= and, \
             without root, AmbientCapabilities=)"
        }
        _ => "",
    }
}

/// A watch has ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// History that was not received yet is gone: list, then watch from the revision of the list.
    #[error("etcd has compacted its history up to revision {revision}")]
    Compacted {
        /// The oldest revision that is left.
        revision: Revision,
    },
    /// The history has started again, or continues from an older copy: list.
    #[error(
        "etcd is at revision {revision} of another history than the one known up to {known}: it was restored or made again"
    )]
    Reset {
        /// The revision it is at.
        revision: Revision,
        /// The revision it was at.
        known: Revision,
    },
    /// etcd ended the watch.
    #[error("etcd at {endpoint} cancelled the watch: {reason}")]
    Cancelled {
        /// The endpoint.
        endpoint: String,
        /// What etcd says.
        reason: String,
    },
    /// The connection ended.
    #[error("the watch at {endpoint} broke off: {}", error.as_ref().map_or_else(|| "end of stream".to_owned(), cause))]
    Broken {
        /// The endpoint.
        endpoint: String,
        /// Why, unless the stream just ended.
        error: Option<etcd_client::Error>,
    },
    /// A registry of another kind keeps no history up to there: list.
    #[error("{0}")]
    Expired(Box<dyn Error + Send + Sync>),
    /// A registry of another kind ended the watch.
    #[error("{0}")]
    Ended(Box<dyn Error + Send + Sync>),
}

impl WatchError {
    /// Whether the leases must be listed, because what happened meanwhile is not to be had.
    #[must_use]
    pub const fn loses_history(&self) -> bool {
        matches!(self, Self::Compacted { .. } | Self::Reset { .. } | Self::Expired(_))
    }
}

/// The reason for which a value is rejected, with that below it.
pub(super) fn reason_of(error: &ValueError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// What an error of the client says, with what lies below it (a refused connection, a bad certificate) and,
/// where only the operator can help, how.
fn cause(error: &etcd_client::Error) -> String {
    let mut text = match error {
        etcd_client::Error::GRpcStatus(status) => status.message().to_owned(),
        etcd_client::Error::TransportError(transport) => transport.to_string(),
        other => other.to_string(),
    };
    let mut below = root(error).and_then(Error::source);
    while let Some(error) = below {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        below = error.source();
    }
    match remedy(&text) {
        Some(remedy) => format!("{text}; {remedy}"),
        None => text,
    }
}

/// With TLS 1.3 a client learns that its certificate is not taken by a connection that ends.
fn turned_down(endpoint: &str, error: &etcd_client::Error) -> String {
    let has_ended = cause(error).ends_with("connection closed");
    if has_ended && endpoint.starts_with("https://") { format!("; perhaps {CLIENT}") } else { String::new() }
}

/// The error of the transport; the client's own error does not name it as its source.
pub(super) fn root(error: &etcd_client::Error) -> Option<&(dyn Error + 'static)> {
    match error {
        etcd_client::Error::GRpcStatus(status) => Some(status),
        etcd_client::Error::TransportError(transport) => Some(transport),
        _ => None,
    }
}
