//! Rules of nftables' own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;

use serde_json::Value;
use tokio::task::spawn_blocking;

use super::super::RulesError;
use super::super::nftables::objects;
use super::{Concern, OtherRules};

/// The tables that iptables makes.
const OF_IPTABLES: [&str; 5] = ["nat", "filter", "mangle", "raw", "security"];
/// Where a packet of the tunnel would come by if programs did not take it, or send it, before.
const ON_THE_TUNNELS_WAY: [&str; 5] = ["ingress", "egress", "prerouting", "input", "output"];
/// Where a packet for a pod comes by.
const ON_THE_PODS_WAY: [&str; 2] = ["prerouting", "forward"];
/// What a rule may say besides its verdict and still be for every packet.
const OF_EVERY_RULE: [&str; 3] = ["counter", "log", "limit"];

/// Rules in their order, by the family, the table and the chain that they are in: with kube-proxy there are thousands of
/// chains.
type Rules<'a> = BTreeMap<[&'a str; 3], Vec<&'a Value>>;

/// A table of IPv4.
#[derive(Clone, Copy)]
struct Table<'a> {
    objects: &'a [Value],
    rules: &'a Rules<'a>,
    family: &'a str,
    name: &'a str,
}

pub(super) async fn matter(concern: &Concern, has_iptables: bool) -> Result<OtherRules, RulesError> {
    let objects = objects(&["-j", "list", "ruleset"]).await?;
    let concern = concern.clone();
    let search = move || search(&objects, &concern, has_iptables);
    // There may be a hundred thousand of them, and nothing else moves on this thread.
    match spawn_blocking(search).await {
        Ok(found) => Ok(found),
        Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
        // The daemon ends.
        Err(_) => Ok(OtherRules::default()),
    }
}

fn search(objects: &[Value], concern: &Concern, has_iptables: bool) -> OtherRules {
    let mut rules = Rules::new();
    for rule in objects.iter().filter_map(|object| object.get("rule")) {
        let place = ["family", "table", "chain"].map(|name| text(&rule[name]));
        rules.entry(place).or_default().push(rule);
    }
    let mut found = OtherRules::default();
    for table in objects.iter().filter_map(|object| object.get("table")) {
        let (family, name) = (text(&table["family"]), text(&table["name"]));
        let table = Table { objects, rules: &rules, family, name };
        let is_of_iptables = table.family == "ip" && OF_IPTABLES.contains(&table.name) && has_iptables;
        if ["ip", "inet", "netdev"].contains(&table.family) && !is_of_iptables && !table.is_ours() {
            table.search(concern, &mut found);
        }
    }
    found
}

impl<'a> Table<'a> {
    fn is_ours(self) -> bool {
        self.name.starts_with("flannel-ipv4")
    }

