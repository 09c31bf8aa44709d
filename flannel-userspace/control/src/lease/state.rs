//! The own lease as others see it.

use flannel_model::lease::Lease;
use tokio::time::Instant;

/// The lease as it is held.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseState {
    /// As last written.
    pub lease: Lease,
    /// Until when it lasts at least; a reservation never ends.
    pub expires: Option<Instant>,
    /// When it is to be renewed; a reservation never is.
    pub renewal: Option<Instant>,
}
