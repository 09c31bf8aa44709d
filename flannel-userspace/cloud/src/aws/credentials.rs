//! The keys by which calls are signed.

use flannel_model::secret::Secret;
use jiff::Timestamp;

/// Keys.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    /// Which keys; no secret.
    pub(super) id: String,
    pub(super) secret: Secret,
    /// Proves that they are temporary ones.
    pub(super) token: Option<Secret>,
    pub(super) expires: Option<Timestamp>,
    /// Where they are from, for messages.
    pub(super) from: &'static str,
}
