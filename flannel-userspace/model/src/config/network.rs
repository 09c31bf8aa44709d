//! The network's configuration: the JSON under `<prefix>/config`, the same for every host.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::{IpNetwork, Ipv4Network};

use super::cidr;
use super::error::ConfigError;
use super::json::{Member, Object, excerpt};
use crate::family::{PerFamily, Subnets};

/// The configuration, checked and with its defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The families that are served, one at least.
    pub families: PerFamily<FamilyConfig>,
    /// Whether rules are written with nftables instead of iptables.
    pub enable_nftables: bool,
    /// How packets get from host to host.
    pub backend: RawBackend,
}

/// How the network of one family is cut in subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// The network that is cut in subnets; its host bits are zero.
    pub network: IpNetwork,
    /// Prefix length of every subnet; at least two longer than that of the network, with IPv4 at most 30.
    pub subnet_len: u8,
    /// First address of the first subnet that is leased.
    pub subnet_min: IpAddr,
    /// First address of the last subnet that is leased. Nothing says that it is not below `subnet_min`:
    /// then there is no subnet to lease.
    pub subnet_max: IpAddr,
}

/// The `Backend` object; [`BackendConfig::parse`](super::backend::BackendConfig::parse) looks into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBackend {
    /// `Type` in lower case; empty if the object has none.
    pub kind: String,
    /// Every member of the object.
    pub options: Object,
}

impl NetworkConfig {
    /// Reads, checks and completes the configuration as stock flannel does: keys in either case, unknown
    /// keys ignored, the last of duplicate keys.
    ///
    /// # Errors
    /// The configuration cannot be served; the message has stock flannel's words, the key and its value,
    /// and what to write instead.
    pub fn parse(json: &str) -> Result<Self, ConfigError> {
        Written::parse(json)?.complete()
    }

    /// The network of each family that is served.
    #[must_use]
    pub fn networks(&self) -> Subnets {
        self.families.values().fold(Subnets::NONE, |networks, family| networks.with(family.network))
    }
}

/// What was written, before defaults and checks. Zero means "not given", as with stock flannel.
struct Written {
    enable_ipv4: bool,
    enable_ipv6: bool,
    enable_nftables: bool,
    network: Option<Ipv4Network>,
    subnet_len: u32,
    subnet_min: Ipv4Addr,
    subnet_max: Ipv4Addr,
    backend: RawBackend,
}

impl Written {
    fn parse(json: &str) -> Result<Self, ConfigError> {
        let mut written = Self {
            enable_ipv4: true,
            enable_ipv6: false,
            enable_nftables: false,
            network: None,
            subnet_len: 0,
            subnet_min: Ipv4Addr::UNSPECIFIED,
            subnet_max: Ipv4Addr::UNSPECIFIED,
            backend: RawBackend { kind: "udp".to_owned(), options: Object::default() },
        };
        for member in Object::parse(json).map_err(ConfigError::Json)?.members() {
            written.set(member)?;
        }
        Ok(written)
    }

    fn set(&mut self, member: &Member) -> Result<(), ConfigError> {
        match member.name().as_str() {
            "enableipv4" => member.set(&mut self.enable_ipv4)?,
            "enableipv6" => member.set(&mut self.enable_ipv6)?,
            "enablenftables" => member.set(&mut self.enable_nftables)?,
            "network" => self.network = Some(network(member)?),
            "subnetlen" => member.set(&mut self.subnet_len)?,
            "subnetmin" => self.subnet_min = address("SubnetMin", member)?,
            "subnetmax" => self.subnet_max = address("SubnetMax", member)?,
            "backend" => self.backend = backend(member)?,
            _ => {}
        }
        Ok(())
    }

