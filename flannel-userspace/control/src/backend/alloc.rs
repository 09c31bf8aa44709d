//! A lease and nothing else: somebody else carries the packets.

use flannel_model::backend::Kind;
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links};

use super::{Backend, Unreachable};
use crate::peers::Peer;

/// The alloc backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alloc;

impl Backend for Alloc {
    fn kind(&self) -> Kind {
        Kind::Alloc
    }

    fn depends_on_hop(&self) -> bool {
        false
    }

    fn objects(&self, _: &Peer, _: Hop, _: &Links) -> Result<Vec<Object>, Unreachable> {
        Ok(Vec::new())
    }
}
