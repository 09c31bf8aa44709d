//! What the rules mean, in neither engine's words.

use ipnetwork::Ipv4Network;

use super::Spec;

/// The bit of a packet's mark by which kube-proxy asks for masquerading. It does that itself.
pub(super) const KUBE_PROXY_MARK: u32 = 0x4000;

/// 224.0.0.0/4
const MULTICAST: Side = Side { network: multicast(), is_negated: true };

/// A rule: every condition that is there must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether [`KUBE_PROXY_MARK`] must be set.
    pub(super) marked: bool,
    pub(super) source: Option<Side>,
    pub(super) destination: Option<Side>,
    pub(super) verdict: Verdict,
}

/// An address must be inside or outside a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) network: Ipv4Network,
    pub(super) is_negated: bool,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Other rules decide.
    Return,
    Accept,
    Masquerade {
        fully_random: bool,
    },
}

/// The rules wanted in one place.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The network, by which rules of old are known.
    pub(super) network: Option<Ipv4Network>,
    /// In the order in which they are tried; empty for none.
    pub(super) masquerade: Vec<Rule>,
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
            forward: if spec.forward { Forward::Here(forward(spec)) } else { Forward::Nowhere },
        }
    }

    pub(super) fn nothing(network: Option<Ipv4Network>) -> Self {
        Self { network, masquerade: Vec::new(), forward: Forward::Nowhere }
    }

    /// What is wanted where another engine than the chosen one writes.
    pub(super) fn elsewhere(&self) -> Self {
        let forward = match &self.forward {
            Forward::Here(rules) | Forward::WhereDropped(rules) => Forward::WhereDropped(rules.clone()),
            Forward::Nowhere => Forward::Nowhere,
        };
        Self { network: self.network, masquerade: Vec::new(), forward }
    }

    pub(super) fn accepts(&self) -> bool {
        !matches!(self.forward, Forward::Nowhere)
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.masquerade.is_empty() && !self.accepts()
    }
}

/// With N for the network and S for this host's subnet:
fn masquerade(spec: &Spec) -> Vec<Rule> {
    let Spec { network, subnet, fully_random, .. } = *spec;
    let masquerade = Verdict::Masquerade { fully_random };
    let kube_proxy = Rule { marked: true, source: None, destination: None, verdict: Verdict::Return };
    vec![
        kube_proxy,
        // Pods see each other's addresses: S to N, N to S.
        rule(inside(subnet), inside(network), Verdict::Return),
        rule(inside(network), inside(subnet), Verdict::Return),
        // A pod of this host sees the address of who comes from outside. Answers pass by here again.
        rule(outside(network), inside(subnet), Verdict::Return),
        rule(inside(network), MULTICAST, masquerade),
        // A pod of another host must send its answer back by here.
        rule(outside(network), inside(network), masquerade),
    ]
}

fn forward(spec: &Spec) -> Vec<Rule> {
    let accept = Rule { marked: false, source: None, destination: None, verdict: Verdict::Accept };
    let network = Some(inside(spec.network));
    vec![Rule { source: network, ..accept }, Rule { destination: network, ..accept }]
}

fn rule(source: Side, destination: Side, verdict: Verdict) -> Rule {
    Rule { marked: false, source: Some(source), destination: Some(destination), verdict }
}

const fn inside(network: Ipv4Network) -> Side {
    Side { network, is_negated: false }
}

const fn outside(network: Ipv4Network) -> Side {
    Side { network, is_negated: true }
}

const fn multicast() -> Ipv4Network {
    match Ipv4Network::new_checked(std::net::Ipv4Addr::new(224, 0, 0, 0), 4) {
        Some(network) => network,
        None => unreachable!(),
    }
}
