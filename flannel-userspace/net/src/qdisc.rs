//! The clsact qdisc, which holds programs as filters if the kernel has no TCX, and what others have put there.

use std::collections::BTreeSet;

use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::{During, Error, Netlink, absence_is_success, collect};

/// Priority of our filters: unlikely to be anyone else's.
pub const PRIORITY: u16 = 0x0f1a;

impl Netlink {
    /// Those of `interfaces` with a qdisc, or a filter under clsact, that is not ours.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn treated_by_others(&self, interfaces: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Error> {
        let qdiscs: Vec<TcMessage> = collect(self.0.qdisc().get().execute(), "list the qdiscs", Some).await?;
        let mut treated = BTreeSet::new();
        for qdisc in &qdiscs {
            let interface = qdisc.header.index.cast_unsigned();
            if !interfaces.contains(&interface) {
                continue;
            }
            let is_treated = match kind(qdisc) {
                Some("noqueue") => false,
                Some("clsact") => {
                    self.filters(interface).await?.iter().any(|filter| filter.priority != PRIORITY)
                }
                _ => true,
            };
            if is_treated {
                treated.insert(interface);
            }
        }
        Ok(treated)
    }

    /// Whether somebody else has put a qdisc or a filter where packets arrive at the interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn is_ingress_treated(&self, interface: u32) -> Result<bool, Error> {
        let is_ingress = |qdisc: TcMessage| {
            let is_here = qdisc.header.index.cast_unsigned() == interface;
            (is_here && kind(&qdisc) == Some("ingress")).then_some(())
        };
        let found: Vec<()> = collect(self.0.qdisc().get().execute(), "list the qdiscs", is_ingress).await?;
        if !found.is_empty() {
            return Ok(true);
        }
        let filters = self.filters(interface).await?;
        Ok(filters.iter().any(|filter| filter.ingress && filter.priority != PRIORITY))
    }

    /// Removes the clsact qdisc of an interface unless it holds somebody's filter. Returns whether it did.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn remove_empty_clsact(&self, interface: u32) -> Result<bool, Error> {
        let index = interface.cast_signed();
        let mut filters = self.0.traffic_filter(index);
        let ingress: Vec<TcMessage> =
            collect(filters.get().ingress().execute(), "list the ingress filters", Some).await?;
        let egress: Vec<TcMessage> =
            collect(filters.get().egress().execute(), "list the egress filters", Some).await?;
        if !(ingress.is_empty() && egress.is_empty()) {
            return Ok(false);
        }
        let mut request = self.0.qdisc().del(index);
        request.message_mut().header.parent = TcHandle::CLSACT;
        let deleted = request.execute().await.during(|| format!("remove the clsact qdisc of {interface}"));
        absence_is_success(deleted).map(|()| true)
    }
}

fn kind(message: &TcMessage) -> Option<&str> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    })
}
