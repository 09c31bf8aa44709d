//! One policy, and which packets of a tunnel it concerns.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::Ipv4Network;
use netlink_packet_xfrm::policy::ModifyMessage;
use netlink_packet_xfrm::{
    AF_INET, Address, IPPROTO_UDP, Selector, UserPolicyDefault, XFRM_POLICY_ALLOW, XFRM_POLICY_IN,
    XFRM_POLICY_OUT, XfrmAttrs,
};

/// `XFRM_USERPOLICY_BLOCK`
const DEFAULT_BLOCK: u8 = 1;
/// The selector's protocol that stands for any.
const ANY: u8 = 0;

/// Every address of IPv4.
const EVERYTHING: Ipv4Network = match Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0) {
    Some(network) => network,
    None => unreachable!(),
};

/// Which packets are compared with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that the host takes.
    In,
    /// Those that the host sends.
    Out,
}

/// This host's end of a tunnel through UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its address.
    pub local: Ipv4Addr,
    /// The UDP port at every end.
    pub port: u16,
}

/// A policy that transforms or blocks the packets it selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    direction: Direction,
    /// Nothing for the default policy, which selects what no other one does.
    selector: Option<Selected>,
    blocks: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Selected {
    source: Ipv4Network,
    destination: Ipv4Network,
    protocol: u8,
    /// A port and a mask of its bits that count.
    source_port: (u16, u16),
    destination_port: (u16, u16),
}

impl Policy {
    /// The policy of a message; nothing for one that lets everything pass as it is, is of another family, is for what
    /// the host forwards or for one socket, or is for an interface of its own (`XFRMA_IF_ID`).
    pub(super) fn of(message: &ModifyMessage) -> Option<Self> {
        let info = &message.user_policy_info;
        let direction = match info.direction {
            XFRM_POLICY_IN => Direction::In,
            XFRM_POLICY_OUT => Direction::Out,
            _ => return None,
        };
        let transforms =
            |attribute: &XfrmAttrs| matches!(attribute, XfrmAttrs::Template(all) if !all.is_empty());
        let is_elsewhere = |attribute: &XfrmAttrs| matches!(attribute, XfrmAttrs::IfId(id) if *id != 0);
        let blocks = info.action != XFRM_POLICY_ALLOW;
        let is_harmless = !blocks && !message.nlas.iter().any(transforms);
        if info.selector.family != AF_INET || is_harmless || message.nlas.iter().any(is_elsewhere) {
            return None;
        }
        Some(Self { direction, selector: Some(Selected::of(&info.selector)), blocks })
    }

    /// The default policies that block.
    pub(super) fn of_defaults(defaults: UserPolicyDefault) -> impl Iterator<Item = Self> {
        let both = [(Direction::In, defaults.input), (Direction::Out, defaults.output)];
        let blocking = both.into_iter().filter(|(_, action)| *action == DEFAULT_BLOCK);
        blocking.map(|(direction, _)| Self { direction, selector: None, blocks: true })
    }

    /// Whether it may select a packet of `tunnel` between this host and `peer`. Marks, users and interfaces are not
    /// looked at: the stack decides by them.
    #[must_use]
    pub fn concerns(&self, tunnel: Tunnel, peer: Ipv4Addr) -> bool {
        let Some(selected) = &self.selector else { return true };
        let (source, destination) = match self.direction {
            Direction::Out => (tunnel.local, peer),
            Direction::In => (peer, tunnel.local),
        };
        let (port, mask) = selected.destination_port;
        selected.source.contains(source)
            && selected.destination.contains(destination)
            && [ANY, IPPROTO_UDP].contains(&selected.protocol)
            && (port ^ tunnel.port) & mask == 0
    }

    /// The command of iproute2 that takes it away.
    #[must_use]
    pub fn remedy(&self) -> String {
        let direction = self.direction;
        match &self.selector {
            Some(selected) => format!("ip xfrm policy delete {selected} dir {direction}"),
            None => format!("ip xfrm policy setdefault {direction} accept"),
        }
    }
}

impl Selected {
    fn of(selector: &Selector) -> Self {
        Self {
            source: network(&selector.saddr, selector.prefixlen_s),
            destination: network(&selector.daddr, selector.prefixlen_d),
            protocol: selector.proto,
            source_port: (selector.sport, selector.sport_mask),
            destination_port: (selector.dport, selector.dport_mask),
        }
    }
}

/// An impossible length stands for every address: a policy must not be missed.
fn network(address: &Address, length: u8) -> Ipv4Network {
    Ipv4Network::new(address.to_ipv4(), length).unwrap_or(EVERYTHING)
}

/// As `ip xfrm policy` prints it.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selector {
            Some(selected) => write!(f, "{selected} dir {}", self.direction)?,
            None => write!(f, "default dir {}", self.direction)?,
        }
        if self.blocks { f.write_str(" action block") } else { Ok(()) }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src {} dst {}", self.source, self.destination)?;
        match self.protocol {
            ANY => {}
            IPPROTO_UDP => f.write_str(" proto udp")?,
            other => write!(f, " proto {other}")?,
        }
        for (name, (port, mask)) in [("sport", self.source_port), ("dport", self.destination_port)] {
            if mask != 0 {
                write!(f, " {name} {port}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// Which of `policies` concerns packets of `tunnel` to or from one of `peers`, and which peer.
pub fn first_concerned(
    policies: &[Policy],
    tunnel: Tunnel,
    peers: impl Iterator<Item = IpAddr>,
) -> Option<(Policy, IpAddr)> {
    if policies.is_empty() {
        return None;
    }
    peers
        .filter_map(|peer| {
            let IpAddr::V4(address) = peer else { return None };
            let policy = policies.iter().find(|policy| policy.concerns(tunnel, address))?;
            Some((policy.clone(), peer))
        })
        .next()
}
