//! `flanneld --check`: whether this host could be served, found out without changing anything.

use std::fmt::Display;
use std::time::Duration;

use flannel_common::maps::Guard;
use flannel_control::backend;
use flannel_kubernetes::NetConf;
use flannel_model::config::Configuration;
use flannel_model::error::Chain;
use flannel_model::family::{PerFamily, Subnets};
use flannel_net::rules::{Rules, RulesError};
use flannel_net::{Netlink, interface};
use flannel_registry::ConfigSource as _;
use flannel_registry::etcd::Etcd;
use ipnetwork::IpNetwork;
use tokio::time::timeout;

use super::rules::choice;
use crate::cli::Options;

/// How long etcd has, however many endpoints it has.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of one check: what was found, or why it fails.
type Finding = Result<String, String>;

/// Checks everything that a start depends on, and prints a line for each. Returns whether nothing fails.
pub async fn check(options: &Options) -> bool {
    let mut report = Report { is_good: true };
    report.line("privileges", privileges());
    let configuration = match configuration(options).await {
        Ok(configuration) => {
            report.line("configuration", Ok(described(&configuration)));
            Some(configuration)
        }
        Err(reason) => {
            report.line("configuration", Err(reason));
            None
        }
    };
    report.line("interface", underlay(options, configuration.as_ref()).await);
    match &configuration {
        Some(configuration) => {
            report.line("kernel", kernel(options, configuration));
            report.line("rules", rules(options, configuration).await);
        }
        None => report.line("kernel, rules", Err("not checked: they depend on the configuration".to_owned())),
    }
    report.is_good
}

struct Report {
    is_good: bool,
}

impl Report {
    fn line(&mut self, what: &str, finding: Finding) {
        self.is_good &= finding.is_ok();
        match finding {
            Ok(found) => println!("ok      {what}: {found}"),
            Err(reason) => println!("failed  {what}: {reason}"),
        }
    }
}

/// What programs take besides is reported with the kernel.
fn privileges() -> Finding {
    flannel_privileges::check().map_err(chain)?;
    let held = if flannel_privileges::may_use_bpf() { "every capability is" } else { "CAP_NET_ADMIN is" };
    Ok(format!("{held} held"))
}

fn chain(error: impl std::error::Error) -> String {
    Chain(&error).to_string()
}

async fn configuration(options: &Options) -> Result<Configuration, String> {
    let text = match &options.kubernetes {
        Some(kubernetes) => {
            NetConf::open(&kubernetes.net_conf).map_err(chain)?.config().await.map_err(chain)?
        }
        None => {
            let registry = Etcd::new(options.etcd.clone()).map_err(chain)?;
            match timeout(PATIENCE, registry.config()).await {
                Ok(text) => text.map_err(chain)?,
                Err(_) => return Err(format!("no endpoint of etcd has answered within {PATIENCE:?}")),
            }
        }
    };
    Configuration::parse(text).map_err(chain)
}

fn described(configuration: &Configuration) -> String {
    let networks = joined(configuration.network.networks().iter());
    format!("{} over {networks}, hash {}", configuration.backend.kind(), configuration.hash())
}

fn joined(things: impl Iterator<Item = impl Display>) -> String {
    things.map(|thing| thing.to_string()).collect::<Vec<_>>().join(", ")
}

async fn underlay(options: &Options, configuration: Option<&Configuration>) -> Finding {
    let netlink = Netlink::open().map_err(chain)?;
    let underlay = interface::choose(&netlink, &options.interface).await.map_err(chain)?;
    if let Some(configuration) = configuration {
        backend::of(&configuration.backend).check(&underlay).map_err(chain)?;
    }
    Ok(format!("{}, {}, MTU {}", underlay.name, joined(underlay.public.iter()), underlay.mtu))
}

/// Loads programs and maps, which go away with this process.
fn kernel(options: &Options, configuration: &Configuration) -> Finding {
    flannel_privileges::raise_memory_limit();
    let kind = configuration.backend.kind();
    if let Some(reason) = flannel_datapath::unavailable() {
        return match super::programs::instead(kind) {
            Some(instead) => Ok(format!("{reason}; {instead}")),
            None => Err(format!("{reason}; the backend {kind} forwards by eBPF programs alone")),
        };
    }
    flannel_datapath::require(kind.for_programs(), options.bypass, options.program_settings)
        .map_err(chain)?;
    Ok(format!("Linux {} takes every program for the backend {kind}", flannel_net::release()))
}

/// Reads the rules that are there, by the programs that would write them.
async fn rules(options: &Options, configuration: &Configuration) -> Finding {
    let choice = choice(options, backend::of(&configuration.backend).tunnel());
    // Any subnet will do: nothing is written.
    let subnets = configuration.network.families.values().fold(Subnets::NONE, |subnets, family| {
        let first = IpNetwork::new(family.subnet_min, family.subnet_len);
        first.map_or(subnets, |first| subnets.with(first))
    });
    let rules: PerFamily<Rules> =
        Rules::of_host(choice, &options.etcd.prefix, &configuration.network, &subnets);
    for rules in rules.values() {
        rules.differences().await.map_err(|error: RulesError| chain(error))?;
    }
    let tool = if configuration.network.enable_nftables { "nftables" } else { "iptables" };
    let wanted = choice.masquerade || choice.forward || options.guard != Guard::Off;
    Ok(if wanted { format!("{tool} can be read") } else { "none are asked for".to_owned() })
}
