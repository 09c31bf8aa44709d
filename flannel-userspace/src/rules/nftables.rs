//! A table of nftables, read and changed with `nft -j`: one transaction.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tracing::debug;

use super::rule::{Forward, KUBE_PROXY_MARK, Rule, Side, Verdict, Wanted};
use super::tool::Program;
use super::{Names, RulesError};

const NFT: Program = Program { name: "nft", package: "nftables", other_engine: false };

/// Where a base chain is hooked in.
#[derive(Clone, Copy, Debug)]
struct Base {
    name: &'static str,
    kind: &'static str,
    hook: &'static str,
    priority: i32,
}

const POSTROUTING: Base = Base { name: "postrtg", kind: "nat", hook: "postrouting", priority: 100 };
const FORWARD: Base = Base { name: "forward", kind: "filter", hook: "forward", priority: 0 };

/// Makes the table what is `wanted`, and tells what was changed.
pub(super) async fn ensure(names: &Names, wanted: &Wanted) -> Result<Vec<String>, RulesError> {
    put(&tables().await?, names, wanted).await
}

/// As [`ensure`], where nftables is not the chosen engine: where it cannot be read it has no rules.
pub(super) async fn tidy(names: &Names, wanted: &Wanted) -> Result<Vec<String>, RulesError> {
    match tables().await {
        Ok(tables) => put(&tables, names, wanted).await,
        Err(error) if error.is_absence() => {
            debug!(%error, "no rules of nftables to tidy up");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Families and names.
type Tables = BTreeSet<(String, String)>;

async fn put(tables: &Tables, names: &Names, wanted: &Wanted) -> Result<Vec<String>, RulesError> {
    let mut edit = Edit { family: "ip", table: &names.table, commands: Vec::new(), done: Vec::new() };
    let accept: &[Rule] = match &wanted.forward {
        Forward::Here(rules) => rules,
        // Nothing in this table accepts what another one drops.
        Forward::WhereDropped(_) | Forward::Nowhere => &[],
    };
    let is_there = tables.contains(&("ip".to_owned(), names.table.clone()));
    if wanted.masquerade.is_empty() && accept.is_empty() {
        if is_there {
            edit.delete_table();
        }
    } else {
        let listing = if is_there { list("ip", &names.table).await? } else { Vec::new() };
        if !is_there {
            edit.add_table();
        }
        edit.put(&listing, POSTROUTING, &wanted.masquerade);
        edit.put(&listing, FORWARD, accept);
    }
    edit.delete_left(names, wanted, tables).await?;
    if !edit.commands.is_empty() {
        NFT.run(&["-j", "-f", "-"], &json!({ "nftables": edit.commands }).to_string()).await?;
    }
    Ok(edit.done)
}

/// The chains of others that drop by default what this host forwards. That of iptables is not told of where
/// iptables is there, for then the rules are in it.
pub(super) async fn dropping_chains(has_iptables: bool) -> Result<Vec<String>, RulesError> {
    let objects = objects(&["-j", "list", "chains"]).await?;
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    let dropping = chains.filter(|chain| {
        let is_iptables = chain["family"] == "ip" && chain["table"] == "filter" && chain["name"] == "FORWARD";
        chain["hook"] == "forward"
            && chain["policy"] == "drop"
            && (chain["family"] == "ip" || chain["family"] == "inet")
            && !(is_iptables && has_iptables)
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |chain: &Value| ["family", "table", "name"].map(|key| text(&chain[key])).join(" ");
    Ok(dropping.map(name).collect())
}

async fn tables() -> Result<Tables, RulesError> {
    let objects = objects(&["-j", "list", "tables"]).await?;
    let tables = objects.iter().filter_map(|object| object.get("table"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(tables.map(|table| (text(&table["family"]), text(&table["name"]))).collect())
}

/// The objects of one table.
async fn list(family: &str, table: &str) -> Result<Vec<Value>, RulesError> {
    objects(&["-j", "list", "table", family, table]).await
}

async fn objects(arguments: &[&str]) -> Result<Vec<Value>, RulesError> {
    #[derive(serde::Deserialize)]
    struct Listing {
        nftables: Vec<Value>,
    }
    let text = NFT.run(arguments, "").await?;
    let listing: Listing = serde_json::from_str(&text).map_err(|source| RulesError::Unreadable {
        command: format!("nft {}", arguments.join(" ")),
        source,
    })?;
    Ok(listing.nftables)
}

/// A transaction.
struct Edit<'a> {
    family: &'static str,
    table: &'a str,
    commands: Vec<Value>,
    /// What it does, in words.
    done: Vec<String>,
}

impl Edit<'_> {
    fn add_table(&mut self) {
        self.commands.push(json!({ "add": { "table": { "family": self.family, "name": self.table } } }));
    }

    fn delete_table(&mut self) {
        self.delete_other("ip", self.table);
    }

    fn delete_other(&mut self, family: &str, table: &str) {
        self.commands.push(json!({ "delete": { "table": { "family": family, "name": table } } }));
        self.done.push(format!("removed table {family} {table}"));
    }

    /// Deletes what stock flannel left under its own names: its table for IPv6, which it always makes, and
    /// its table for a network that has another name here.
    async fn delete_left(
        &mut self,
        names: &Names,
        wanted: &Wanted,
        tables: &Tables,
    ) -> Result<(), RulesError> {
        let is_there = |family: &str, table: &str| tables.contains(&(family.to_owned(), table.to_owned()));
        let stock = Names::stock().table;
        if names.is_stock() {
            if is_there("ip6", "flannel-ipv6") {
                self.delete_other("ip6", "flannel-ipv6");
            }
        } else if let Some(network) = wanted.network
            && is_there("ip", &stock)
        {
            let inside = prefix(Side { network, is_negated: false }).to_string();
            let listing = list("ip", &stock).await?;
            let rules = listing.iter().filter_map(|object| object.get("rule"));
            let mut with_address = rules.map(Value::to_string).filter(|rule| rule.contains("addr\""));
            if with_address.next().is_some_and(|rule| rule.contains(&inside))
                && with_address.all(|rule| rule.contains(&inside))
            {
                self.delete_other("ip", &stock);
            }
        }
        Ok(())
    }

    /// Makes a chain what is wanted; without rules it is not wanted.
    fn put(&mut self, listing: &[Value], base: Base, wanted: &[Rule]) {
        let chains = listing.iter().filter_map(|object| object.get("chain"));
        let found = chains.into_iter().find(|chain| chain["name"] == base.name);
        let rules = listing.iter().filter_map(|object| object.get("rule"));
        let found_rules: Vec<Value> = rules
            .filter(|rule| rule["chain"] == base.name)
            .map(|rule| normal(rule["expr"].clone()))
            .collect();
        let wanted: Vec<Value> = wanted.iter().map(expression).collect();
        let is_hooked = found.is_some_and(|chain| base.is(chain));
        if wanted.is_empty() && found.is_none() || is_hooked && found_rules == wanted {
            return;
        }
        let chain = json!({ "family": self.family, "table": self.table, "name": base.name });
        if found.is_some() {
            self.commands.push(json!({ "flush": { "chain": chain } }));
            if !is_hooked || wanted.is_empty() {
                self.commands.push(json!({ "delete": { "chain": chain } }));
            }
        }
        if wanted.is_empty() {
            self.done.push(format!("removed chain {} of table {} {}", base.name, self.family, self.table));
            return;
        }
        if !is_hooked {
            self.commands.push(json!({ "add": { "chain": {
                "family": self.family, "table": self.table, "name": base.name, "type": base.kind,
                "hook": base.hook, "prio": base.priority, "policy": "accept",
            } } }));
        }
        self.commands.extend(wanted.iter().map(|expression| {
            json!({ "add": { "rule": {
                "family": self.family, "table": self.table, "chain": base.name, "expr": expression,
            } } })
        }));
        self.done.push(format!("wrote chain {} of table {} {}", base.name, self.family, self.table));
    }
}

impl Base {
    fn is(&self, chain: &Value) -> bool {
        chain["type"] == self.kind
            && chain["hook"] == self.hook
            && chain["prio"] == self.priority
            && chain["policy"] == "accept"
    }
}

/// A rule as `nft` reads it and prints it.
fn expression(rule: &Rule) -> Value {
    let mut statements = Vec::new();
    if rule.marked {
        let masked = json!({ "&": [{ "meta": { "key": "mark" } }, KUBE_PROXY_MARK] });
        statements.push(json!({ "match": { "op": "==", "left": masked, "right": KUBE_PROXY_MARK } }));
    }
    statements.extend(rule.source.map(|side| address("saddr", side)));
    statements.extend(rule.destination.map(|side| address("daddr", side)));
    statements.push(match rule.verdict {
        Verdict::Return => json!({ "return": null }),
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Masquerade { fully_random: false } => json!({ "masquerade": null }),
        Verdict::Masquerade { fully_random: true } => json!({ "masquerade": { "flags": ["fully-random"] } }),
    });
    Value::Array(statements)
}

fn address(field: &str, side: Side) -> Value {
    let op = if side.is_negated { "!=" } else { "==" };
    let left = json!({ "payload": { "protocol": "ip", "field": field } });
    json!({ "match": { "op": op, "left": left, "right": prefix(side) } })
}

fn prefix(Side { network, .. }: Side) -> Value {
    json!({ "prefix": { "addr": network.ip(), "len": network.prefix() } })
}

/// A single flag may be printed without the array.
fn normal(mut expression: Value) -> Value {
    for statement in expression.as_array_mut().into_iter().flatten() {
        if let Some(flags) = statement.pointer_mut("/masquerade/flags")
            && flags.is_string()
        {
            *flags = Value::Array(vec![flags.take()]);
        }
    }
    expression
}
