//! Addresses of interfaces.

use std::net::IpAddr;

use flannel_model::device::Device;
use flannel_model::family::Family;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};

use super::objects::address_family;
use super::{During, Error, Netlink, absence_is_success, bulk};

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    /// Interface index.
    pub link: u32,
    /// The address, with the length of the network it is connected to.
    pub network: IpNetwork,
    /// How far it is valid.
    pub scope: AddressScope,
    /// Whether it was configured without a lifetime.
    pub permanent: bool,
    /// Whether it is deprecated: not to be used by anything new.
    pub deprecated: bool,
}

impl Address {
    fn from_message(message: &AddressMessage) -> Option<Self> {
        // IFA_ADDRESS is the peer's address on a point-to-point link, and IFA_LOCAL the own one; with IPv6 there may be
        // IFA_ADDRESS alone.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(local) => Some(*local),
            _ => None,
        });
        let of_ipv6 = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
            _ => None,
        });
        let local = local.or(of_ipv6)?;
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let flags = flags.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()));
        Some(Self {
            link: message.header.index,
            network: IpNetwork::new(local, message.header.prefix_len).ok()?,
            scope: message.header.scope,
            permanent: flags.contains(AddressFlags::Permanent),
            deprecated: flags.contains(AddressFlags::Deprecated),
        })
    }
}

impl Netlink {
    /// The addresses of `family` of every interface, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn addresses(&self, family: Family) -> Result<Vec<Address>, Error> {
        let mut request = AddressMessage::default();
        request.header.family = address_family(family);
        let pick = |message| match message {
            RouteNetlinkMessage::NewAddress(message) => Address::from_message(&message),
            _ => None,
        };
        let addresses = bulk::listed(&RouteNetlinkMessage::GetAddress(request), pick);
        addresses.map_err(|source| Error { operation: "list the addresses".to_owned(), source })
    }

    /// Gives `device` the address `own` alone, as a /32 or /128, and takes every other address inside `network` from it.
    /// Addresses outside `network` are left alone.
    ///
    /// # Errors
    /// The kernel refused.
    pub async fn ensure_address(
        &self,
        device: &Device,
        own: IpAddr,
        network: IpNetwork,
    ) -> Result<(), Error> {
        let family = Family::from(own);
        let all = self.addresses(family).await?.into_iter();
        let of_device: Vec<Address> = all.filter(|address| address.link == device.index).collect();
        let len = family.bits();
        let is_wanted = |address: &Address| address.network.ip() == own && address.network.prefix() == len;
        if !of_device.iter().any(is_wanted) {
            let added = self.0.address().add(device.index, own, len).execute().await;
            added.during(|| format!("give interface {} the address {own}/{len}", device.name))?;
        }
        for address in of_device {
            if network.contains(address.network.ip()) && !is_wanted(&address) {
                tracing::info!(device = device.name, address = %address.network, "removing a former address");
                self.delete_address(device, address.network).await?;
            }
        }
        Ok(())
    }

    async fn delete_address(&self, device: &Device, address: IpNetwork) -> Result<(), Error> {
        let mut message = AddressMessage::default();
        message.header.family = address_family(address.into());
        message.header.index = device.index;
        message.header.prefix_len = address.prefix();
        message.attributes.push(AddressAttribute::Local(address.ip()));
        let deleted = self.0.address().del(message).execute().await;
        absence_is_success(
            deleted.during(|| format!("take the address {address} from interface {}", device.name)),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use flannel_model::family::Family;
    use futures::executor::block_on;

    use crate::namespace::{add_interface, in_namespace, ip, run};

    const REMOVED: usize = 300;
    const KEPT: usize = 1500;

    /// The kernel lists addresses page by page, by their places: one that is removed has those behind it move up, and the
    /// first of the next page is left out.
    #[test]
    fn none_is_missing_while_others_are_removed() {
        in_namespace(async |netlink| {
            let address = |n: usize| format!("10.{}.{}.1/32", n / 250, n % 250);
            add_interface("eth0", "192.168.77.1/24");
            let batch: String =
                (0..REMOVED + KEPT).map(|n| format!("address add {} dev eth0\n", address(n))).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), batch).unwrap();
            run("ip", &format!("-batch {}", file.path().display()));
            let kept: BTreeSet<String> = (REMOVED..REMOVED + KEPT).map(address).collect();
            std::thread::scope(|scope| {
                let remover = scope.spawn(|| {
                    for n in 0..REMOVED {
                        ip(&format!("address del {} dev eth0", address(n)));
                        // A listing in between can be complete.
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
                let (mut complete, mut not) = (0, 0);
                while !remover.is_finished() {
                    // On a busy machine something is removed during every listing.
                    let listed = match block_on(netlink.addresses(Family::V4)) {
                        Err(error) if error.is_interrupted() => continue,
                        listed => listed.unwrap(),
                    };
                    let listed: BTreeSet<String> =
                        listed.iter().map(|address| address.network.to_string()).collect();
                    *if kept.is_subset(&listed) { &mut complete } else { &mut not } += 1;
                }
                // The kernel marks a listing by a number that it changes after it has removed an address.
                assert!(complete > 10 * not, "{complete} listings were complete, {not} not");
            });
        });
    }
}
