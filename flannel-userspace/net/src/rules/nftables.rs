//! A table of nftables, read and changed with `nft -j`: one transaction.

use ipnetwork::IpNetwork;
use serde_json::{Value, json};
use tracing::debug;

use super::rule::{Forward, KUBE_PROXY_MARK, Rule, Side, Verdict, Wanted};
use super::tool::Program;
use super::{Intent, Names, Repair, RulesError};

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
const GUARD: Base = Base { name: "guard", kind: "filter", hook: "postrouting", priority: -150 };
const FORWARD: Base = Base { name: "forward", kind: "filter", hook: "forward", priority: 0 };

/// Makes the table what is `wanted`, and returns what was changed.
pub(super) async fn ensure(
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Vec<Repair>, RulesError> {
    put(list("ip", &names.table).await?, names, wanted, intent).await
}

/// As [`ensure`], if nftables is not the chosen engine: if it cannot be read it has no rules.
pub(super) async fn tidy(names: &Names, wanted: &Wanted, intent: Intent) -> Result<Vec<Repair>, RulesError> {
    match list("ip", &names.table).await {
        Ok(listing) => put(listing, names, wanted, intent).await,
        Err(error) if error.is_absence() => {
            debug!(%error, "no rules of nftables to tidy up");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

async fn put(
    listing: Option<Listing>,
    names: &Names,
    wanted: &Wanted,
    intent: Intent,
) -> Result<Vec<Repair>, RulesError> {
    let mut edit = Edit { table: &names.table, commands: Vec::new(), done: Vec::new() };
    let accept: &[Rule] = match &wanted.forward {
        Forward::Here(rules) => rules,
        // Nothing in this table accepts what another one drops.
        Forward::WhereDropped(_) | Forward::Nowhere => &[],
    };
    if !wanted.masquerade.is_empty() || !wanted.guard.is_empty() || !accept.is_empty() {
        if listing.is_none() {
            edit.add_table();
        }
        let listing = listing.unwrap_or_default();
        edit.put(&listing, POSTROUTING, &wanted.masquerade);
        edit.put(&listing, GUARD, &wanted.guard);
        edit.put(&listing, FORWARD, accept);
    } else if listing.is_some() {
        edit.delete_table("ip", &names.table);
    }
    edit.delete_left(names, wanted).await?;
    if intent == Intent::Correct && !edit.commands.is_empty() {
        NFT.run(&["-j", "-f", "-"], &json!({ "nftables": edit.commands }).to_string()).await?;
    }
    Ok(edit.done)
}

/// How many rules of a chain of iptables, by the name of its table, jump to `target`.
pub(super) async fn jumps(table: &str, chain: &str, target: &str) -> Result<usize, RulesError> {
    let objects = objects(&["-j", "list", "chain", "ip", table, chain]).await?;
    let statements = objects.iter().filter_map(|object| object["rule"]["expr"].as_array()).flatten();
    Ok(statements.filter(|statement| statement["jump"]["target"] == target).count())
}

/// The objects of one table.
type Listing = Vec<Value>;

/// One table; `None` if it does not exist. To list all tables would read every rule of the host.
async fn list(family: &str, table: &str) -> Result<Option<Listing>, RulesError> {
    match objects(&["-j", "list", "table", family, table]).await {
        Ok(listing) => Ok(Some(listing)),
        Err(RulesError::Failed { stderr, .. }) if stderr.contains("No such file or directory") => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) async fn objects(arguments: &[&str]) -> Result<Vec<Value>, RulesError> {
    #[derive(serde::Deserialize)]
    struct Output {
        nftables: Vec<Value>,
    }
    let text = NFT.run(arguments, "").await?;
    let output: Output = serde_json::from_str(&text).map_err(|source| RulesError::Unreadable {
        command: format!("nft {}", arguments.join(" ")),
        source,
    })?;
    Ok(output.nftables)
}

/// A transaction.
struct Edit<'a> {
    table: &'a str,
    commands: Vec<Value>,
    /// What it does.
    done: Vec<Repair>,
}

impl Edit<'_> {
    fn add_table(&mut self) {
        self.commands.push(json!({ "add": { "table": { "family": "ip", "name": self.table } } }));
    }

    fn delete_table(&mut self, family: &str, table: &str) {
        self.commands.push(json!({ "delete": { "table": { "family": family, "name": table } } }));
        self.done.push(Repair::removal(format!("table {family} {table}")));
    }

    /// Deletes what stock flannel has left under its own names: its table for IPv6, which it always makes, and its
    /// table for a network that has another name here.
    async fn delete_left(&mut self, names: &Names, wanted: &Wanted) -> Result<(), RulesError> {
        let stock = Names::stock().table;
        if names.is_stock() {
            if list("ip6", "flannel-ipv6").await?.is_some() {
                self.delete_table("ip6", "flannel-ipv6");
            }
        } else if let Some(network) = wanted.network
            && let Some(listing) = list("ip", &stock).await?
            && is_table_of(&listing, network)
        {
            self.delete_table("ip", &stock);
        }
        Ok(())
    }

    /// Makes a chain what is wanted; one without rules is not wanted.
    fn put(&mut self, listing: &[Value], base: Base, wanted: &[Rule]) {
        let mut chains = listing.iter().filter_map(|object| object.get("chain"));
        let found = chains.find(|chain| chain["name"] == base.name);
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
        let text = format!("chain {} of table ip {}", base.name, self.table);
        let chain = json!({ "family": "ip", "table": self.table, "name": base.name });
        if found.is_some() {
            self.commands.push(json!({ "flush": { "chain": chain } }));
            if !is_hooked || wanted.is_empty() {
                self.commands.push(json!({ "delete": { "chain": chain } }));
            }
        }
        if wanted.is_empty() {
            self.done.push(Repair::removal(text));
            return;
        }
        if !is_hooked {
            self.commands.push(json!({ "add": { "chain": {
                "family": "ip", "table": self.table, "name": base.name, "type": base.kind,
                "hook": base.hook, "prio": base.priority, "policy": "accept",
            } } }));
        }
        self.commands.extend(wanted.iter().map(|expression| {
            json!({ "add": { "rule": {
                "family": "ip", "table": self.table, "chain": base.name, "expr": expression,
            } } })
        }));
        self.done.push(Repair::chain(found.is_some(), text));
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

/// A rule as `nft` reads and prints it.
fn expression(rule: &Rule) -> Value {
    let mut statements = Vec::new();
    if rule.marked {
        let masked = json!({ "&": [{ "meta": { "key": "mark" } }, KUBE_PROXY_MARK] });
        statements.push(json!({ "match": { "op": "==", "left": masked, "right": KUBE_PROXY_MARK } }));
    }
    statements.extend(rule.source.map(|side| address("saddr", side)));
    statements.extend(rule.destination.map(|side| address("daddr", side)));
    if let Some(port) = rule.port {
        let left = json!({ "payload": { "protocol": "udp", "field": "dport" } });
        statements.push(json!({ "match": { "op": "==", "left": left, "right": port } }));
    }
    if rule.is_asking {
        let left = json!({ "ct": { "key": "direction" } });
        statements.push(json!({ "match": { "op": "==", "left": left, "right": "original" } }));
    }
    statements.push(match rule.verdict {
        Verdict::Return => json!({ "return": null }),
        Verdict::Accept => json!({ "accept": null }),
        Verdict::Drop => json!({ "drop": null }),
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

/// Whether the table has rules with addresses, and `network` in each of them.
fn is_table_of(listing: &[Value], network: IpNetwork) -> bool {
    let inside = prefix(Side { network, is_negated: false }).to_string();
    let rules = listing.iter().filter_map(|object| object.get("rule")).map(Value::to_string);
    let mut with_address = rules.filter(|rule| rule.contains("\"payload\""));
    with_address.next().is_some_and(|rule| rule.contains(&inside))
        && with_address.all(|rule| rule.contains(&inside))
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
