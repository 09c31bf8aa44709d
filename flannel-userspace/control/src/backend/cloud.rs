//! Routes in the route tables of a cloud: its routers carry the packets as they are, and this host's own routes bring them
//! to the cloud. What keeps the cloud's tables is not here, as it asks the network: it is the crate `cloud`.

use flannel_model::backend::Kind;
use flannel_model::cloud::Provider;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links};

use super::{Backend, Unreachable};
use crate::peers::Peer;

/// The backend of a cloud.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cloud(pub(super) Provider);

impl Backend for Cloud {
    fn kind(&self) -> Kind {
        Kind::Cloud(self.0)
    }

    fn depends_on_hop(&self) -> bool {
        false
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn objects(&self, _: &Peer, _: Hop, _: &Links) -> Result<Vec<Object>, Unreachable> {
        Ok(Vec::new())
    }
}
