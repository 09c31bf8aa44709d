//! What hosts say of themselves in annotations of their nodes: names and values are stock flannel's, byte for byte.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use flannel_common::Mac;
use flannel_model::config::json::excerpt;
use flannel_model::family::{Addresses, Family, PerFamily};
use flannel_model::lease::{Attributes, Data, field};
use serde_json::Value;

/// The annotations of an object, or those of them that matter.
pub type Annotations = BTreeMap<String, String>;

/// What every annotation of flannel begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(String);

/// The prefix cannot begin an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Kubernetes takes one slash.
    #[error("subnet/kube: prefix can contain at most single slash")]
    Slashes,
    /// It is no domain name and beginning of a name.
    #[error(
        "subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*, such as flannel.alpha.coreos.com or \
         example.com/flannel"
    )]
    Format,
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// Completes a prefix as stock flannel does, so that names follow it directly.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let mut prefix = text.to_owned();
        match text.matches('/').count() {
            0 => prefix.push('/'),
            1 => {}
            _ => return Err(PrefixError::Slashes),
        }
        if !prefix.ends_with(['/', '-']) {
            prefix.push('-');
        }
        let (domain, beginning) = prefix.split_once('/').ok_or(PrefixError::Format)?;
        let is_word = |text: &str| {
            let is_allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
            !text.is_empty() && text.bytes().all(is_allowed)
        };
        let is_domain = domain.contains('.') && domain.split('.').all(is_word);
        let is_beginning = beginning.is_empty() || is_word(beginning) && beginning.len() > 1;
        if is_domain && is_beginning { Ok(Self(prefix)) } else { Err(PrefixError::Format) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The annotations, by what follows the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// `true` on every node that a flannel serves.
    Managed,
    /// The backend, in stock flannel's words.
    BackendType,
    /// What the backends of peers must know, of this family.
    BackendData(Family),
    /// The address at which the node is reached.
    PublicIp(Family),
    /// The same by the operator's will. It need not be one of the node's own.
    Overwrite(Family),
    /// A local address to announce, by the operator's will.
    Local(Family),
}

impl Name {
    /// What the daemon writes, with the values of another node's lease.
    const WRITTEN: [Self; 6] = [
        Self::Managed,
        Self::BackendType,
        Self::BackendData(Family::V4),
        Self::BackendData(Family::V6),
        Self::PublicIp(Family::V4),
        Self::PublicIp(Family::V6),
    ];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Managed => "kube-subnet-manager",
            Self::BackendType => "backend-type",
            Self::BackendData(Family::V4) => "backend-data",
            Self::BackendData(Family::V6) => "backend-v6-data",
            Self::PublicIp(Family::V4) => "public-ip",
            Self::PublicIp(Family::V6) => "public-ipv6",
            Self::Overwrite(Family::V4) => "public-ip-overwrite",
            Self::Overwrite(Family::V6) => "public-ipv6-overwrite",
            Self::Local(Family::V4) => "node-public-ip",
            Self::Local(Family::V6) => "node-public-ipv6",
        }
    }
}

/// An annotation cannot be read as what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} is no {expected}: {value}")]
pub(crate) struct Junk {
    name: String,
    expected: &'static str,
    value: String,
}

impl Prefix {
    /// The whole name of an annotation.
    pub(crate) fn name(&self, name: Name) -> String {
        format!("{}{}", self.0, name.suffix())
    }

