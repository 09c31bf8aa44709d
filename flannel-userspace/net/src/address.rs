//! Addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr};

use flannel_model::device::Device;
use ipnetwork::Ipv4Network;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::{During, Error, Netlink, absence_is_success, collect};

/// An IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    /// Interface index.
    pub link: u32,
    /// The address, with the length of the network it is connected to.
    pub network: Ipv4Network,
    /// How far it is valid.
    pub scope: AddressScope,
    /// Whether it was configured without a lifetime.
    pub permanent: bool,
    /// Whether it is on its way out: not to be used by anything new.
    pub deprecated: bool,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        // IFA_ADDRESS is the peer's address on a point-to-point link; IFA_LOCAL is the own one.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(local)) => Some(*local),
            _ => None,
        })?;
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let flags = flags.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()));
        Some(Self {
            link: message.header.index,
            network: Ipv4Network::new(local, message.header.prefix_len).ok()?,
            scope: message.header.scope,
            permanent: flags.contains(AddressFlags::Permanent),
            deprecated: flags.contains(AddressFlags::Deprecated),
        })
    }
}

impl Netlink {
    /// The IPv4 addresses of every interface.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let mut request = self.0.address().get();
        request.message_mut().header.family = AddressFamily::Inet;
        collect(request.execute(), "list the addresses", |message| Address::from_message(&message)).await
    }

    /// Gives `device` the address `own`/32 and takes every other address inside `network` from it.
    /// Addresses outside `network` are left alone.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn ensure_address(
        &self,
        device: &Device,
        own: Ipv4Addr,
        network: Ipv4Network,
    ) -> Result<(), Error> {
        let of_device: Vec<Address> =
            self.addresses().await?.into_iter().filter(|address| address.link == device.index).collect();
        let is_wanted = |address: &Address| address.network.ip() == own && address.network.prefix() == 32;
        if !of_device.iter().any(is_wanted) {
            let added = self.0.address().add(device.index, own.into(), 32).execute().await;
            added.during(|| format!("give interface {} the address {own}/32", device.name))?;
        }
        for address in of_device {
            if network.contains(address.network.ip()) && !is_wanted(&address) {
                tracing::info!(device = device.name, address = %address.network, "removing a former address");
                self.delete_address(device, address.network).await?;
            }
        }
        Ok(())
    }

    async fn delete_address(&self, device: &Device, address: Ipv4Network) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = device.index;
        message.header.prefix_len = address.prefix();
        message.attributes.push(AddressAttribute::Local(address.ip().into()));
        let deleted = self.0.address().del(message).execute().await;
        absence_is_success(
            deleted.during(|| format!("take the address {address} from interface {}", device.name)),
        )
    }
}
