//! Rules of iptables.

use std::collections::BTreeSet;

use super::super::iptables::{Line, Saved, Table};
use super::{Concern, OtherRules};

/// Where a packet of the tunnel would come by if programs did not take it, or send it, before.
const ON_THE_TUNNELS_WAY: [&str; 3] = ["INPUT", "OUTPUT", "PREROUTING"];
/// Where a packet for a pod comes by.
const ON_THE_PODS_WAY: [&str; 2] = ["PREROUTING", "FORWARD"];

pub(super) fn matter(saved: &Saved, concern: &Concern, program: &str) -> OtherRules {
    let mut found = OtherRules::default();
    for (name, table) in saved.tables() {
        let place = |chain: &str, line: &Line| {
            format!("`{}` in chain {chain} of table {name} ({program})", line.text)
        };
        let tunnel = reached(table, &ON_THE_TUNNELS_WAY);
        let about_port = |line: &Line| concern.port.is_some_and(|port| line.decides_about(port));
        found.without_effect.extend(
            tunnel.iter().filter(|(_, line)| about_port(line)).map(|(chain, line)| place(chain, line)),
        );
        let pods = reached(table, &ON_THE_PODS_WAY);
        let against = pods.iter().filter(|(_, line)| line.is_against(concern.subnet, &concern.bridges));
        found.against_pods.extend(against.map(|(chain, line)| place(chain, line)));
    }
    found
}

/// The rules that a packet can meet from one of the chains `first` on, each with its chain. Our own are left out.
fn reached<'a>(table: &'a Table, first: &[&'a str]) -> Vec<(&'a str, &'a Line)> {
    let mut seen = BTreeSet::new();
    let mut due: Vec<&str> = first.to_vec();
    let mut all = Vec::new();
    while let Some(chain) = due.pop() {
        if chain.starts_with("FLANNEL-") || !seen.insert(chain) {
            continue;
        }
        for line in table.rules(chain).unwrap_or_default() {
            due.extend(line.target().filter(|target| table.rules(target).is_some()));
            all.push((chain, line));
        }
    }
    all
}
