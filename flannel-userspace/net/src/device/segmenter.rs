//! The segmenter of the UDP backend: a veth pair whose entrance offers no offloads. So the kernel segments
//! super-packets and completes checksums before they enter, as for a card without offloads, and ordinary packets come
//! out of the other end.

use flannel_model::device::Segmenter;
use rtnetlink::LinkVeth;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};

use super::{DeviceError, set_ipv6};
use crate::link::{Kind, Link};
use crate::{Error, Netlink, offload};

/// Where packets go in.
pub const ENTRANCE: &str = "flannel0-in";
/// Where they come out.
pub const EXIT: &str = "flannel0-out";

impl Netlink {
    /// The segmenter for packets up to `mtu` bytes.
    ///
    /// # Errors
    /// A name belongs to something else; the kernel refused.
    pub async fn ensure_segmenter(&self, mtu: u32) -> Result<Segmenter, DeviceError> {
        if self.link(ENTRANCE).await?.is_none() && self.link(EXIT).await?.is_none() {
            let pair = LinkVeth::new(ENTRANCE, EXIT).down().arp(false);
            // For every transport, also one whose segmentation does not depend on checksum offload, such as SCTP.
            let pair = pair.append_extra_attribute(LinkAttribute::GsoMaxSegs(1));
            self.add_link(ENTRANCE, pair.build()).await?;
        }
        let (exit, entrance) = (self.segmenter_end(EXIT).await?, self.segmenter_end(ENTRANCE).await?);
        if !exit.flags.contains(LinkFlags::Noarp) {
            self.change_link(&exit, "turn off ARP", |change| change.arp(false)).await?;
        }
        offload::finish_checksums(ENTRANCE)?;
        for end in [&entrance, &exit] {
            // None: no address, so the kernel sends nothing by itself.
            set_ipv6(&end.name, "addr_gen_mode", "1")?;
            self.bring_up(end, mtu).await?;
        }
        Ok(Segmenter { entrance: entrance.index, exit: exit.index })
    }

    /// The segmenter as it is; an end that is missing has the index of no interface.
    pub(super) async fn find_segmenter(&self) -> Result<Segmenter, Error> {
        let index = async |name| Ok::<_, Error>(self.link(name).await?.map_or(0, |link| link.index));
        Ok(Segmenter { entrance: index(ENTRANCE).await?, exit: index(EXIT).await? })
    }

    /// How the existing ends of the segmenter for packets up to `mtu` bytes differ from what they should be: the end's
    /// name and the difference.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn segmenter_differences(&self, mtu: u32) -> Result<Vec<(&'static str, String)>, Error> {
        let mut differences = Vec::new();
        for name in [ENTRANCE, EXIT] {
            let Some(end) = self.link(name).await? else { continue };
            let mut differs = |is_so: bool, text: String| {
                if is_so {
                    differences.push((name, text));
                }
            };
            differs(end.mtu != mtu, format!("mtu is {}, wanted {mtu}", end.mtu));
            differs(!end.is_up(), "it is down".to_owned());
            differs(!end.flags.contains(LinkFlags::Noarp), "it speaks ARP".to_owned());
            let promises = name == ENTRANCE && offload::promises_checksums(name)?;
            differs(promises, "it promises checksums and segmentation (tx-checksumming is on)".to_owned());
        }
        Ok(differences)
    }

    /// Deletes the segmenter; returns whether there was one.
    ///
    /// # Errors
    /// The name belongs to something else; the kernel refused.
    pub async fn remove_segmenter(&self) -> Result<bool, DeviceError> {
        let Some(entrance) = self.own_segmenter().await? else { return Ok(false) };
        self.delete_link(&entrance).await?;
        Ok(true)
    }

    /// The entrance of the segmenter, if there is one.
    ///
    /// # Errors
    /// The kernel refused; the name belongs to something else.
    pub async fn own_segmenter(&self) -> Result<Option<Link>, DeviceError> {
        match self.link(ENTRANCE).await? {
            Some(_) => self.segmenter_end(ENTRANCE).await.map(Some),
            None => Ok(None),
        }
    }

    async fn segmenter_end(&self, name: &str) -> Result<Link, DeviceError> {
        let link = self.link(name).await?.ok_or_else(|| DeviceError::Vanished(name.to_owned()))?;
        if link.kind == Kind::Other("veth".to_owned()) && link.controller.is_none() {
            return Ok(link);
        }
        Err(DeviceError::Foreign {
            name: name.to_owned(),
            kind: link.kind.to_string(),
            wanted: "an end of the UDP backend's veth pair",
            remedy: format!("rename it, or delete it with `ip link delete {name}`"),
        })
    }
}
