//! The subnet file: says to the container runtime, the CNI plugin and the next start of the daemon which subnet this
//! host leases.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use flannel_model::config::cidr;
use flannel_model::family::Subnets;
use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::file;

const NETWORK: &str = "FLANNEL_NETWORK";
const SUBNET: &str = "FLANNEL_SUBNET";
const IPV6_NETWORK: &str = "FLANNEL_IPV6_NETWORK";
const IPV6_SUBNET: &str = "FLANNEL_IPV6_SUBNET";
const MTU: &str = "FLANNEL_MTU";
const IP_MASQ: &str = "FLANNEL_IPMASQ";

/// Larger than any subnet file; the rest of a larger file is not read.
const LONGEST: u64 = 64 * 1024;

/// What is written. `Display` gives the bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetFile {
    /// The networks all subnets are cut from.
    pub networks: Subnets,
    /// The leased subnets. The file has their first address but one in their place, which is the address of
    /// the bridge.
    pub subnets: Subnets,
    /// Largest packet a pod may send, in bytes.
    pub mtu: u32,
    /// Whether this daemon masquerades, so that the bridge's owner must not.
    pub ip_masq: bool,
}

/// Where the subnet file is kept.
pub trait Store: Send {
    /// Writes the file, unless it already has this content.
    ///
    /// # Errors
    /// The file system refuses.
    fn keep(&self, file: &SubnetFile) -> Result<(), SubnetFileError>;
}

impl Store for PathBuf {
    fn keep(&self, file: &SubnetFile) -> Result<(), SubnetFileError> {
        let now = read(self).ok().flatten().unwrap_or_default();
        if file.text_beside(&now) == now { Ok(()) } else { file.write(self) }
    }
}

/// The content of a file of an earlier daemon, ours or stock flannel's, as far as it can be parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// `FLANNEL_NETWORK`: the valid ones of a list with commas, host bits cleared.
    pub networks: Vec<Ipv4Network>,
    /// `FLANNEL_SUBNET`: the same.
    pub subnets: Vec<Ipv4Network>,
    /// `FLANNEL_IPV6_SUBNET`, the same.
    pub ipv6_subnets: Vec<Ipv6Network>,
    /// `FLANNEL_MTU`
    pub mtu: Option<u32>,
    /// `FLANNEL_IPMASQ`
    pub ip_masq: Option<bool>,
}

/// The file was not written or not read.
#[derive(Debug, thiserror::Error)]
pub enum SubnetFileError {
    /// The directory is absent and cannot be made.
    #[error("cannot create the directory {directory} of the subnet file: choose another --subnet-file")]
    CreateDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// The file beside it, or the renaming, failed.
    #[error(
        "cannot write the subnet file {path}: make its directory writable, or choose another --subnet-file"
    )]
    Write {
        /// The subnet file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// There is a file, but it cannot be read.
    #[error("cannot read the subnet file {path}: make it a readable file, or choose another --subnet-file")]
    Read {
        /// The subnet file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SubnetFile {
    /// Replaces the file at `path` in one step: a reader sees all of it, or the former one. It is readable by
    /// everybody; its directory is created if it is absent. Lines that others have added stay behind ours.
    ///
    /// # Errors
    /// The file system refuses. What was at `path` is still there.
    pub fn write(&self, path: &Path) -> Result<(), SubnetFileError> {
        file::create_directory_of(path).map_err(|source| SubnetFileError::CreateDirectory {
            directory: file::directory_of(path).to_owned(),
            source,
        })?;
        // Independent of the umask: the CNI plugin may run as another user.
        let now = read(path).ok().flatten().unwrap_or_default();
        file::replace(path, self.text_beside(&now).as_bytes(), file::PUBLIC)
            .map_err(|source| SubnetFileError::Write { path: path.to_owned(), source })
    }

    /// The file, in the place of what is ours of `now`. `mk-docker-opts.sh -d` adds Docker's options to the file it
    /// read the subnet from.
    fn text_beside(&self, now: &str) -> String {
        let mut text = self.to_string();
        for line in now.lines().filter(|line| is_of_others(line)) {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// Whether a line sets a variable that is not ours, or is a comment. Our own go, also those of a family that is not
/// served any more, and so does what is neither.
fn is_of_others(line: &str) -> bool {
    let ours = [NETWORK, SUBNET, IPV6_NETWORK, IPV6_SUBNET, MTU, IP_MASQ];
    line.starts_with('#') || assignment(line).is_some_and(|(key, _)| !ours.contains(&key))
}

/// The text at `path`; nothing if there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl fmt::Display for SubnetFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(network), Some(subnet)) = (self.networks.v4, self.subnets.v4) {
            let bridge = Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1));
            writeln!(f, "{NETWORK}={}", cidr::masked_v4(network))?;
            writeln!(f, "{SUBNET}={bridge}/{}", subnet.prefix())?;
        }
        if let (Some(network), Some(subnet)) = (self.networks.v6, self.subnets.v6) {
            let bridge = Ipv6Addr::from_bits(subnet.network().to_bits().saturating_add(1));
            writeln!(f, "{IPV6_NETWORK}={}", cidr::masked(network.into()))?;
            writeln!(f, "{IPV6_SUBNET}={bridge}/{}", subnet.prefix())?;
        }
        writeln!(f, "{MTU}={}", self.mtu)?;
        writeln!(f, "{IP_MASQ}={}", self.ip_masq)
    }
}

impl Previous {
    /// Reads the file at `path`; nothing if there is none.
    ///
    /// # Errors
    /// There is one, but it cannot be read. What it says is never an error.
    pub fn read(path: &Path) -> Result<Option<Self>, SubnetFileError> {
        let text = read(path).map_err(|source| SubnetFileError::Read { path: path.to_owned(), source })?;
        Ok(text.as_deref().map(Self::parse))
    }

    /// The subnets this host leased, of each family if the file names exactly one of it.
    #[must_use]
    pub fn previous_subnets(&self) -> Subnets {
        Subnets { v4: only_one(&self.subnets), v6: only_one(&self.ipv6_subnets) }
    }

    /// Reads lines of the form `KEY=value`, also with `export` before and quotes around, and skips all
    /// others. The last of several lines with one key counts.
    fn parse(text: &str) -> Self {
        let mut previous = Self::default();
        for (key, value) in text.lines().filter_map(assignment) {
            match key {
                NETWORK => previous.networks = cidr_list(value),
                SUBNET => previous.subnets = cidr_list(value),
                IPV6_SUBNET => previous.ipv6_subnets = ipv6_cidr_list(value),
                MTU => previous.mtu = value.parse().ok(),
                IP_MASQ => previous.ip_masq = value.parse().ok(),
                _ => {}
            }
        }
        previous
    }
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let key = key.strip_prefix("export ").map_or(key, str::trim_start);
    Some((key, unquoted(value.trim())))
}

/// The text in quotes, or before a comment.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)) {
            return inside;
        }
    }
    value.split_once(" #").map_or(value, |(before, _)| before.trim_end())
}

fn cidr_list(value: &str) -> Vec<Ipv4Network> {
    value.split(',').filter_map(|text| cidr::parse(text.trim()).ok()).map(cidr::masked_v4).collect()
}

fn ipv6_cidr_list(value: &str) -> Vec<Ipv6Network> {
    let networks = value.split(',').filter_map(|text| text.trim().parse().ok());
    networks
        .filter_map(|network: Ipv6Network| Ipv6Network::new(network.network(), network.prefix()).ok())
        .collect()
}

fn only_one<N: Copy>(networks: &[N]) -> Option<N> {
    match networks {
        [network] => Some(*network),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