    fn of(self, kind: &'static str) -> impl Iterator<Item = &'a Value> {
        let objects = self.objects.iter().filter_map(move |object| object.get(kind));
        objects.filter(move |object| object["family"] == self.family && object["table"] == self.name)
    }

    fn rules(self, chain: &'a str) -> impl Iterator<Item = &'a Value> {
        self.rules.get(&[self.family, self.name, chain]).into_iter().flatten().copied()
    }

    fn search(self, concern: &Concern, found: &mut OtherRules) {
        let hooked = |hooks: &[&str]| -> Vec<&str> {
            let chains = self.of("chain").filter(|chain| hooks.contains(&text(&chain["hook"])));
            chains.map(|chain| text(&chain["name"])).collect()
        };
        let place = |rule: &Value| {
            let chain = text(&rule["chain"]);
            format!("the rule of handle {} in chain {} {} {chain}", rule["handle"], self.family, self.name)
        };
        if let Some(port) = concern.port {
            let rules = self.reached(hooked(&ON_THE_TUNNELS_WAY)).into_iter();
            found.without_effect.extend(rules.filter(|rule| decides_about(rule, port)).map(place));
        }
        let rules = self.reached(hooked(&ON_THE_PODS_WAY)).into_iter();
        found.against_pods.extend(rules.filter(|rule| is_against(rule, concern)).map(place));
        if concern.forwards && !self.names_any_of(concern) {
            let chains = self.of("chain").filter(|chain| chain["hook"] == "forward" && self.refuses(chain));
            let name = |chain: &Value| format!("{} {} {}", self.family, self.name, text(&chain["name"]));
            found.refusing.extend(chains.map(name));
        }
    }

    /// The rules that a packet can meet from one of the `chains` on.
    fn reached(self, chains: Vec<&'a str>) -> Vec<&'a Value> {
        let (mut seen, mut due, mut all) = (BTreeSet::new(), chains, Vec::new());
        while let Some(chain) = due.pop() {
            if !seen.insert(chain) {
                continue;
            }
            for rule in self.rules(chain) {
                targets(&rule["expr"], &mut due);
                all.push(rule);
            }
        }
        // Maps of verdicts stand beside the rules.
        if !all.is_empty() {
            self.of("map").for_each(|map| targets(&map["elem"], &mut due));
            let more: BTreeSet<&str> = due.into_iter().filter(|chain| !seen.contains(chain)).collect();
            all.extend(more.into_iter().flat_map(|chain| self.rules(chain)));
        }
        all
    }

    /// Whether the chain ends in a refusal of every packet.
    fn refuses(self, chain: &'a Value) -> bool {
        chain["policy"] == "drop" || self.rules(text(&chain["name"])).last().is_some_and(refuses_everything)
    }

    /// Whether anything in the table is about the network or flannel's interfaces, which then are thought of.
    fn names_any_of(self, concern: &Concern) -> bool {
        let network = concern.network.network().to_string();
        let names = concern.devices.iter().chain(&concern.bridges);
        let quoted: Vec<String> = names.chain([&network]).map(|name| format!("\"{name}\"")).collect();
        let mut parts = ["rule", "set", "map", "element"].into_iter().flat_map(|kind| self.of(kind));
        parts.any(|part| {
            let part = part.to_string();
            quoted.iter().any(|name| part.contains(name))
        })
    }
}

/// The chains that anything in `value` leads to.
fn targets<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("target").and_then(Value::as_str));
            members.values().for_each(|member| targets(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| targets(element, found)),
        _ => {}
    }
}

fn statements(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

fn has(rule: &Value, verdict: &str) -> bool {
    statements(rule).any(|statement| statement.get(verdict).is_some())
}

fn refuses(rule: &Value) -> bool {
    has(rule, "drop") || has(rule, "reject")
}

fn refuses_everything(rule: &Value) -> bool {
    let is_plain = |statement: &Value| {
        let mut members = statement.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        members.all(|name| OF_EVERY_RULE.contains(&name) || name == "drop" || name == "reject")
    };
    refuses(rule) && statements(rule).all(is_plain)
}

/// Whether a rule is about a UDP port and lets not everybody pass.
fn decides_about(rule: &Value, port: u16) -> bool {
    let is_about = |statement: &Value| {
        let payload = &statement["match"]["left"]["payload"];
        let is_port = ["dport", "sport"].contains(&text(&payload["field"]));
        is_port && ["udp", "th"].contains(&text(&payload["protocol"])) && {
            includes(&statement["match"]["right"], port)
        }
    };
    let by_address = statements(rule).any(|statement| is_payload(statement, "ip", &["saddr", "daddr"]));
    let leads_on = has(rule, "jump") || has(rule, "goto");
    statements(rule).any(is_about) && (refuses(rule) || leads_on || has(rule, "accept") && by_address)
}

fn is_payload(statement: &Value, protocol: &str, fields: &[&str]) -> bool {
    let payload = &statement["match"]["left"]["payload"];
    payload["protocol"] == protocol && fields.contains(&text(&payload["field"]))
}

/// Whether the right side of a comparison holds for a port.
fn includes(right: &Value, port: u16) -> bool {
    match right {
        Value::Number(number) => number.as_u64() == Some(port.into()),
        Value::Array(elements) => elements.iter().any(|element| includes(element, port)),
        Value::Object(members) => match members.get("range").and_then(Value::as_array).map(Vec::as_slice) {
            Some([first, last]) => {
                let (first, last) = (first.as_u64().unwrap_or(u64::MAX), last.as_u64().unwrap_or(0));
                (first..=last).contains(&port.into())
            }
            _ => members.get("set").is_some_and(|set| includes(set, port)),
        },
        _ => false,
    }
}

/// Whether a rule drops what comes to pods by other interfaces than their bridge, as Docker's do.
fn is_against(rule: &Value, concern: &Concern) -> bool {
    let by_destination = statements(rule).any(|statement| {
        let right = &statement["match"]["right"];
        let address = right.as_str().or_else(|| right["prefix"]["addr"].as_str()).unwrap_or_default();
        is_payload(statement, "ip", &["daddr"])
            && statement["match"]["op"] == "=="
            && address.parse().is_ok_and(|address| concern.subnet.contains(address))
    });
    let is_bridge = |statement: &Value, key: &str, op: &str| {
        statement["match"]["left"]["meta"]["key"] == key
            && statement["match"]["op"] == op
            && concern.bridges.iter().any(|bridge| statement["match"]["right"] == bridge.as_str())
    };
    let from_elsewhere = statements(rule).any(|statement| is_bridge(statement, "iifname", "!="));
    let to_bridge = statements(rule).any(|statement| is_bridge(statement, "oifname", "=="));
    refuses(rule) && from_elsewhere && (by_destination || to_bridge)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
