//! Programs on interfaces, as the kernel lists them over netlink.

use futures::TryStreamExt as _;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use rtnetlink::packet_route::tc::TcMessage;

use super::{During, Error, Netlink, collect};

/// A filter of traffic control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Whether it sees what arrives; else what leaves.
    pub ingress: bool,
    /// The lower one is asked first.
    pub priority: u16,
    /// Tells filters of one priority apart.
    pub handle: u32,
}

/// Where an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpProgram {
    /// Id of the program.
    pub id: u32,
    /// Whether the driver runs it, and not the network stack.
    pub native: bool,
}

impl Netlink {
    /// The XDP program of an interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn xdp_program(&self, interface: u32) -> Result<Option<XdpProgram>, Error> {
        let request = self.0.link().get().match_index(interface).execute();
        let answer = std::pin::pin!(request).try_next().await;
        match answer.during(|| format!("look the interface of index {interface} up")) {
            Ok(answer) => Ok(answer.as_ref().and_then(xdp_of)),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The filters under the clsact qdisc of an interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn filters(&self, interface: u32) -> Result<Vec<Filter>, Error> {
        let mut requests = self.0.traffic_filter(interface.cast_signed());
        let ingress = requests.get().ingress().execute();
        let mut filters: Vec<Filter> =
            collect(ingress, "list the ingress filters", |m| filter(&m, true)).await?;
        let egress = requests.get().egress().execute();
        let mut others: Vec<Filter> =
            collect(egress, "list the egress filters", |m| filter(&m, false)).await?;
        filters.append(&mut others);
        Ok(filters)
    }
}

fn filter(message: &TcMessage, ingress: bool) -> Option<Filter> {
    // The upper half of the field is the priority, the lower one the protocol.
    let priority = u16::try_from(message.header.info >> 16).ok()?;
    let handle: u32 = message.header.handle.into();
    // A priority is also listed by itself, without a handle.
    (handle != 0).then_some(Filter { ingress, priority, handle })
}

/// The XDP program of a link.
pub(super) fn xdp_of(message: &LinkMessage) -> Option<XdpProgram> {
    let attributes = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Xdp(attributes) => Some(attributes),
        _ => None,
    })?;
    let id = |pick: fn(&LinkXdp) -> Option<u32>| attributes.iter().find_map(pick).filter(|id| *id != 0);
    let native = id(|attribute| match attribute {
        LinkXdp::DrvProgId(id) | LinkXdp::HwProgId(id) => Some(*id),
        _ => None,
    });
    let any = id(|attribute| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
        _ => None,
    });
    native.map(|id| XdpProgram { id, native: true }).or(any.map(|id| XdpProgram { id, native: false }))
}
