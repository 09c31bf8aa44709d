//! Rules of others, as far as they decide about the network's packets, or seem to. They are not changed, but told.

mod iptables;
mod monitor;
mod nftables;

use ipnetwork::IpNetwork;

use super::iptables as variants;
use super::{Rules, RulesError, none_if_absent};
pub use monitor::RulesMonitor;

/// What rules of others are held against.
#[derive(Clone, Debug)]
pub struct Concern {
    /// The UDP port of the tunnel, if there is one.
    pub port: Option<u16>,
    /// The whole network.
    pub network: IpNetwork,
    /// This host's subnet.
    pub subnet: IpNetwork,
    /// The bridges of pods.
    pub bridges: Vec<String>,
    /// Flannel's own devices.
    pub devices: Vec<String>,
    /// Whether packets to peers go by plain routes, so that what is dropped before addresses are translated is.
    pub forwards: bool,
}

/// Rules of others, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtherRules {
    /// They name the tunnel's port, and never see a packet of it: programs take those before.
    pub without_effect: Vec<String>,
    /// Chains that refuse what nothing in them accepts, in tables that name nothing of the network.
    pub refusing: Vec<String>,
    /// They drop what peers send to pods of this host.
    pub against_pods: Vec<String>,
}

impl OtherRules {
    fn extend(&mut self, more: Self) {
        self.without_effect.extend(more.without_effect);
        self.refusing.extend(more.refusing);
        self.against_pods.extend(more.against_pods);
    }
}

impl Rules {
    /// The rules of others that matter to `concern`. What is no rule of iptables is looked for where `nft` is installed.
    ///
    /// # Errors
    /// A program takes too long, or may not read; where one is missing it has no rules.
    pub async fn of_others(&self, concern: &Concern) -> Result<OtherRules, RulesError> {
        let mut all = OtherRules::default();
        let tools = variants::tools(self.iptables).await.or_else(none_if_absent)?;
        for tool in &tools {
            let saved = tool.read(&self.names).await.or_else(none_if_absent)?;
            all.extend(iptables::matter(&saved, concern, tool.name()));
        }
        let listed = nftables::matter(concern, !tools.is_empty()).await.or_else(none_if_absent)?;
        all.extend(listed);
        Ok(all)
    }
}
