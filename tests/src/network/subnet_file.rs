//! The subnet file as the CNI plugin reads it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, anyhow};
use ipnetwork::Ipv4Network;

/// The subnet file, read as the CNI plugin reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetFile {
    /// The network of all pods.
    pub network: Ipv4Network,
    /// This host's part of it.
    pub subnet: Ipv4Network,
    /// The bridge's address.
    pub bridge: Ipv4Addr,
    /// Largest packet of a pod, in bytes.
    pub mtu: u32,
    /// Whether the daemon masquerades.
    pub ip_masq: bool,
}

impl SubnetFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// There is none, or it lacks something.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("no subnet file {}", path.display()))?;
        text.parse().with_context(|| format!("{}:\n{text}", path.display()))
    }
}

impl FromStr for SubnetFile {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.ok_or_else(|| anyhow!("{key} is missing"))
        };
        let bridge: Ipv4Network = value("FLANNEL_SUBNET")?.parse()?;
        Ok(Self {
            network: value("FLANNEL_NETWORK")?.parse()?,
            subnet: Ipv4Network::new(bridge.network(), bridge.prefix())?,
            bridge: bridge.ip(),
            mtu: value("FLANNEL_MTU")?.parse()?,
            ip_masq: value("FLANNEL_IPMASQ")?.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::SubnetFile;

    #[test]
    fn file_of_stock_flannel() {
        let text = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.18.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
        let file: SubnetFile = text.parse().unwrap();
        assert_eq!(file.subnet.to_string(), "10.5.18.0/24");
        assert_eq!(file.bridge.to_string(), "10.5.18.1");
        assert_eq!((file.mtu, file.ip_masq), (1450, true));
        let error = text.replace("MTU", "MT").parse::<SubnetFile>().unwrap_err();
        assert_eq!(error.to_string(), "FLANNEL_MTU is missing");
    }
}