    pub(crate) fn get<'a>(&self, annotations: &'a Annotations, name: Name) -> Option<&'a str> {
        annotations.get(&self.name(name)).map(String::as_str)
    }

    /// Those of flannel.
    pub(crate) fn select(&self, annotations: Annotations) -> Annotations {
        annotations.into_iter().filter(|(name, _)| name.starts_with(&self.0)).collect()
    }

    /// Whether a flannel serves the node.
    pub(crate) fn is_managed(&self, annotations: &Annotations) -> bool {
        self.get(annotations, Name::Managed) == Some("true")
    }

    /// What a node says of itself. Junk spoils only what it stands for.
    pub(crate) fn read(&self, annotations: &Annotations) -> (Attributes, PerFamily<Junk>) {
        let mut junk = PerFamily::NONE;
        let mut public = Addresses::NONE;
        let mut backend_data = PerFamily::NONE;
        for family in Family::ALL {
            match self.address(annotations, Name::PublicIp(family), family) {
                Ok(Some(IpAddr::V4(address))) => public.v4 = Some(address),
                Ok(Some(IpAddr::V6(address))) => public.v6 = Some(address),
                Ok(None) => {}
                Err(error) => junk.set(family, Some(error)),
            }
            match self.data(annotations, family) {
                Ok(data) => backend_data.set(family, data),
                Err(error) => junk.set(family, Some(error)),
            }
        }
        let backend_type =
            self.get(annotations, Name::BackendType).filter(|text| !text.is_empty()).map(str::to_owned);
        (Attributes { public, backend_type, backend_data }, junk)
    }

    /// An address; nothing where none is given. `0.0.0.0` stands for none where a host has only IPv6.
    fn address(&self, annotations: &Annotations, name: Name, family: Family) -> Result<Option<IpAddr>, Junk> {
        let Some(text) = self.get(annotations, name).filter(|text| !text.is_empty()) else { return Ok(None) };
        let (parsed, expected) = match family {
            Family::V4 => (text.parse::<Ipv4Addr>().ok().map(IpAddr::V4), "IPv4 address"),
            Family::V6 => (text.parse::<Ipv6Addr>().ok().map(IpAddr::V6), "IPv6 address"),
        };
        let address = parsed.ok_or_else(|| self.junk(name, expected, text))?;
        Ok(Some(address).filter(|address| !address.is_unspecified()))
    }

    fn data(&self, annotations: &Annotations, family: Family) -> Result<Option<Data>, Junk> {
        let name = Name::BackendData(family);
        let Some(text) = self.get(annotations, name).filter(|text| !text.is_empty()) else { return Ok(None) };
        if text.len() > Attributes::MAX_LEN {
            return Err(self.junk(name, "backend's data: it is too long", text));
        }
        let value: Value = serde_json::from_str(text).map_err(|_| self.junk(name, "JSON", text))?;
        Ok(Some(value).filter(|value| !value.is_null()).as_ref().map(Data::from))
    }

    fn junk(&self, name: Name, expected: &'static str, value: &str) -> Junk {
        Junk { name: self.name(name), expected, value: excerpt(value) }
    }

    /// The addresses that the operator has this node announce, whether or not they are its own.
    pub(crate) fn overwrites(&self, annotations: &Annotations) -> Addresses {
        self.addresses(annotations, Name::Overwrite)
    }

    /// The local addresses that the operator has this node announce.
    pub(crate) fn local(&self, annotations: &Annotations) -> Addresses {
        self.addresses(annotations, Name::Local)
    }

    fn addresses(&self, annotations: &Annotations, name: fn(Family) -> Name) -> Addresses {
        let mut addresses = Addresses::NONE;
        for family in Family::ALL {
            match self.address(annotations, name(family), family) {
                Ok(Some(IpAddr::V4(address))) => addresses.v4 = Some(address),
                Ok(Some(IpAddr::V6(address))) => addresses.v6 = Some(address),
                Ok(None) => {}
                Err(junk) => tracing::warn!("ignoring an annotation of this node: {junk}"),
            }
        }
        addresses
    }

    /// The Ethernet addresses of the node's VTEPs, as far as it names any.
    pub(crate) fn vtep_macs(&self, annotations: &Annotations) -> PerFamily<Mac> {
        let mac = |family| {
            let value = self.data(annotations, family).ok().flatten()?.value();
            let text = field(value.as_object()?, "VtepMAC")?.as_str()?.to_owned();
            text.parse().ok().filter(|mac: &Mac| mac.is_unicast())
        };
        PerFamily { v4: mac(Family::V4), v6: mac(Family::V6) }
    }

    /// What is to be written so that the annotations say `attributes`: only what differs.
    pub(crate) fn changes(&self, annotations: &Annotations, attributes: &Attributes) -> Annotations {
        let mut wanted = self.written(attributes);
        wanted.retain(|name, value| annotations.get(name) != Some(value));
        wanted
    }

    /// The annotations of a host that says `attributes` of itself. As with stock flannel, a backend with a device for
    /// each family says nothing of the family without one, and every other one says `null` of IPv4.
    fn written(&self, attributes: &Attributes) -> Annotations {
        let Attributes { public, backend_type, backend_data } = attributes;
        let has_devices = !backend_data.is_empty();
        let mut written = Annotations::new();
        let mut write = |name, value: String| written.insert(self.name(name), value);
        write(Name::Managed, "true".to_owned());
        write(Name::BackendType, backend_type.clone().unwrap_or_default());
        if backend_data.v4.is_some() || !has_devices {
            let data = backend_data.v4.as_ref().map_or_else(|| "null".to_owned(), Data::to_string);
            let address = public.v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
            write(Name::BackendData(Family::V4), data);
            write(Name::PublicIp(Family::V4), address.to_string());
        }
        let v6_data = backend_data.v6.as_ref().map(Data::to_string);
        let is_host_gw = backend_type.as_deref() == Some("host-gw");
        if let (Some(address), Some(data)) =
            (public.v6, v6_data.or_else(|| is_host_gw.then(|| "null".to_owned())))
        {
            write(Name::BackendData(Family::V6), data);
            write(Name::PublicIp(Family::V6), address.to_string());
        }
        written
    }

    /// The names of what the daemon writes.
    pub(crate) fn written_names(&self) -> impl Iterator<Item = String> {
        Name::WRITTEN.into_iter().map(|name| self.name(name))
    }
}

#[cfg(test)]
mod tests;
