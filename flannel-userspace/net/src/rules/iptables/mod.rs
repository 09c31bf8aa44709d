//! Chains of iptables, read with `iptables-save` and changed with `iptables-restore`: one transaction for
//! each table.

mod opaque;
mod plan;
mod saved;
#[cfg(test)]
mod tests;

use tracing::debug;

use super::rule::{Forward, KUBE_PROXY_MARK, Rule, Side, Verdict, Wanted};
use super::tool::Program;
use super::{Intent, Names, Repair, RulesError};
use plan::{Chain, Edit};
pub(super) use saved::{Line, Saved, Table};

/// How often rules are read again if others changed them between reading and writing.
const ATTEMPTS: u32 = 3;
/// How long to wait for the lock of the legacy variant, in seconds.
const WAIT: &str = "--wait=10";

/// Comments of the rules, as stock flannel's.
const MASQUERADE: &str = "flanneld masq";
const FORWARD: &str = "flanneld forward";
const GUARD: &str = "flanneld guard";

/// A variant of iptables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tool {
    main: Program,
    save: Program,
    restore: Program,
}

/// The variant that `iptables` stands for.
pub(super) const DEFAULT: Tool = Tool::new("iptables", "iptables-save", "iptables-restore");
/// The variant that writes into nftables.
const NFT: Tool = Tool::new("iptables-nft", "iptables-nft-save", "iptables-nft-restore");
/// The variant with tables of its own in the kernel.
pub(super) const LEGACY: Tool =
    Tool::new("iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore");

impl Tool {
    const fn new(main: &'static str, save: &'static str, restore: &'static str) -> Self {
        const fn program(name: &'static str) -> Program {
            Program { name, package: "iptables", other_engine: true }
        }
        Self { main: program(main), save: program(save), restore: program(restore) }
    }

    async fn version(&self) -> Result<String, RulesError> {
        self.main.run(&["-V"], "").await
    }

    /// The name of its program.
    pub(super) const fn name(&self) -> &'static str {
        self.main.name
    }

    pub(super) async fn read(&self, names: &Names) -> Result<Saved, RulesError> {
        // Without the name of a table it reads existing ones, and creates none.
        let mut saved = Saved::parse(&self.save.run(&[], "").await?);
        opaque::complete(self, &mut saved, names).await?;
        Ok(saved)
    }
}

/// `first`, and then the other variant if it is installed.
///
/// # Errors
/// `first` is missing.
pub(super) async fn tools(first: Tool) -> Result<Vec<Tool>, RulesError> {
    // Before 1.8 there was one variant, which did not name itself.
    let other = if first.version().await?.contains("nf_tables") { LEGACY } else { NFT };
    match other.version().await {
        Ok(_) => Ok(vec![first, other]),
        Err(error) if error.is_missing() => {
            debug!("{} is not installed; it has left no rules", other.main.name);
            Ok(vec![first])
        }
        Err(error) => Err(error),
    }
}

