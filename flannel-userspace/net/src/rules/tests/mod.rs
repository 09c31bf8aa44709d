//! Rules in namespaces of their own, by every engine and both variants of iptables.

mod engines;
mod foreign;
mod lab;
mod listing;
mod others;
mod stock;
mod traffic;
mod upkeep;

use std::io::Write as _;
use std::process::{Command, Stdio};

use ipnetwork::IpNetwork;

use super::{Engine, Names, Repairs, Rules, Spec, iptables};
use crate::namespace::run;

/// What writes the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    Nftables,
    /// iptables that writes into nftables; what `iptables` stands for is taken from the machine.
    Iptables,
    Legacy,
}

const STOCK_PREFIX: &str = "/coreos.com/network";

fn network(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

/// Network 10.5.0.0/16, subnet 10.5.1.0/24, masquerade, forward and guard.
fn spec() -> Spec {
    Spec {
        network: network("10.5.0.0/16"),
        subnet: network("10.5.1.0/24"),
        masquerade: true,
        fully_random: true,
        forward: true,
        tunnel_port: Some(8472),
    }
}

impl Means {
    fn rules(self, spec: &Spec) -> Rules {
        self.rules_of(spec, STOCK_PREFIX)
    }

    fn rules_of(self, spec: &Spec, prefix: &str) -> Rules {
        let engine = if self == Self::Nftables { Engine::Nftables } else { Engine::Iptables };
        let mut rules = Rules::new(spec, engine, Names::of(prefix));
        if self == Self::Legacy {
            rules.iptables = iptables::LEGACY;
        }
        rules
    }

    async fn ensure(self, spec: &Spec) -> Repairs {
        self.rules(spec).ensure().await.unwrap()
    }

    /// What is there by these means, without dates and counters.
    fn listing(self) -> String {
        match self {
            Self::Nftables => run("nft", "list ruleset"),
            Self::Iptables => saved("iptables"),
            Self::Legacy => saved("iptables-legacy"),
        }
    }

    /// What is there, with what changes when a rule is written again: handles, or counters.
    fn identity(self) -> String {
        match self {
            Self::Nftables => run("nft", "-a list ruleset"),
            Self::Iptables => format!("{}{}", run("nft", "-a list ruleset"), run("iptables-save", "-c")),
            Self::Legacy => run("iptables-legacy-save", "-c"),
        }
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
    }

    /// Feeds rules to the program that writes with these means.
    fn feed(self, text: &str) {
        match self {
            Self::Nftables => feed("nft", &["-f", "-"], text),
            Self::Iptables => feed("iptables-restore", &["--noflush"], text),
            Self::Legacy => feed("iptables-legacy-restore", &["--noflush", "-w"], text),
        }
    }
}

/// `iptables-save` without comments, and without tables and chains that are as the kernel has them.
fn saved(program: &str) -> String {
    let text = run(&format!("{program}-save"), "");
    let is_plain = |line: &&str| {
        let is_policy = line.starts_with(':') && line.ends_with(" ACCEPT [0:0]");
        !line.starts_with('#') && !is_policy && *line != "COMMIT"
    };
    let mut lines: Vec<&str> = text.lines().filter(is_plain).collect();
    // A table whose name is followed by another one has nothing.
    let empty: Vec<bool> = (0..lines.len())
        .map(|at| lines[at].starts_with('*') && lines.get(at + 1).is_none_or(|next| next.starts_with('*')))
        .collect();
    let mut empty = empty.into_iter();
    lines.retain(|_| !empty.next().unwrap());
    lines.iter().map(|line| format!("{}\n", without_counters(line))).collect()
}

fn without_counters(line: &str) -> &str {
    line.split_once(" [").filter(|_| line.starts_with(':')).map_or(line, |(before, _)| before)
}

fn feed(program: &str, arguments: &[&str], text: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} refuses {text}");
}
