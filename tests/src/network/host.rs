//! A host: a machine on a segment, with a bridge for its pods.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{BRIDGE, Network, Offloads, Place, SubnetFile, link, set_offloads};
use crate::namespace::Namespace;
use crate::traffic::Endpoint;

/// Whether a packet is dropped whose source would not be reached by the interface it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RpFilter {
    /// Never.
    #[default]
    Off,
    /// Unless it would be reached by any (RFC 3704, loose), as systemd sets it.
    Loose,
    /// Always (RFC 3704, strict).
    Strict,
}

/// What a host is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostOptions {
    /// Check of sources on all its interfaces.
    pub rp_filter: RpFilter,
    /// Offloads of both ends of its cable.
    pub offloads: Offloads,
    /// Queues of both ends of its cable, for each direction; where none are stated, as many as the kernel makes.
    pub queues: Option<u8>,
}

/// A machine that forwards packets, with `eth0` as its interface on the segment.
#[derive(Clone, Debug)]
pub struct Host {
    /// `h1` and so on.
    pub name: String,
    /// Where it is plugged in.
    pub place: Place,
    /// Its network namespace.
    pub namespace: Namespace,
    /// Its address on the segment.
    pub address: Ipv4Addr,
    queues: Option<u8>,
    label: String,
}

impl Host {
    /// Plugs in a host whose address ends in 10 + `number` and which is called `h<number>`.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made.
    pub fn new(network: &Network, place: Place, number: u8, options: HostOptions) -> Result<Self> {
        let segment = network.segment(place);
        let host = Self::unplugged(network, place, number, segment.address(10 + number), options)?;
        host.plug_in(network)?;
        set_offloads(&host.namespace, "eth0", options.offloads)?;
        set_offloads(&segment.namespace, &host.name, options.offloads)?;
        Ok(host)
    }

    /// Two hosts with nothing but a cable between them, for measurements: a switch would be part of every path.
    /// They are number `first` and the next one. `etcd0` leads each to etcd, and nowhere else.
    ///
    /// # Errors
    /// Namespaces or interfaces cannot be made.
    pub fn pair(network: &Network, first: u8) -> Result<[Self; 2]> {
        let (near, address) = (network.segment(Place::Near), |last| Ipv4Addr::new(192, 168, 99, last));
        let host = |number, last| {
            let host = Self::unplugged(network, Place::Near, number, address(last), HostOptions::default())?;
            near.plug_in(&host.namespace, "etcd0", &host.name, near.address(10 + number), None)?;
            anyhow::Ok(host)
        };
        let pair = [host(first, 1)?, host(first + 1, 2)?];
        link::cable(&pair[0].namespace, "eth0", &pair[1].namespace, "eth0", None)?;
        for host in &pair {
            host.namespace.ip(&format!("address add {}/24 dev eth0", host.address))?;
            host.namespace.ip("link set eth0 up")?;
        }
        Ok(pair)
    }

    /// This machine itself as a host, with the card `eth0` that it has.
    ///
    /// # Errors
    /// It has none, or it is not to be set up.
    pub fn of_this_machine(number: u8, address: Ipv4Addr) -> Result<Self> {
        let label = format!("m-h{number}");
        let namespace = Namespace::own(&label)?;
        // What the card was made with stays beside what the default becomes.
        namespace.sysctl("ipv4/conf/eth0/rp_filter", "0")?;
        let host =
            Self::in_namespace(namespace, label, Place::Near, number, address, HostOptions::default())?;
        host.namespace.ip(&format!("address add {address}/24 dev eth0"))?;
        host.namespace.ip("link set eth0 up")?;
        Ok(host)
    }

    fn unplugged(
        network: &Network,
        place: Place,
        number: u8,
        address: Ipv4Addr,
        options: HostOptions,
    ) -> Result<Self> {
        let label = format!("{}-h{number}", network.number());
        Self::in_namespace(Namespace::add(&label)?, label, place, number, address, options)
    }

    fn in_namespace(
        namespace: Namespace,
        label: String,
        place: Place,
        number: u8,
        address: Ipv4Addr,
        options: HostOptions,
    ) -> Result<Self> {
        let name = format!("h{number}");
        let rp_filter = match options.rp_filter {
            RpFilter::Off => "0",
            RpFilter::Loose => "2",
            RpFilter::Strict => "1",
        };
        for interface in ["all", "default"] {
            namespace.sysctl(&format!("ipv4/conf/{interface}/rp_filter"), rp_filter)?;
        }
        namespace.sysctl("ipv4/ip_forward", "1")?;
        Ok(Self { name, place, namespace, address, queues: options.queues, label })
    }

    /// Gives it `eth0` on its segment, which it has lost.
    ///
    /// # Errors
    /// It has one.
    pub fn plug_in(&self, network: &Network) -> Result<()> {
        let segment = network.segment(self.place);
        segment.plug_in(&self.namespace, "eth0", &self.name, self.address, self.queues)?;
        self.namespace.ip(&format!("route add default via {}", segment.gateway))?;
        Ok(())
    }

    /// What the names of its namespaces, directories and pins begin with.
    #[must_use]
    pub const fn label(&self) -> &str {
        self.label.as_str()
    }

    /// The host itself as an end of traffic, at its underlay address.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { name: self.name.clone(), namespace: self.namespace.clone(), address: self.address }
    }

    /// Makes the bridge the subnet file asks for, as the CNI bridge plugin does.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn add_bridge(&self, file: &SubnetFile) -> Result<()> {
        link::add_bridge(&self.namespace, BRIDGE)?;
        self.namespace.ip(&format!("address add {}/{} dev {BRIDGE}", file.bridge, file.subnet.prefix()))?;
        self.namespace.ip(&format!("link set {BRIDGE} mtu {} up", file.mtu))?;
        Ok(())
    }
}
