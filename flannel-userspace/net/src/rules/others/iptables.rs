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
        let accepted = accepted_before(table, concern);
        let is_met = |line: &Line| !accepted.iter().any(|behind| std::ptr::eq(*behind, line));
        let against = pods.iter().filter(|(_, line)| line.is_against(concern.subnet, &concern.bridges));
        found
            .against_pods
            .extend(against.filter(|(_, line)| is_met(line)).map(|(chain, line)| place(chain, line)));
    }
    found
}

/// The rules that no packet from a peer to a pod meets on its way through FORWARD, because one before accepts it.
fn accepted_before<'a>(table: &'a Table, concern: &Concern) -> Vec<&'a Line> {
    let mut way = Way { table, concern, is_accepted: false, met: Vec::new(), behind: Vec::new() };
    way.walk("FORWARD", true, &mut Vec::new());
    let Way { met, mut behind, .. } = way;
    behind.retain(|line| !met.iter().any(|met| std::ptr::eq(*met, *line)));
    behind
}

/// The rules of a chain and of those it leads to, in the order in which a packet meets them.
struct Way<'a, 'b> {
    table: &'a Table,
    concern: &'b Concern,
    /// Whether every packet for a pod has been accepted so far.
    is_accepted: bool,
    /// Rules before that.
    met: Vec<&'a Line>,
    /// Rules behind it.
    behind: Vec<&'a Line>,
}

impl<'a> Way<'a, '_> {
    /// `is_certain` where every packet comes to the chain; `within` are the chains that lead to it.
    fn walk(&mut self, chain: &'a str, is_certain: bool, within: &mut Vec<&'a str>) {
        if within.contains(&chain) {
            return;
        }
        within.push(chain);
        let table = self.table;
        for line in table.rules(chain).unwrap_or_default() {
            if self.is_accepted {
                self.behind.push(line);
            } else {
                self.met.push(line);
            }
            self.is_accepted |= is_certain && line.accepts_all_to(self.concern.subnet);
            if let Some(target) = line.target().filter(|target| table.rules(target).is_some()) {
                self.walk(target, is_certain && line.is_plain_jump(), within);
            }
        }
        within.pop();
    }
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
