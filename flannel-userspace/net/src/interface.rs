//! The choice of the interface that carries the tunnel.

use std::net::IpAddr;

use flannel_model::config::cidr::masked;
use flannel_model::config::interface::InterfaceOptions;
use flannel_model::device::is_flannel;
use flannel_model::family::{Addresses, Family};
use flannel_model::underlay::Underlay;
use ipnetwork::IpNetwork;
use regex::Regex;
use rtnetlink::packet_route::address::AddressScope;
use rtnetlink::packet_route::link::LinkFlags;

use super::address::Address;
use super::link::Link;
use super::{Error, Netlink};

/// No interface could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] Error),
    /// No interface has the name or address.
    #[error("no interface has the {what} {wanted}; this host has {present}")]
    Missing {
        /// Whether a name or an address was looked for.
        what: &'static str,
        /// What was looked for.
        wanted: String,
        /// The interfaces that are there.
        present: String,
    },
    /// No address and no name matches the regular expression.
    #[error("no interface's address or name matches {pattern}; this host has {present}")]
    NoMatch {
        /// The regular expression.
        pattern: String,
        /// The interfaces that are there.
        present: String,
    },
    /// The regular expression cannot be understood.
    #[error("--iface-regex={pattern} is no regular expression")]
    InvalidRegex {
        /// The text.
        pattern: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// The interface is down.
    #[error("interface {0} is down: bring it up with `ip link set {0} up`, or choose another with --iface")]
    Down(String),
    /// The interface has no address.
    #[error("interface {0} has no IPv4 address: give it one, or choose another interface with --iface")]
    NoAddress(String),
    /// There is no route.
    #[error("no route leads to {0}, which --iface-can-reach names: add one, or choose with --iface")]
    CannotReach(IpAddr),
    /// There is no default route.
    #[error("this host has no default route, from which the interface would follow: choose one with --iface")]
    NoDefaultRoute,
    /// Nothing of what was asked for can be used.
    #[error("none of the interfaces asked for can be used: {}", list(.0))]
    NoneUsable(Vec<InterfaceError>),
}

