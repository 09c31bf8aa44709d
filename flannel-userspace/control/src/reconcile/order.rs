//! What the operator has the loop do.

use flannel_registry::LeaseSource;
use tokio::sync::oneshot;
use tracing::info;

use super::Loop;
use crate::kernel::Kernel;

/// What the operator has the loop do. Who gives an order may be gone when it is carried out.
#[derive(Debug)]
pub enum Order {
    /// Let the peers of a mass deletion go now; answered with how many those were.
    Release(oneshot::Sender<usize>),
    /// Connect to the registry anew, and list; answered when the former connection is given up.
    Reconnect(oneshot::Sender<()>),
}

impl<R: LeaseSource, K: Kernel> Loop<R, K> {
    pub(super) async fn obey(&mut self, order: Order) {
        match order {
            Order::Release(reply) => {
                let released = if self.deletion_guard.is_holding() { self.expire().await } else { 0 };
                let _ = reply.send(released);
            }
            Order::Reconnect(reply) => {
                info!("connecting to the registry anew");
                self.registry.reconnect().await;
                // The watch goes on over the former connection until then.
                self.must_list = true;
                let _ = reply.send(());
            }
        }
    }
}
