//! Masquerade and forward rules, as stock flannel writes them, and kept without a gap.
//!
//! [`rule`] says what the rules mean; [`nftables`] and [`iptables`] read what is there, compare it with what
//! is wanted, and change it in one transaction only where it differs. Nothing is ever flushed first: a
//! restart, another subnet or another engine leaves no packet without its rule.
//!
//! # Whose rules
//! The network below stock flannel's default prefix has stock flannel's names ([`Names`]), so that a
//! migration either way finds its own chains; every other network has names with a suffix made from its
//! prefix. So two daemons on one host never share a chain, each owns its chains whole, and even a change of
//! the network leaves nothing behind. A rule of the user's own belongs before the jump to a chain of
//! flannel's, not into it. What stock flannel left under its names for a network of another prefix, and the
//! rules it wrote straight into the built-in chains before v0.20, are known by the network's address.
//!
//! # Where the jump stands
//! Stock flannel appends the jump to FORWARD. Behind a last rule that rejects everything, as firewalld and
//! Red Hat's default write it, it is never reached. At the top it would accept, too, what a rule of the user,
//! Docker or a network policy (Calico, kube-router) drops further down. So it stands just before the first
//! rule of FORWARD that drops or rejects every packet, and at the end where there is none: a refusal that
//! names something still counts, one that means "and nothing else" does not hold for the network.
//!
//! # The guard
//! What pods must not send is dropped behind all of the user's rules that accept, and before addresses are translated:
//! by `mangle` POSTROUTING, or a chain of nftables there.
//!
//! # More than one packet filter
//! A packet is forwarded only if nft tables and both variants of iptables let it pass. So wherever an iptables FORWARD
//! chain drops by default, FLANNEL-FWD is kept there as well, whichever the engine; and whatever else is there of an
//! engine not in use is removed, after the other one is in place. Tables of the user's own are not written to:
//! [`Rules::of_others`] returns what of them matters.

mod error;
mod iptables;
mod names;
mod nftables;
mod others;
mod repair;
mod rule;
#[cfg(test)]
mod tests;
mod tool;

use flannel_model::config::NetworkConfig;
use flannel_model::family::{Family, PerFamily, Subnets};
use ipnetwork::IpNetwork;
use tokio::sync::Mutex;

pub use error::RulesError;
pub use names::Names;
pub use others::{Concern, OtherRules, RulesMonitor};
pub use repair::{Fault, Repair, Repairs};
use rule::Wanted;

use crate::conntrack::is_idle;

/// What the rules of one family are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The network all subnets are cut from.
    pub network: IpNetwork,
    /// This host's subnet.
    pub subnet: IpNetwork,
    /// Whether packets between the network and the world outside are masqueraded.
    pub masquerade: bool,
    /// Whether masquerading takes source ports at random, which spares races between connections.
    pub fully_random: bool,
    /// Whether hosts that drop what they forward by default accept packets from and to the network.
    pub forward: bool,
    /// The UDP port of the tunnel to which pods must not send outside the network; none where no guard looks at what
    /// comes out of a tunnel.
    pub tunnel_port: Option<u16>,
}

/// Which of them a host is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// See [`Spec::masquerade`].
    pub masquerade: bool,
    /// See [`Spec::fully_random`].
    pub fully_random: bool,
    /// See [`Spec::forward`].
    pub forward: bool,
    /// See [`Spec::tunnel_port`].
    pub tunnel_port: Option<u16>,
}

/// What rules are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A table of nftables.
    Nftables,
    /// Chains of iptables, in the variant `iptables` stands for on this host.
    Iptables,
}

/// The rules of one network on this host.
#[derive(Debug)]
pub struct Rules {
    engine: Engine,
    names: Names,
    wanted: Wanted,
    iptables: iptables::Tool,
    /// Held while rules are compared and changed.
    turn: Mutex<()>,
}

/// What is done about differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intent {
    /// They are put right.
    Correct,
    /// They are reported.
    Compare,
}

impl Rules {
    /// The rules of `spec`, written with `engine` under `names`. Nothing is done yet.
    #[must_use]
    pub fn new(spec: &Spec, engine: Engine, names: Names) -> Self {
        Self { engine, names, wanted: Wanted::of(spec), iptables: iptables::DEFAULT, turn: Mutex::new(()) }
    }