/// Makes the rules of one variant what is `wanted`, and returns what was changed.
pub(super) async fn ensure(
    tool: &Tool,
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Vec<Repair>, RulesError> {
    put(tool, tool.read(names).await?, names, wanted, intent).await
}

/// As [`ensure`], for a variant that is not the chosen one: if it cannot be read it has no rules.
pub(super) async fn tidy(
    tool: &Tool,
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Vec<Repair>, RulesError> {
    match tool.read(names).await {
        Ok(saved) => put(tool, saved, names, wanted, intent).await,
        Err(error) if error.is_absence() => {
            debug!(%error, "no rules of {} to tidy up", tool.main.name);
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

async fn put(
    tool: &Tool,
    mut saved: Saved,
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Vec<Repair>, RulesError> {
    let done = |edits: [Edit; 3]| {
        let done = edits.into_iter().flat_map(|edit| edit.done);
        done.map(|repair| repair.of(tool.main.name)).collect()
    };
    let mut attempt = 1;
    loop {
        let edits = edits(&saved, names, wanted);
        let payload: String = edits.iter().map(Edit::payload).collect();
        if payload.is_empty() {
            return Ok(Vec::new());
        }
        if intent == Intent::Compare {
            return Ok(done(edits));
        }
        match tool.restore.run(&["--noflush", WAIT], &payload).await {
            Ok(_) => return Ok(done(edits)),
            Err(RulesError::Failed { stderr, .. }) if attempt < ATTEMPTS => {
                debug!(stderr, "iptables refused; reading the rules again");
                attempt += 1;
                saved = tool.read(names).await?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn edits(saved: &Saved, names: &Names, wanted: &Wanted) -> [Edit; 3] {
    [
        nat(saved.table("nat"), names, wanted),
        filter(saved.table("filter"), names, wanted),
        mangle(saved.table("mangle"), names, wanted),
    ]
}

fn nat(table: &Table, names: &Names, wanted: &Wanted) -> Edit {
    let chain = |name| Chain { parent: "POSTROUTING", name, comment: MASQUERADE };
    let mut edit = Edit::new("nat");
    edit.put(table, chain(&names.postrouting), &wanted.masquerade);
    if let Some(network) = wanted.network {
        edit.remove_old("POSTROUTING", &saved::old_masquerade(table, network));
        if !names.is_stock() && table.is_chain_of("FLANNEL-POSTRTG", network) {
            edit.put(table, chain("FLANNEL-POSTRTG"), &[]);
        }
    }
    edit
}

fn filter(table: &Table, names: &Names, wanted: &Wanted) -> Edit {
    let chain = |name| Chain { parent: "FORWARD", name, comment: FORWARD };
    let rules: &[Rule] = match &wanted.forward {
        Forward::Here(rules) => rules,
        Forward::WhereDropped(rules) if table.drops("FORWARD") => rules,
        Forward::WhereDropped(_) | Forward::Nowhere => &[],
    };
    let mut edit = Edit::new("filter");
    edit.put(table, chain(&names.forward), rules);
    if let Some(network) = wanted.network {
        edit.remove_old("FORWARD", &saved::old_forward(table, network));
        if !names.is_stock() && table.is_chain_of("FLANNEL-FWD", network) {
            edit.put(table, chain("FLANNEL-FWD"), &[]);
        }
    }
    edit
}

fn mangle(table: &Table, names: &Names, wanted: &Wanted) -> Edit {
    let mut edit = Edit::new("mangle");
    let chain = Chain { parent: "POSTROUTING", name: &names.guard, comment: GUARD };
    edit.put(table, chain, &wanted.guard);
    edit
}

/// `rule` as `iptables-save` prints it, without the chain.
fn line(rule: &Rule, comment: &str) -> Line {
    let mut words = Vec::new();
    words.extend(rule.source.map(|side| address("-s", side)));
    words.extend(rule.destination.map(|side| address("-d", side)));
    if rule.marked {
        words.push(format!("-m mark --mark {KUBE_PROXY_MARK:#x}/{KUBE_PROXY_MARK:#x}"));
    }
    words.extend(rule.port.map(|port| format!("-p udp -m udp --dport {port}")));
    if rule.is_asking {
        words.push("-m conntrack --ctdir ORIGINAL".to_owned());
    }
    words.push(format!("-m comment --comment \"{comment}\" -j"));
    words.push(match rule.verdict {
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Accept => "ACCEPT".to_owned(),
        Verdict::Drop => "DROP".to_owned(),
        Verdict::Masquerade { fully_random: false } => "MASQUERADE".to_owned(),
        Verdict::Masquerade { fully_random: true } => "MASQUERADE --random-fully".to_owned(),
    });
    Line::parse(&words.join(" "))
}

fn address(option: &str, side: Side) -> String {
    format!("{}{option} {}", if side.is_negated { "! " } else { "" }, side.network)
}
