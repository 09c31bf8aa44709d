//! The paths that are measured: the one place to add another.

use super::link::Link;

/// A path from one host to the other.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// For people, and for `--paths`.
    pub name: &'static str,
    /// What carries the packets.
    pub carrier: Carrier,
    /// The links it is measured on.
    pub links: &'static [Link],
    /// Whether the short form measures it.
    pub quick: bool,
}

/// What carries packets between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// Nothing: from host to host.
    Cable,
    /// The kernel's vxlan device between pods, set up as stock flannel does.
    KernelVxlan {
        /// Whether with its rules for `--ip-masq`, by which every connection is tracked.
        masquerades: bool,
    },
    /// A TUN device and a process between pods, as in stock flannel's udp backend.
    TunProxy,
    /// flanneld's datapath between pods.
    Flanneld {
        /// The backend's configuration, JSON.
        backend: &'static str,
        /// Flags of both daemons.
        flags: &'static [&'static str],
    },
    /// The same with the vxlan backend, while `flannelctl trace` runs on both hosts.
    Traced {
        /// Flags of both daemons.
        flags: &'static [&'static str],
        /// What is traced, as flags of it.
        trace: &'static str,
    },
}

const UDP: &str = r#"{"Type":"udp"}"#;
const UDP_DIRECT: &str = r#"{"Type":"udp","DirectRouting":true}"#;
/// The backend that is traced.
pub const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const DIRECT_ROUTING: &str = r#"{"Type":"vxlan","DirectRouting":true}"#;
const HOST_GW: &str = r#"{"Type":"host-gw"}"#;

const MASQUERADE: &[&str] = &["--ip-masq"];
const MASQUERADE_NO_BYPASS: &[&str] = &["--ip-masq", "--pod-bypass=off"];
const NO_BYPASS: &[&str] = &["--pod-bypass=off"];
const CLSACT: &[&str] = &["--pod-bypass=off", "--datapath-hook=clsact"];
const XDP: &[&str] = &["--pod-bypass=off", "--datapath-hook=xdp"];
const XDP_GENERIC: &[&str] = &["--pod-bypass=off", "--datapath-hook=xdp-generic"];
const NO_COUNTERS: &[&str] = &["--pod-bypass=off", "--datapath-counters=false"];
const NO_GUARD: &[&str] = &["--pod-bypass=off", "--guard=off"];

/// From host to host.
pub const DIRECT: &str = "direct";
/// What stock flannel's vxlan backend sets up.
pub const KERNEL_VXLAN: &str = "kernel vxlan";
/// The same with `--ip-masq`, as in most clusters.
pub const KERNEL_VXLAN_MASQUERADE: &str = "kernel vxlan, masquerade";
/// What stock flannel's udp backend is.
pub const TUN_PROXY: &str = "TUN proxy";
/// Routes, as both flannels set them up.
pub const ROUTES: &str = "host-gw";

/// All of them.
pub const PATHS: &[Path] = &[
    Path { name: DIRECT, carrier: Carrier::Cable, links: Link::ALL, quick: true },
    Path { name: ROUTES, carrier: flanneld(HOST_GW, NO_BYPASS), links: Link::ALL, quick: true },
    Path {
        name: KERNEL_VXLAN,
        carrier: Carrier::KernelVxlan { masquerades: false },
        links: Link::ALL,
        quick: true,
    },
    Path { name: TUN_PROXY, carrier: Carrier::TunProxy, links: Link::ALL, quick: true },
    Path { name: "host-gw, bypass", carrier: flanneld(HOST_GW, &[]), links: Link::FAST, quick: true },
    Path { name: "vxlan", carrier: flanneld(VXLAN, NO_BYPASS), links: Link::ALL, quick: true },
    Path { name: "vxlan, bypass", carrier: flanneld(VXLAN, &[]), links: Link::FAST, quick: true },
    Path { name: "vxlan, clsact", carrier: flanneld(VXLAN, CLSACT), links: Link::FAST, quick: false },
    Path { name: "vxlan, xdp", carrier: flanneld(VXLAN, XDP), links: Link::FAST, quick: false },
    Path {
        name: "vxlan, xdp generic",
        carrier: flanneld(VXLAN, XDP_GENERIC),
        links: Link::FAST,
        quick: false,
    },
    Path { name: "vxlan, no counters", carrier: flanneld(VXLAN, NO_COUNTERS), links: VETH, quick: false },
    Path {
        name: "vxlan, bypass, no counters",
        carrier: flanneld(VXLAN, &["--datapath-counters=false"]),
        links: VETH,
        quick: false,
    },
    // Every packet is compared with the filter, and none matches.
    Path { name: "vxlan, traced", carrier: traced("--reason ttl_exceeded"), links: VETH, quick: false },
    Path { name: "vxlan, sampled", carrier: traced("--every 1000"), links: VETH, quick: false },
    Path { name: "vxlan, no guard", carrier: flanneld(VXLAN, NO_GUARD), links: Link::FAST, quick: false },
    Path {
        name: "vxlan, DirectRouting",
        carrier: flanneld(DIRECT_ROUTING, NO_BYPASS),
        links: Link::SLOW,
        quick: false,
    },
    Path { name: "udp", carrier: flanneld(UDP, NO_BYPASS), links: Link::ALL, quick: true },
    Path { name: "udp, bypass", carrier: flanneld(UDP, &[]), links: Link::FAST, quick: true },
    Path {
        name: "udp, DirectRouting",
        carrier: flanneld(UDP_DIRECT, NO_BYPASS),
        links: Link::SLOW,
        quick: false,
    },
    Path {
        name: KERNEL_VXLAN_MASQUERADE,
        carrier: Carrier::KernelVxlan { masquerades: true },
        links: VETH,
        quick: false,
    },
    Path {
        name: "host-gw, masquerade",
        carrier: flanneld(HOST_GW, MASQUERADE_NO_BYPASS),
        links: VETH,
        quick: false,
    },
    Path {
        name: "vxlan, masquerade",
        carrier: flanneld(VXLAN, MASQUERADE_NO_BYPASS),
        links: VETH,
        quick: false,
    },
    Path {
        name: "vxlan, bypass, masquerade",
        carrier: flanneld(VXLAN, MASQUERADE),
        links: VETH,
        quick: false,
    },
    Path { name: "udp, bypass, masquerade", carrier: flanneld(UDP, MASQUERADE), links: VETH, quick: false },
    Path { name: "udp, clsact", carrier: flanneld(UDP, CLSACT), links: Link::FAST, quick: false },
    Path { name: "udp, xdp", carrier: flanneld(UDP, XDP), links: Link::FAST, quick: false },
    Path { name: "udp, xdp generic", carrier: flanneld(UDP, XDP_GENERIC), links: Link::FAST, quick: false },
];

/// What programs and rules do besides is measured where they are the larger part.
const VETH: &[Link] = &[Link::Veth];

const fn traced(trace: &'static str) -> Carrier {
    Carrier::Traced { flags: NO_BYPASS, trace }
}

const fn flanneld(backend: &'static str, flags: &'static [&'static str]) -> Carrier {
    Carrier::Flanneld { backend, flags }
}
