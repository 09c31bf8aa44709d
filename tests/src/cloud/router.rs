//! The router of the cloud's network: it forwards by the cloud's route tables, and drops what hosts may not send.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use ipnetwork::Ipv4Network;

use crate::namespace::Namespace;
use crate::network::{Host, Network};

/// What the tables make of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// Where packets for a range go: to the host of that address, or nowhere.
    pub routes: BTreeMap<Ipv4Network, Option<Ipv4Addr>>,
    /// The hosts from which only packets in their own name are taken, and which get only packets for themselves: their
    /// Ethernet and IP addresses.
    pub checked: BTreeMap<String, Ipv4Addr>,
}

/// The router.
#[derive(Clone, Debug)]
pub struct Router {
    namespace: Namespace,
    now: Steering,
}

impl Router {
    /// The router of `network`, which forwards nothing between pods yet.
    ///
    /// # Errors
    /// It cannot be set up.
    pub fn of(network: &Network) -> Result<Self> {
        let namespace = network.router().clone();
        // Hosts would go past it.
        for interface in ["all", "default", "eth0", "far"] {
            namespace.sysctl(&format!("ipv4/conf/{interface}/send_redirects"), "0")?;
        }
        Ok(Self { namespace, now: Steering::default() })
    }

    /// Where it is.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The Ethernet address of a host, by which the router knows it.
    ///
    /// # Errors
    /// It has no `eth0`.
    pub fn mac_of(host: &Host) -> Result<String> {
        Ok(host.namespace.run("cat", "/sys/class/net/eth0/address")?.trim().to_owned())
    }

    /// Forwards as `steering` says. A route is replaced in one step.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn steer(&mut self, mut steering: Steering) -> Result<()> {
        for target in steering.routes.values_mut() {
            *target = target.filter(|host| !steering.checked.values().any(|checked| checked == host));
        }
        for network in self.now.routes.keys().filter(|network| !steering.routes.contains_key(network)) {
            self.namespace.ip(&format!("route del {network}"))?;
        }
        for (network, target) in &steering.routes {
            if self.now.routes.get(network) == Some(target) {
                continue;
            }
            // The type is a part of what is replaced.
            let route = match target {
                Some(host) => format!("{network} via {host}"),
                None => format!("blackhole {network}"),
            };
            self.namespace.ip(&format!("route replace {route}"))?;
        }
        if self.now.checked != steering.checked {
            self.check(&steering.checked)?;
        }
        self.now = steering;
        Ok(())
    }

    fn check(&self, checked: &BTreeMap<String, Ipv4Addr>) -> Result<()> {
        let mut rules =
            String::from("add table ip cloud\ndelete table ip cloud\ntable ip cloud { chain forward {\n");
        rules.push_str("type filter hook forward priority 0;\n");
        for (mac, address) in checked {
            writeln!(rules, "ether saddr {mac} ip saddr != {address} drop")?;
        }
        rules.push_str("}\n}\n");
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("rules");
        std::fs::write(&file, rules)?;
        self.namespace.run("nft", &format!("-f {}", file.display()))?;
        Ok(())
    }
}
