//! What the cloud knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use ipnetwork::Ipv4Network;

use crate::cloud::mood::Mood;
use crate::cloud::{Router, Steering};
use crate::network::Host;

/// The cloud.
#[derive(Debug)]
pub struct State {
    /// How the API answers.
    pub mood: Mood,
    /// Every route, in the order in which they were made.
    pub routes: Vec<Route>,
    /// The instances by their primary addresses.
    pub instances: BTreeMap<Ipv4Addr, Instance>,
    /// The ranges of subnetworks.
    pub subnetworks: Vec<Ipv4Network>,
    /// Most routes of the project.
    pub quota: usize,
    /// For so many listings a new route is not seen.
    pub hides_new_for: usize,
    /// What operations that insert end with, if not well.
    pub operation_error: Option<&'static str>,
    /// What was asked of the API: method and path.
    pub calls: Vec<String>,
    /// How long tokens are good, in seconds.
    pub token_life: u64,
    /// Those that are.
    pub(super) tokens: BTreeSet<String>,
    pub(super) tokens_given: u32,
    pub(super) operations: BTreeMap<String, Operation>,
    pub(super) is_shared: bool,
    next_id: u64,
    router: Router,
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Whether it may forward.
    pub can_ip_forward: bool,
    /// Whether it runs.
    pub is_running: bool,
    /// Alias ranges of its interface.
    pub aliases: Vec<Ipv4Network>,
    /// Changes with the interface.
    pub fingerprint: u32,
    mac: String,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where to.
    pub dest_range: Ipv4Network,
    /// The network's path.
    pub network: String,
    /// Its address.
    pub next_hop_ip: Option<Ipv4Addr>,
    /// Or its instance's path.
    pub next_hop_instance: Option<String>,
    /// For so many listings it is not seen.
    pub hidden_for: usize,
}

/// Something under way.
#[derive(Debug)]
pub(super) struct Operation {
    /// How many questions it takes to be done.
    pub(super) steps: u8,
    pub(super) change: Change,
    pub(super) error: Option<&'static str>,
}

/// What it will have changed.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Insert(Route),
    Delete(u64),
    Aliases(Ipv4Addr, Vec<Ipv4Network>),
}

impl State {
    pub(super) fn new(router: Router, is_shared: bool) -> Self {
        let subnetworks = ["192.168.77.0/24", "192.168.88.0/24"];
        Self {
            mood: Mood::Willing,
            routes: Vec::new(),
            instances: BTreeMap::new(),
            subnetworks: subnetworks.iter().filter_map(|range| range.parse().ok()).collect(),
            quota: 100,
            hides_new_for: 0,
            operation_error: None,
            calls: Vec::new(),
            token_life: 3600,
            tokens: BTreeSet::new(),
            tokens_given: 0,
            operations: BTreeMap::new(),
            is_shared,
            next_id: 1000,
            router,
        }
    }

    pub(super) fn add(&mut self, host: &Host, can_ip_forward: bool) -> Result<()> {
        let instance = Instance {
            name: host.name.clone(),
            can_ip_forward,
            is_running: true,
            aliases: Vec::new(),
            fingerprint: 1,
            mac: Router::mac_of(host)?,
        };
        self.instances.insert(host.address, instance);
        self.steer()
    }

    /// Adds a route as somebody else would.
    ///
    /// # Errors
    /// The router does not take it.
    pub fn add_route(&mut self, name: &str, dest_range: Ipv4Network, next_hop: Ipv4Addr) -> Result<()> {
        let route = Route {
            id: self.id(),
            name: name.to_owned(),
            dest_range,
            network: self.network_path(),
            next_hop_ip: Some(next_hop),
            next_hop_instance: None,
            hidden_for: 0,
        };
        self.routes.push(route);
        self.steer()
    }

    /// Removes the routes that `is_gone` names.
    ///
    /// # Errors
    /// The router does not take it.
    pub fn remove_routes(&mut self, is_gone: impl Fn(&Route) -> bool) -> Result<()> {
        self.routes.retain(|route| !is_gone(route));
        self.steer()
    }

    /// How many tokens were given.
    #[must_use]
    pub const fn tokens_given(&self) -> u32 {
        self.tokens_given
    }

    /// Has every token expired.
    pub fn revoke_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Stops or starts an instance.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn set_running(&mut self, address: Ipv4Addr, is_running: bool) -> Result<()> {
        self.instances.get_mut(&address).context("no such instance")?.is_running = is_running;
        self.steer()
    }

    /// Lets an instance forward, or not.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn set_can_ip_forward(&mut self, address: Ipv4Addr, can_ip_forward: bool) -> Result<()> {
        self.instances.get_mut(&address).context("no such instance")?.can_ip_forward = can_ip_forward;
        self.steer()
    }

    /// The project of the VPC network: its name, and its number as metadata have it.
    pub(super) const fn network_project(&self) -> (&'static str, &'static str) {
        if self.is_shared { ("nets", "999") } else { ("shop", "12345") }
    }

    /// The path of the VPC network.
    #[must_use]
    pub fn network_path(&self) -> String {
        format!("projects/{}/global/networks/vpc", self.network_project().0)
    }

    pub(super) const fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Insert(route) => self.routes.push(route),
            Change::Delete(id) => self.routes.retain(|route| route.id != id),
            Change::Aliases(address, aliases) => {
                if let Some(instance) = self.instances.get_mut(&address) {
                    instance.aliases = aliases;
                    instance.fingerprint += 1;
                }
            }
        }
        if let Err(error) = self.steer() {
            eprintln!("the router of the cloud does not follow: {error:#}");
        }
    }

    /// The address that a route leads to.
    pub(super) fn target(&self, route: &Route) -> Option<Ipv4Addr> {
        let by_name = |path: &String| {
            let name = path.rsplit('/').next()?;
            self.instances.iter().find(|(_, instance)| instance.name == name).map(|(address, _)| *address)
        };
        let target = route.next_hop_ip.or_else(|| route.next_hop_instance.as_ref().and_then(by_name))?;
        self.instances.get(&target).is_some_and(|instance| instance.is_running).then_some(target)
    }

    fn steer(&mut self) -> Result<()> {
        let mut steering = Steering::default();
        for route in self.routes.iter().filter(|route| route.network == self.network_path()) {
            steering.routes.insert(route.dest_range, self.target(route));
        }
        for (address, instance) in &self.instances {
            for alias in &instance.aliases {
                steering.routes.insert(*alias, Some(*address));
            }
            // Packets of alias ranges are an instance's own.
            if !instance.can_ip_forward && instance.aliases.is_empty() {
                steering.checked.insert(instance.mac.clone(), *address);
            }
        }
        self.router.steer(steering)
    }
}
