//! The network the hosts are on: one segment with a switch, and a second one behind a router.
//!
//! ```text
//!   lan, 192.168.77.0/24                      far, 192.168.88.0/24
//!   etcd .1   h1 .11   h2 .12   h3 .13   router .254 | .1   h4 .14
//! ```

pub mod extra;
mod host;
mod link;
mod node;
mod pod;
mod subnet_file;

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;
use ipnetwork::Ipv4Network;

pub use host::{Host, HostOptions, RpFilter};
pub use link::{Offloads, allow_super_packets, set_offloads};
pub use node::Node;
pub use pod::Pod;
pub use subnet_file::SubnetFile;

use crate::namespace::Namespace;

/// Name of the bridge the pods are behind.
pub const BRIDGE: &str = "cni0";

/// Where a host is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the segment of etcd.
    Near,
    /// Behind the router.
    Far,
}

/// The two segments. Interfaces are called after the host at their other end.
#[derive(Clone, Debug)]
pub struct Network {
    number: u32,
    near: Segment,
    far: Segment,
}

/// A switch with its hosts' addresses.
#[derive(Clone, Debug)]
struct Segment {
    namespace: Namespace,
    bridge: &'static str,
    network: Ipv4Network,
    gateway: Ipv4Addr,
}

/// Where etcd listens, on the near segment.
pub const ETCD_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
const NEAR_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 254);
const FAR_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 88, 1);

impl Network {
    /// Makes the segments and the router.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made.
    pub fn new() -> Result<Self> {
        static NETWORKS: AtomicU32 = AtomicU32::new(1);
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let near =
            Segment::new(Namespace::add(&format!("{number}-lan"))?, "lan", ETCD_ADDRESS, NEAR_GATEWAY)?;
        let router = Namespace::add(&format!("{number}-router"))?;
        near.plug_in(&router, "eth0", "router", NEAR_GATEWAY, None)?;
        router.sysctl("ipv4/ip_forward", "1")?;
        let far = Segment::new(router, "far", FAR_GATEWAY, FAR_GATEWAY)?;
        near.namespace.ip(&format!("route add {} via {NEAR_GATEWAY}", far.network))?;
        Ok(Self { number, near, far })
    }

    /// The number of this network in this process, in the names of its namespaces.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// The namespace of the near segment's switch; etcd lives there. The port of host `h1` is called `h1`.
    #[must_use]
    pub const fn lan(&self) -> &Namespace {
        &self.near.namespace
    }

    /// The namespace of the router, and of the far segment's switch.
    #[must_use]
    pub const fn router(&self) -> &Namespace {
        &self.far.namespace
    }

    const fn segment(&self, place: Place) -> &Segment {
        match place {
            Place::Near => &self.near,
            Place::Far => &self.far,
        }
    }
}

impl Segment {
    /// A switch in `namespace`, which has `address` on the segment itself.
    fn new(namespace: Namespace, bridge: &'static str, address: Ipv4Addr, gateway: Ipv4Addr) -> Result<Self> {
        let network = Ipv4Network::new(Ipv4Network::new(address, 24)?.network(), 24)?;
        link::add_bridge(&namespace, bridge)?;
        namespace.ip(&format!("address add {address}/24 dev {bridge}"))?;
        namespace.ip(&format!("link set {bridge} up"))?;
        Ok(Self { namespace, bridge, network, gateway })
    }

    /// Gives a machine an interface on this segment, at the port called `name`.
    fn plug_in(
        &self,
        machine: &Namespace,
        interface: &str,
        name: &str,
        address: Ipv4Addr,
        queues: Option<u8>,
    ) -> Result<()> {
        link::cable(machine, interface, &self.namespace, name, queues)?;
        self.namespace.ip(&format!("link set {name} master {} up", self.bridge))?;
        machine.ip(&format!("address add {address}/24 dev {interface}"))?;
        machine.ip(&format!("link set {interface} up"))?;
        Ok(())
    }

    /// The address with that last byte.
    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c, _] = self.network.network().octets();
        Ipv4Addr::new(a, b, c, last)
    }
}