fn list(errors: &[InterfaceError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Chooses the underlay: the first `iface` that can be used, else the first `iface_regex`, else the
/// interface by which `iface_can_reach` is reached. With none of them given, the interface that has
/// `public_ip`, else that of the default route.
///
/// # Errors
/// Nothing that was asked for can be used, or nothing was asked for and there is no default route.
pub async fn choose(netlink: &Netlink, options: &InterfaceOptions) -> Result<Underlay, InterfaceError> {
    let host = Host::now(netlink).await?;
    let choice = if options.iface.is_empty()
        && options.iface_regex.is_empty()
        && options.iface_can_reach.is_none()
    {
        match options.public.v4 {
            // An address of the loopback interface says nothing of where packets leave.
            Some(public_ip) if !host.is_of_loopback(public_ip.into()) => host.by_address(public_ip.into()),
            _ => host.by_default_route(netlink).await,
        }?
    } else {
        host.asked_for(netlink, options).await?
    };
    let underlay = host.underlay(choice, options.public);
    tracing::info!(
        interface = underlay.name, address = %underlay.addresses, public_ip = %underlay.public,
        mtu = underlay.mtu, "chose the underlay"
    );
    Ok(underlay)
}

/// The present underlay. While the interface has its address the choice stands, whatever routes have changed; otherwise
/// it is made again. If the interface was that of the default route, and the route went with the interface's address,
/// the interface stays.
///
/// # Errors
/// The interface or its address is gone, and nothing has replaced it.
pub async fn follow(
    netlink: &Netlink,
    options: &InterfaceOptions,
    current: &Underlay,
) -> Result<Underlay, InterfaceError> {
    // An announced address may be on any interface.
    let is_announced = options.public.v4.map(IpAddr::from) == current.addresses.first();
    let is_current = |address: &&Address| {
        let is_here = address.link == current.index || is_announced;
        is_here && Some(address.network.ip()) == current.addresses.first()
    };
    let mut host = Host::now(netlink).await?;
    if !host.addresses.iter().any(|address| is_current(&address)) {
        // While others are removed, a listing can miss an address and not be marked as interrupted.
        host = Host::now(netlink).await?;
    }
    match (host.link(current.index), host.addresses.iter().find(is_current)) {
        (Some(link), Some(address)) => Ok(host.underlay((link, address.network.ip()), options.public)),
        (link, _) => match (choose(netlink, options).await, link) {
            (Err(InterfaceError::NoDefaultRoute), Some(link)) => {
                Ok(host.underlay(host.first_address(link)?, options.public))
            }
            (chosen, _) => chosen,
        },
    }
}

struct Host {
    links: Vec<Link>,
    addresses: Vec<Address>,
}

type Choice<'a> = (&'a Link, IpAddr);

impl Host {
    async fn now(netlink: &Netlink) -> Result<Self, Error> {
        Ok(Self { links: netlink.links().await?, addresses: netlink.addresses(Family::V4).await? })
    }

    async fn asked_for(
        &self,
        netlink: &Netlink,
        options: &InterfaceOptions,
    ) -> Result<Choice<'_>, InterfaceError> {
        let mut refused = Vec::new();
        for iface in &options.iface {
            match self.by_address_or_name(iface) {
                Ok(choice) => return Ok(choice),
                Err(error) => refused.push(error),
            }
        }
        for pattern in &options.iface_regex {
            match self.by_regex(pattern) {
                Ok(choice) => return Ok(choice),
                Err(error) => refused.push(error),
            }
        }
        if let Some(address) = options.iface_can_reach {
            match self.by_route_to(netlink, address).await {
                Ok(choice) => return Ok(choice),
                Err(error) => refused.push(error),
            }
        }
        Err(match <[_; 1]>::try_from(refused) {
            Ok([only]) => only,
            Err(several) => InterfaceError::NoneUsable(several),
        })
    }

    fn by_address_or_name(&self, iface: &str) -> Result<Choice<'_>, InterfaceError> {
        match iface.parse() {
            Ok(address) => self.by_address(address),
            Err(_) => self.by_name(iface),
        }
    }

    fn by_name(&self, name: &str) -> Result<Choice<'_>, InterfaceError> {
        let link = self.links.iter().find(|link| link.name == name);
        self.first_address(link.ok_or_else(|| self.missing("name", name))?)
    }

    fn by_address(&self, wanted: IpAddr) -> Result<Choice<'_>, InterfaceError> {
        let address = self.addresses.iter().find(|address| address.network.ip() == wanted);
        let link = address.and_then(|address| self.link(address.link));
        usable(link.ok_or_else(|| self.missing("address", &wanted.to_string()))?, wanted)
    }

    /// Addresses of every interface first, then names. A match that is down or has no address is
    /// passed over for a later one.
    fn by_regex(&self, pattern: &str) -> Result<Choice<'_>, InterfaceError> {
        let regex = Regex::new(pattern).map_err(|source| InterfaceError::InvalidRegex {
            pattern: pattern.to_owned(),
            source: Box::new(source),
        })?;
        let by_address = self.links.iter().flat_map(|link| {
            let matching = self.addresses_of(link).into_iter().filter(|ip| regex.is_match(&ip.to_string()));
            matching.map(move |ip| usable(link, ip)).collect::<Vec<_>>()
        });
        let named = self.links.iter().filter(|link| regex.is_match(&link.name));
        let by_name = named.map(|link| self.first_address(link));
        let mut unusable = None;
        for choice in by_address.chain(by_name) {
            match choice {
                Ok(choice) => return Ok(choice),
                Err(error) => unusable.get_or_insert(error),
            };
        }
        Err(unusable.unwrap_or_else(|| InterfaceError::NoMatch {
            pattern: pattern.to_owned(),
            present: self.summary(),
        }))
    }

    async fn by_route_to(&self, netlink: &Netlink, address: IpAddr) -> Result<Choice<'_>, InterfaceError> {
        let route = netlink.route_to(address).await?.ok_or(InterfaceError::CannotReach(address))?;
        let link = route.device.and_then(|index| self.link(index));
        let link = link.ok_or(InterfaceError::CannotReach(address))?;
        match route.source {
            // The route to an own address is by the loopback; the interface that has the address is meant.
            Some(source) if link.flags.contains(LinkFlags::Loopback) => self.by_address(source),
            Some(source) => usable(link, source),
            None => self.first_address(link),
        }
    }

    async fn by_default_route(&self, netlink: &Netlink) -> Result<Choice<'_>, InterfaceError> {
        let route = netlink.default_route(Family::V4).await?.ok_or(InterfaceError::NoDefaultRoute)?;
        let link = route.device.or(route.first_device).and_then(|index| self.link(index));
        let link = link.ok_or(InterfaceError::NoDefaultRoute)?;
        match route.source {
            Some(source) => usable(link, source),
            None => self.first_address(link),
        }
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    fn first_address<'a>(&self, link: &'a Link) -> Result<Choice<'a>, InterfaceError> {
        let address = self.addresses_of(link).first().copied();
        usable(link, address.ok_or_else(|| InterfaceError::NoAddress(link.name.clone()))?)
    }

    /// The addresses by which others can reach the host, the best first: global before link-local,
    /// permanent before leased.
    fn addresses_of(&self, link: &Link) -> Vec<IpAddr> {
        let others_can_use = |address: &&Address| {
            address.link == link.index && !address.deprecated && !address.network.ip().is_loopback()
        };
        let mut addresses: Vec<&Address> = self.addresses.iter().filter(others_can_use).collect();
        addresses.sort_by_key(|address| (address.scope != AddressScope::Universe, !address.permanent));
        addresses.into_iter().map(|address| address.network.ip()).collect()
    }

    fn underlay(&self, (link, address): Choice<'_>, public: Addresses) -> Underlay {
        let own = public.v4.map(IpAddr::from).filter(|public| !public.is_loopback() && self.has(*public));
        let addresses = Addresses::from(own.unwrap_or(address));
        Underlay {
            name: link.name.clone(),
            index: link.index,
            mtu: link.mtu,
            mac: link.mac,
            vrf: link.controller.filter(|controller| self.link(*controller).is_some_and(Link::is_vrf)),
            addresses,
            public: public.or(addresses),
            networks: self.networks(),
        }
    }

    fn is_of_loopback(&self, address: IpAddr) -> bool {
        let is_it = |own: &&Address| own.network.ip() == address;
        let link = self.addresses.iter().find(is_it).and_then(|own| self.link(own.link));
        link.is_some_and(|link| link.flags.contains(LinkFlags::Loopback))
    }

    fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.network.ip() == address)
    }

    fn networks(&self) -> Vec<IpNetwork> {
        let is_own = |address: &Address| self.link(address.link).is_some_and(|link| is_flannel(&link.name));
        let of_others = self.addresses.iter().filter(|address| !is_own(address));
        let mut networks: Vec<IpNetwork> = of_others
            .map(|address| masked(address.network))
            .filter(|network| network.prefix() < Family::from(*network).bits())
            .collect();
        networks.sort();
        networks.dedup();
        networks
    }

    fn missing(&self, what: &'static str, wanted: &str) -> InterfaceError {
        InterfaceError::Missing { what, wanted: wanted.to_owned(), present: self.summary() }
    }

    /// The interfaces and their addresses in words.
    fn summary(&self) -> String {
        let describe = |link: &Link| {
            let addresses: Vec<String> = self.addresses_of(link).iter().map(ToString::to_string).collect();
            let state = if link.is_up() { "" } else { ", down" };
            match addresses.as_slice() {
                [] => format!("{} (no address{state})", link.name),
                addresses => format!("{} ({}{state})", link.name, addresses.join(", ")),
            }
        };
        let not_loopback = self.links.iter().filter(|link| !link.flags.contains(LinkFlags::Loopback));
        let links: Vec<String> = not_loopback.map(describe).collect();
        if links.is_empty() { "no interface but the loopback".to_owned() } else { links.join(", ") }
    }
}

fn usable(link: &Link, address: IpAddr) -> Result<Choice<'_>, InterfaceError> {
    if link.is_up() { Ok((link, address)) } else { Err(InterfaceError::Down(link.name.clone())) }
}

#[cfg(test)]
mod tests;
