//! A host without any daemon of ours: the kernel's vxlan device, set up as stock flannel does.

use anyhow::{Context as _, Result};

use crate::etcd::Etcd;
use crate::leases::{self, Lease};
use crate::network::{Host, Node, SubnetFile};

/// What the outer headers of VXLAN over IPv4 add, in bytes.
const OVERHEAD: u32 = 50;

/// A host that speaks VXLAN by the kernel alone.
#[derive(Debug)]
pub struct VxlanHost {
    /// The host and its pods.
    pub node: Node,
    lease: Lease,
}

impl VxlanHost {
    /// Makes the device and the pods, and writes the lease. Peers are known after [`VxlanHost::learn`].
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made; etcd cannot be reached.
    pub fn join(host: &Host, etcd: &Etcd, prefix: &str, file: SubnetFile, pods: u8) -> Result<Self> {
        let host = Self::new(host, file, pods)?;
        host.lease.write(etcd, prefix)?;
        Ok(host)
    }

    /// Makes the device and the pods, of which nobody is told.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made.
    pub fn new(host: &Host, file: SubnetFile, pods: u8) -> Result<Self> {
        let mac = make_device(host, file, (1, 8472))?;
        let lease = Lease { subnet: file.subnet, public_ip: host.address, vtep_mac: Some(mac) };
        Ok(Self { node: Node::new(host.clone(), file, pods)?, lease })
    }

    /// Goes over to another network identifier and UDP port, as stock flannel does when it is restarted: the device is
    /// made again, with another Ethernet address, the lease is written, and peers are learned.
    ///
    /// # Errors
    /// The device cannot be made; etcd cannot be reached.
    pub fn restart_as(&mut self, format: (u32, u16), etcd: &Etcd, prefix: &str) -> Result<()> {
        let host = &self.node.host;
        host.namespace.ip(&format!("link delete {DEVICE}"))?;
        self.lease.vtep_mac = Some(make_device(host, self.node.file, format)?);
        let value = self.lease.value().replace(r#""VNI":1"#, &format!(r#""VNI":{}"#, format.0));
        etcd.put(&self.lease.key(prefix), &value)?;
        self.learn(etcd, prefix)
    }

    /// Learns the peers whose leases stand in etcd now: a neighbour, a forwarding entry and a route each.
    ///
    /// # Errors
    /// etcd cannot be reached; a lease names no VTEP.
    pub fn learn(&self, etcd: &Etcd, prefix: &str) -> Result<()> {
        leases::list(etcd, prefix)?
            .iter()
            .filter(|peer| **peer != self.lease)
            .try_for_each(|peer| self.reach(peer))
    }

    /// The lease it would have.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Learns a peer.
    ///
    /// # Errors
    /// Its lease names no VTEP.
    pub fn reach(&self, peer: &Lease) -> Result<()> {
        let (machine, subnet) = (&self.node.host.namespace, peer.subnet);
        let (gateway, public_ip) = (subnet.network(), peer.public_ip);
        let mac = peer.vtep_mac.as_ref().with_context(|| format!("the lease of {subnet} names no VTEP"))?;
        machine.ip(&format!("neighbour replace {gateway} lladdr {mac} dev flannel.1 nud permanent"))?;
        machine.run("bridge", &format!("fdb replace {mac} dev flannel.1 dst {public_ip} self permanent"))?;
        machine.ip(&format!("route replace {subnet} via {gateway} dev flannel.1 onlink"))?;
        Ok(())
    }
}

/// Its name matters to nobody else.
const DEVICE: &str = "flannel.1";

/// Makes the device of that network identifier and UDP port; returns its Ethernet address.
fn make_device(host: &Host, file: SubnetFile, (vni, port): (u32, u16)) -> Result<String> {
    let machine = &host.namespace;
    machine.ip(&format!(
        "link add {DEVICE} type vxlan id {vni} local {} dev eth0 srcport 0 0 dstport {port} nolearning ttl auto",
        host.address
    ))?;
    machine.ip(&format!("address add {}/32 dev {DEVICE}", file.subnet.network()))?;
    machine.ip(&format!("link set {DEVICE} mtu {} up", file.mtu))?;
    let shown = machine.ip(&format!("-brief link show {DEVICE}"))?;
    Ok(shown.split_whitespace().nth(2).context("the device has no Ethernet address")?.to_owned())
}

/// The MTU of pods whose packets go through VXLAN over a link of 1500 bytes.
pub const MTU: u32 = 1500 - OVERHEAD;
