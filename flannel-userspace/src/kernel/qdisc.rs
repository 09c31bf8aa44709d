//! The clsact qdisc, under which programs hang where the kernel knows no TCX.

use rtnetlink::packet_route::tc::{TcHandle, TcMessage};

use super::{During, Error, Netlink, absence_is_success, collect};

impl Netlink {
    /// Removes the clsact qdisc of an interface unless somebody's filter hangs under it. Whether it did.
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
