//! From what is there to what is wanted, in as few changes as possible.

use super::saved::{Line, Table};
use super::{Repair, Rule, line};

/// A chain of flannel's, and the built-in one that jumps to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain<'a> {
    pub(super) parent: &'static str,
    pub(super) name: &'a str,
    pub(super) comment: &'static str,
}

impl Chain<'_> {
    /// The rule of the parent that leads to it.
    pub(super) fn jump(&self) -> Line {
        Line::parse(&format!("-m comment --comment \"{}\" -j {}", self.comment, self.name))
    }
}

/// The changes to one table.
#[derive(Debug)]
pub(super) struct Edit {
    table: &'static str,
    lines: Vec<String>,
    /// What they do.
    pub(super) done: Vec<Repair>,
}

impl Edit {
    pub(super) fn new(table: &'static str) -> Self {
        Self { table, lines: Vec::new(), done: Vec::new() }
    }

    /// The input of `iptables-restore --noflush` for one transaction; empty if there is nothing to do.
    pub(super) fn payload(&self) -> String {
        if self.lines.is_empty() {
            return String::new();
        }
        format!("*{}\n{}\nCOMMIT\n", self.table, self.lines.join("\n"))
    }

    /// Makes the chain what is wanted, with one jump to it; without rules neither is wanted.
    pub(super) fn put(&mut self, table: &Table, chain: Chain<'_>, wanted: &[Rule]) {
        let Chain { name, comment, .. } = chain;
        if wanted.is_empty() {
            return self.remove(table, chain);
        }
        let wanted: Vec<Line> = wanted.iter().map(|rule| line(rule, comment)).collect();
        if table.rules(name) != Some(&wanted) {
            // Empties an existing chain, within the transaction.
            self.lines.push(format!(":{name} - [0:0]"));
            self.lines.extend(wanted.iter().map(|rule| format!("-A {name} {}", rule.text)));
            self.done.push(Repair::chain(table.rules(name).is_some(), format!("chain {name}")));
        }
        self.put_jump(table, chain);
    }

    fn put_jump(&mut self, table: &Table, chain: Chain<'_>) {
        let (Chain { parent, name, .. }, wanted) = (chain, chain.jump());
        let rules = table.rules(parent).unwrap_or_default();
        let (before, behind) = rules.split_at(place(rules));
        let jumps: Vec<&Line> = rules.iter().filter(|rule| rule.leads_to(name)).collect();
        if jumps == [&wanted] && !behind.contains(&wanted) {
            return;
        }
        self.lines.extend(jumps.iter().map(|jump| format!("-D {parent} {}", jump.text)));
        if table.is_opaque(parent) {
            // As stock flannel: where the user's rules stand in it is not known.
            self.lines.push(format!("-A {parent} {}", wanted.text));
            self.done.push(Repair::jump(!jumps.is_empty(), parent, name));
            return;
        }
        let number = 1 + before.iter().filter(|rule| !rule.leads_to(name)).count();
        self.lines.push(format!("-I {parent} {number} {}", wanted.text));
        self.done.push(Repair::jump(!jumps.is_empty(), parent, name));
    }

    fn remove(&mut self, table: &Table, Chain { parent, name, .. }: Chain<'_>) {
        let Some(rules) = table.rules(name) else { return };
        let jumps = table.rules(parent).unwrap_or_default().iter().filter(|rule| rule.leads_to(name));
        let mut lines: Vec<String> = jumps.map(|jump| format!("-D {parent} {}", jump.text)).collect();
        // A chain that the user's rules jump to cannot be removed.
        let can_go = !table.is_used_outside(parent, name);
        if !rules.is_empty() || can_go {
            lines.push(format!("-F {name}"));
        }
        if can_go {
            lines.push(format!("-X {name}"));
        }
        if !lines.is_empty() {
            self.lines.extend(lines);
            self.done.push(Repair::removal(format!("chain {name}")));
        }
    }

    /// Removes rules of a built-in chain.
    pub(super) fn remove_old(&mut self, parent: &str, old: &[Line]) {
        if !old.is_empty() {
            self.lines.extend(old.iter().map(|rule| format!("-D {parent} {}", rule.text)));
            self.done
                .push(Repair::removal(format!("{} rules of an earlier flannel from {parent}", old.len())));
        }
    }
}

/// How many rules come before a jump: all of them, or those before the one that refuses all packets.
fn place(rules: &[Line]) -> usize {
    rules.iter().position(Line::refuses_everything).unwrap_or(rules.len())
}