    /// The rules of a host with these `subnets` in the network below `etcd_prefix`, with the engine and under the names
    /// that follow from it.
    #[must_use]
    pub fn of_host(
        choice: Choice,
        etcd_prefix: &str,
        config: &NetworkConfig,
        subnets: &Subnets,
    ) -> PerFamily<Self> {
        let Choice { masquerade, fully_random, forward, tunnel_port } = choice;
        let engine = if config.enable_nftables { Engine::Nftables } else { Engine::Iptables };
        let networks = config.networks();
        let rules = |family| {
            let (network, subnet) = (networks.get(family)?, subnets.get(family)?);
            let spec = Spec { network, subnet, masquerade, fully_random, forward, tunnel_port };
            Some(Self::new(&spec, engine, Names::of(etcd_prefix)))
        };
        PerFamily { v4: rules(Family::V4), v6: rules(Family::V6) }
    }

    /// Puts the rules in place where they are not, and then removes what an engine not in use still has.
    ///
    /// # Errors
    /// A program is missing, fails, or takes too long; each table has its old or its new rules.
    pub async fn ensure(&self) -> Result<Repairs, RulesError> {
        self.work(Intent::Correct).await
    }

    /// What [`Rules::ensure`] would put right; nothing is changed.
    ///
    /// # Errors
    /// A program is missing, fails, or takes too long.
    pub async fn differences(&self) -> Result<Repairs, RulesError> {
        self.work(Intent::Compare).await
    }

    async fn work(&self, intent: Intent) -> Result<Repairs, RulesError> {
        let _turn = self.turn.lock().await;
        let Self { engine, names, iptables, .. } = self;
        let is_tracked = is_idle().is_ok_and(|is_idle| !is_idle);
        let wanted = &if is_tracked { self.wanted.where_tracked() } else { self.wanted.clone() };
        let elsewhere = wanted.elsewhere();
        let mut repairs = Vec::new();
        match engine {
            // Without rules no program is needed.
            _ if wanted.is_nothing() => return tidy(*iptables, names, wanted, intent).await,
            Engine::Nftables => {
                repairs.extend(nftables::ensure(names, wanted, intent).await?);
                for tool in iptables::tools(*iptables).await.or_else(none_if_absent)? {
                    repairs.extend(iptables::tidy(&tool, names, &elsewhere, intent).await?);
                }
            }
            Engine::Iptables => {
                let mut tools = iptables::tools(*iptables).await?.into_iter();
                if let Some(chosen) = tools.next() {
                    repairs.extend(iptables::ensure(&chosen, names, wanted, intent).await?);
                }
                for tool in tools {
                    repairs.extend(iptables::tidy(&tool, names, &elsewhere, intent).await?);
                }
                repairs.extend(nftables::tidy(names, &elsewhere, intent).await?);
            }
        }
        Ok(Repairs(repairs))
    }
}

/// Removes all rules under `names`, of every engine, and those that older versions of stock flannel wrote
/// for `network` straight into the built-in chains. The user's rules stay as they are.
///
/// # Errors
/// A program fails, or takes too long, or rules may not be read. A missing one has left nothing behind.
pub async fn remove(names: &Names, network: Option<IpNetwork>) -> Result<Repairs, RulesError> {
    tidy(iptables::DEFAULT, names, &Wanted::nothing(network), Intent::Correct).await
}

/// What [`remove`] would remove; nothing is changed.
///
/// # Errors
/// As with [`remove`].
pub async fn leftovers(names: &Names, network: Option<IpNetwork>) -> Result<Repairs, RulesError> {
    tidy(iptables::DEFAULT, names, &Wanted::nothing(network), Intent::Compare).await
}

async fn tidy(
    first: iptables::Tool,
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Repairs, RulesError> {
    let mut removed = Vec::new();
    for tool in iptables::tools(first).await.or_else(none_if_absent)? {
        removed.extend(iptables::tidy(&tool, names, wanted, intent).await?);
    }
    removed.extend(nftables::tidy(names, wanted, intent).await?);
    Ok(Repairs(removed))
}

/// What is not there has no rules.
fn none_if_absent<T: Default>(error: RulesError) -> Result<T, RulesError> {
    if error.is_absence() { Ok(T::default()) } else { Err(error) }
}
