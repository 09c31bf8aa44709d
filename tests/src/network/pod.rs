//! A pod: a machine behind a host's bridge.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};

use super::{BRIDGE, Host, SubnetFile, link};
use crate::namespace::Namespace;
use crate::traffic::Endpoint;

/// A machine with an address of a host's subnet.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The pod as an end of traffic.
    pub endpoint: Endpoint,
    /// Name of the host's port to it.
    pub port: String,
}

impl Pod {
    /// Puts pod number `number`, counted from 1, behind the bridge of `host`, with everything the subnet
    /// file says.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made; the subnet is too small.
    pub fn new(host: &Host, file: &SubnetFile, number: u8) -> Result<Self> {
        let address = Ipv4Addr::from_bits(file.bridge.to_bits() + u32::from(number));
        if !file.subnet.contains(address) {
            bail!("{} has no address for pod {number}", file.subnet);
        }
        let port = format!("pod{number}");
        let namespace = Namespace::add(&format!("{}-p{number}", host.label()))?;
        link::cable(&namespace, "eth0", &host.namespace, &port, None)?;
        host.namespace.ip(&format!("link set {port} mtu {} master {BRIDGE} up", file.mtu))?;
        namespace.ip(&format!("address add {address}/{} dev eth0", file.subnet.prefix()))?;
        namespace.ip(&format!("link set eth0 mtu {} up", file.mtu))?;
        namespace.ip(&format!("route add default via {}", file.bridge))?;
        let name = format!("{}p{number}", host.name);
        Ok(Self { endpoint: Endpoint { name, namespace, address }, port })
    }
}
