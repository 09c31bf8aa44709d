//! The host's network: interfaces, addresses, routes and neighbours over netlink, and the rules of its firewall.
//!
//! Reading and changing them lives here. Which of them should exist does not, nor do programs and maps.

pub mod address;
mod attachments;
mod blackhole;
pub mod bridge;
mod bulk;
mod clsact;
pub mod conntrack;
pub mod device;
pub mod forwarding;
pub mod interface;
pub mod link;
pub mod monitor;
mod nexthop;
pub mod objects;
mod offload;
pub mod qdisc;
pub mod route;
pub mod rules;
mod uplink;
mod xdp_refusal;
mod xdp_support;
pub mod xdp_transmit;
pub mod xfrm;

#[cfg(any(test, feature = "namespace"))]
pub mod namespace;

use std::io;

use futures::{Stream, TryStreamExt};
use nix::errno::Errno;
use tracing::Instrument;

pub use attachments::{Filter, XdpProgram};
pub use bridge::BridgeFdb;
pub use clsact::knows_clsact;
pub use monitor::Monitor;
pub use objects::{ObjectError, Objects, retain_ours};
pub use route::hops;
pub use uplink::Uplink;
pub use xdp_refusal::xdp_refusal;
pub use xdp_support::{XdpSupport, xdp_support};

/// The protocol number of routes on interfaces that are not flannel's own, by which they are distinguished from those
/// of the host's owner. No routing daemon known to iproute2 uses it.
pub const ROUTE_PROTOCOL: u8 = 85;

/// A conversation with the kernel about the network namespace in which it was opened.
#[derive(Clone, Debug)]
pub struct Netlink(rtnetlink::Handle);

/// The netlink socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open a netlink socket; the kernel must be 4.20 or newer")]
pub struct OpenError(#[from] io::Error);

/// The kernel refused a request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}{}", remedy(source))]
pub struct Error {
    operation: String,
    #[source]
    source: io::Error,
}

impl Error {
    /// The error number the kernel answered with; `None` if the request did not reach it.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        self.source.raw_os_error().map(Errno::from_raw)
    }

    /// Whether something changed while it was listed.
    fn is_interrupted(&self) -> bool {
        self.source.kind() == std::io::ErrorKind::Interrupted
    }

    /// Whether what was asked for does not exist.
    fn is_absence(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ESRCH | Errno::ENODEV | Errno::EADDRNOTAVAIL))
    }
}

/// What helps against the answers of the kernel that do not speak for themselves.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => {
            ", which takes CAP_NET_ADMIN in the user namespace of this network namespace"
        }
        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => {
            ", for which the kernel may lack a module (modprobe, or linux-modules-extra) or a newer release"
        }
        Some(Errno::ENOBUFS | Errno::ENOMEM) => {
            ", because the kernel has no memory left for it; it is tried again"
        }
        _ => "",
    }
}

/// The release of the running kernel, such as `6.1.0-28-cloud-amd64`.
#[must_use]
pub fn release() -> String {
    let uname = nix::sys::utsname::uname();
    uname.map_or_else(
        |_| "of unknown release".to_owned(),
        |uname| uname.release().to_string_lossy().into_owned(),
    )
}

impl Netlink {
    /// Opens a netlink socket in the calling thread's network namespace and serves it in a task of the
    /// running tokio runtime until the last clone is dropped.
    ///
    /// The kernel is asked to check requests strictly: it then filters what it lists instead of ignoring the filter.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open() -> Result<Self, OpenError> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(OpenError)?;
        tokio::spawn(connection.in_current_span());
        Ok(Self(handle))
    }
}

/// Names the operation that failed.
trait During<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, rtnetlink::Error> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error {
            operation: operation(),
            source: match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other),
            },
        })
    }
}

impl<T> During<T> for io::Result<T> {
    fn during(self, operation: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error { operation: operation(), source })
    }
}

/// Removing what does not exist succeeds.
fn absence_is_success(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_absence() => Ok(()),
        other => other,
    }
}

/// Collects what `pick` takes of a listing, one message at a time. A table that does not exist is empty.
async fn collect<Message, Item, Collection>(
    listing: impl Stream<Item = Result<Message, rtnetlink::Error>>,
    operation: &str,
    pick: impl Fn(Message) -> Option<Item>,
) -> Result<Collection, Error>
where
    Collection: Default + Extend<Item>,
{
    let collected = listing.try_fold(Collection::default(), |mut all, message| {
        all.extend(pick(message));
        std::future::ready(Ok(all))
    });
    match collected.await.during(|| operation.to_owned()) {
        Err(error) if error.is_absence() => Ok(Collection::default()),
        other => other,
    }
}