    fn complete(self) -> Result<NetworkConfig, ConfigError> {
        match (self.enable_ipv4, self.enable_ipv6) {
            (true, false) => {}
            (false, false) => return Err(ConfigError::NoStack),
            (_, true) => return Err(ConfigError::Ipv6NotServed),
        }
        let network =
            self.network.filter(|network| !is_everything(*network)).ok_or(ConfigError::NoNetwork)?;
        let subnet_len = subnet_len(network, self.subnet_len)?;
        let bounds = Bounds { network, subnet_len };
        let family = FamilyConfig {
            network: network.into(),
            subnet_len,
            subnet_min: bounds.check("SubnetMin", self.subnet_min, bounds.second())?.into(),
            subnet_max: bounds.check("SubnetMax", self.subnet_max, bounds.last())?.into(),
        };
        Ok(NetworkConfig {
            families: PerFamily::only_v4(family),
            enable_nftables: self.enable_nftables,
            backend: self.backend,
        })
    }
}

/// Whether `network` is 0.0.0.0/0, which stock flannel takes for no network at all.
fn is_everything(network: Ipv4Network) -> bool {
    network.prefix() == 0
}

fn network(member: &Member) -> Result<Ipv4Network, ConfigError> {
    let text = member.text();
    let invalid = |_| ConfigError::InvalidNetwork(excerpt(&text));
    cidr::parse(&text).map(cidr::masked_v4).map_err(invalid)
}

fn address(key: &'static str, member: &Member) -> Result<Ipv4Addr, ConfigError> {
    let text = member.text();
    text.parse().map_err(|_| ConfigError::InvalidAddress { key, value: excerpt(&text) })
}

fn backend(member: &Member) -> Result<RawBackend, ConfigError> {
    let not_an_object = |source| ConfigError::BackendJson { value: excerpt(member.json()), source };
    let options = Object::parse(member.json()).map_err(not_an_object)?;
    let mut kind = String::new();
    for option in options.members().filter(|option| option.name() == "type") {
        option.set(&mut kind).map_err(ConfigError::BackendType)?;
    }
    Ok(RawBackend { kind: kind.to_lowercase(), options })
}

/// The prefix length of subnets: what is `asked` for, or, where that is zero, /24 if four of them fit and
/// else a quarter of the network.
fn subnet_len(network: Ipv4Network, asked: u32) -> Result<u8, ConfigError> {
    let shortest = u32::from(network.prefix()) + 2;
    let len = match asked {
        0 if shortest > 30 => return Err(ConfigError::TooSmall(network)),
        0 => shortest.max(24),
        31.. => return Err(ConfigError::SubnetLenTooLong(asked)),
        _ if asked < shortest => {
            return Err(ConfigError::TooFewSubnets { network, asked, shortest });
        }
        _ => asked,
    };
    u8::try_from(len).map_err(|_| ConfigError::SubnetLenTooLong(len))
}

/// What `SubnetMin` and `SubnetMax` are checked against.
struct Bounds {
    network: Ipv4Network,
    subnet_len: u8,
}

impl Bounds {
    fn second(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.network().to_bits() + (1 << (32 - self.subnet_len)))
    }

    fn last(&self) -> Ipv4Addr {
        self.start_of_subnet(self.network.broadcast())
    }

    fn start_of_subnet(&self, addr: Ipv4Addr) -> Ipv4Addr {
        Ipv4Addr::from_bits(addr.to_bits() & (u32::MAX << (32 - self.subnet_len)))
    }

    fn check(&self, key: &'static str, asked: Ipv4Addr, default: Ipv4Addr) -> Result<Ipv4Addr, ConfigError> {
        let Self { network, subnet_len } = *self;
        let start = self.start_of_subnet(asked);
        if asked.is_unspecified() {
            Ok(default)
        } else if !network.contains(asked) {
            Err(ConfigError::OutOfRange { key, addr: asked, network })
        } else if asked != start {
            Err(ConfigError::NotOnBoundary { key, addr: asked, start, subnet_len })
        } else {
            Ok(asked)
        }
    }
}

#[cfg(test)]
mod tests;
