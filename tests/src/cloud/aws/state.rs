//! What there is in the cloud.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::Result;
use ipnetwork::Ipv4Network;

use super::{MAIN, VPC};
use crate::cloud::{Router, Steering};

/// Everything.
#[derive(Debug)]
pub struct State {
    router: Router,
    /// The instances, by their addresses.
    pub instances: BTreeMap<Ipv4Addr, Instance>,
    /// The route tables, by their names.
    pub tables: BTreeMap<String, Table>,
    /// The range of the VPC.
    pub range: Ipv4Network,
    /// How the metadata service is.
    pub metadata: Metadata,
    /// What goes wrong with an action, or with all by the name `*`.
    pub faults: BTreeMap<String, Fault>,
    /// Actions that were asked for, in order.
    pub calls: Vec<String>,
    /// Most routes of a table.
    pub limit: usize,
    /// Most tables of an answer.
    pub page: usize,
    /// How long what was changed is not shown.
    pub delay: Duration,
    /// Tokens of the metadata service, and when they end.
    pub(super) tokens: BTreeMap<String, Instant>,
}

/// An instance with one network interface.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its network interface.
    pub interface: String,
    /// The subnet of the VPC in which that is.
    pub subnet: String,
    /// The VPC.
    pub vpc: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Whether packets in the name of others are dropped.
    pub is_checked: bool,
    /// Whether it runs.
    pub life: Life,
    /// Whether it has a role.
    pub has_role: bool,
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Running,
    /// Not now.
    Stopped,
    /// Never again.
    Terminated,
}

/// A route table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its routes, besides the VPC's own one.
    pub routes: BTreeMap<Ipv4Network, Route>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub target: Target,
    /// When it was made.
    pub since: Instant,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a network interface.
    Interface(String),
    /// To a gateway.
    Gateway(String),
}

/// How the metadata service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// It answers; tokens last so many seconds at most.
    On(u32),
    /// It is switched off.
    Off,
    /// Its answers get lost on the way.
    Silent,
    /// It has forgotten every token it gave.
    Forgetful,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `RequestLimitExceeded`.
    Throttled,
    /// `UnauthorizedOperation`.
    Denied,
    /// An answer of somebody else.
    Garbage,
    /// `Unavailable`.
    Unavailable,
    /// No answer.
    Silent,
}

impl State {
    pub(super) fn new(router: Router) -> Self {
        Self {
            router,
            instances: BTreeMap::new(),
            tables: [(MAIN.to_owned(), Table::default())].into(),
            #[expect(clippy::unwrap_used, reason = "it is a network")]
            range: "192.168.64.0/19".parse().unwrap(),
            metadata: Metadata::On(u32::MAX),
            faults: BTreeMap::new(),
            calls: Vec::new(),
            limit: 500,
            page: usize::MAX,
            delay: Duration::ZERO,
            tokens: BTreeMap::new(),
        }
    }

    pub(super) fn launch(&mut self, address: Ipv4Addr, mac: String) -> Result<()> {
        let interface = format!("eni-{:017x}", address.to_bits());
        let subnet = format!("subnet-{:08x}", address.to_bits() & 0xffff_ff00);
        let instance = Instance {
            interface,
            subnet,
            vpc: VPC.to_owned(),
            mac,
            is_checked: true,
            life: Life::Running,
            has_role: true,
        };
        self.instances.insert(address, instance);
        self.apply()
    }

    /// The fault of an action.
    pub(super) fn fault(&self, action: &str) -> Option<Fault> {
        self.faults.get(action).or_else(|| self.faults.get("*")).copied()
    }

    /// The instance with that network interface.
    #[must_use]
    pub fn by_interface(&self, interface: &str) -> Option<(&Ipv4Addr, &Instance)> {
        self.instances.iter().find(|(_, instance)| instance.interface == interface)
    }

    /// Whether packets get lost at `target`.
    #[must_use]
    pub fn is_blackhole(&self, target: &Target) -> bool {
        match target {
            Target::Interface(interface) => {
                self.by_interface(interface).is_none_or(|(_, instance)| instance.life != Life::Running)
            }
            Target::Gateway(_) => false,
        }
    }

    /// Has the router do as the main table says.
    ///
    /// # Errors
    /// It cannot.
    pub fn apply(&mut self) -> Result<()> {
        let mut steering = Steering::default();
        for (network, route) in self.tables.get(MAIN).into_iter().flat_map(|table| &table.routes) {
            let host = match &route.target {
                Target::Interface(interface) if !self.is_blackhole(&route.target) => {
                    self.by_interface(interface).map(|(address, _)| *address)
                }
                _ => None,
            };
            steering.routes.insert(*network, host);
        }
        let checked = self.instances.iter().filter(|(_, instance)| instance.is_checked);
        steering.checked = checked.map(|(address, instance)| (instance.mac.clone(), *address)).collect();
        self.router.steer(steering)
    }

    /// The names of the tables that have one of `ids`, if any are given, and all of `tags`.
    pub(super) fn find(&self, ids: &BTreeSet<String>, tags: &BTreeMap<String, String>) -> Vec<String> {
        let has = |table: &Table, (key, value): (&String, &String)| table.tags.get(key) == Some(value);
        let found = self.tables.iter().filter(|(id, table)| {
            (ids.is_empty() || ids.contains(*id)) && tags.iter().all(|tag| has(table, tag))
        });
        found.map(|(id, _)| id.clone()).collect()
    }
}
