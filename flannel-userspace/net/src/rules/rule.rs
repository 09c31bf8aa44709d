//! What the rules mean, in neither engine's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_model::family::Family;
use ipnetwork::IpNetwork;

use super::Spec;

/// The bit of a packet's mark by which kube-proxy asks for masquerading. It does that itself.
pub(super) const KUBE_PROXY_MARK: u32 = 0x4000;

/// A rule: every condition that is there must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether [`KUBE_PROXY_MARK`] must be set.
    pub(super) marked: bool,
    pub(super) source: Option<Side>,
    pub(super) destination: Option<Side>,
    /// A UDP port that must be the destination's.
    pub(super) port: Option<u16>,
    /// Whether the packet must be no answer. Only connection tracking knows that, so the rule turns it on.
    pub(super) is_asking: bool,
    pub(super) verdict: Verdict,
}

/// An address must be inside or outside a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) network: IpNetwork,
    pub(super) is_negated: bool,
}

/// The verdict on a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Other rules decide.
    Return,
    Accept,
    Drop,
    Masquerade {
        fully_random: bool,
    },
}

/// The rules wanted in one place.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The network, by which rules of old are known.
    pub(super) network: Option<IpNetwork>,
    /// In the order in which they are tried; empty for none.
    pub(super) masquerade: Vec<Rule>,
    /// The same, before addresses are translated.
    pub(super) guard: Vec<Rule>,
    pub(super) forward: Forward,
}

/// Rules that accept, and where.
#[derive(Clone, Debug)]
pub(super) enum Forward {
    Nowhere,
    /// Only where FORWARD drops by default.
    WhereDropped(Vec<Rule>),
    Here(Vec<Rule>),
}

impl Wanted {
    pub(super) fn of(spec: &Spec) -> Self {
        Self {
            network: Some(spec.network),
            masquerade: if spec.masquerade { masquerade(spec) } else { Vec::new() },
            guard: if spec.masquerade || spec.forward { guard(spec) } else { Vec::new() },
            forward: if spec.forward { Forward::Here(forward(spec)) } else { Forward::Nowhere },
        }
    }

    pub(super) fn nothing(network: Option<IpNetwork>) -> Self {
        Self { network, masquerade: Vec::new(), guard: Vec::new(), forward: Forward::Nowhere }
    }

    /// The same where connections are tracked: then it costs nothing to ask which packets are answers.
    pub(super) fn where_tracked(&self) -> Self {
        let guard = self.guard.iter().map(|rule| Rule { is_asking: true, ..*rule }).collect();
        Self { guard, ..self.clone() }
    }

    /// What is wanted where another engine than the chosen one writes.
    pub(super) fn elsewhere(&self) -> Self {
        let forward = match &self.forward {
            Forward::Here(rules) | Forward::WhereDropped(rules) => Forward::WhereDropped(rules.clone()),
            Forward::Nowhere => Forward::Nowhere,
        };
        Self { network: self.network, masquerade: Vec::new(), guard: Vec::new(), forward }
    }

    pub(super) fn accepts(&self) -> bool {
        !matches!(self.forward, Forward::Nowhere)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.masquerade.is_empty() && self.guard.is_empty() && !self.accepts()
    }
}

/// With N for the network and S for this host's subnet:
fn masquerade(spec: &Spec) -> Vec<Rule> {
    let Spec { network, subnet, fully_random, .. } = *spec;
    let masquerade = Verdict::Masquerade { fully_random };
    let kube_proxy = Rule { marked: true, ..plain(Verdict::Return) };
    vec![
        kube_proxy,
        // Pods see each other's addresses: S to N, N to S.
        rule(inside(subnet), inside(network), Verdict::Return),
        rule(inside(network), inside(subnet), Verdict::Return),
        // A pod of this host sees the address of who comes from outside. Answers pass by here again.
        rule(outside(network), inside(subnet), Verdict::Return),
        rule(inside(network), not_multicast(network.into()), masquerade),
        // A pod of another host must send its answer back by here.
        rule(outside(network), inside(network), masquerade),
    ]
}

/// A packet of the tunnel that a pod makes itself would bear the host's address once it is masqueraded, whoever does
/// that, and the peer would take it for one of the host's. Answers are let through where connections are tracked anyway,
/// by whoever masquerades: who asks may do so from any port. Elsewhere tracking would cost every packet more than this
/// rule.
fn guard(spec: &Spec) -> Vec<Rule> {
    let Spec { network, tunnel_port, masquerade, .. } = *spec;
    let to_the_tunnel = rule(inside(network), outside(network), Verdict::Drop);
    let drop = |port| Rule { port: Some(port), is_asking: masquerade, ..to_the_tunnel };
    tunnel_port.map(drop).into_iter().collect()
}

fn forward(spec: &Spec) -> Vec<Rule> {
    let accept = plain(Verdict::Accept);
    let network = Some(inside(spec.network));
    vec![Rule { source: network, ..accept }, Rule { destination: network, ..accept }]
}

fn rule(source: Side, destination: Side, verdict: Verdict) -> Rule {
    Rule { source: Some(source), destination: Some(destination), ..plain(verdict) }
}

const fn plain(verdict: Verdict) -> Rule {
    Rule { marked: false, source: None, destination: None, port: None, is_asking: false, verdict }
}

const fn inside(network: IpNetwork) -> Side {
    Side { network, is_negated: false }
}

const fn outside(network: IpNetwork) -> Side {
    Side { network, is_negated: true }
}

/// Everything outside 224.0.0.0/4 (RFC 5771), or ff00::/8 (RFC 4291).
fn not_multicast(family: Family) -> Side {
    let (first, len) = match family {
        Family::V4 => (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
        Family::V6 => (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
    };
    // Both lengths are valid, so the fallback is never taken.
    outside(IpNetwork::new(first, len).unwrap_or(IpNetwork::from(first)))
}
