//! What `iptables-save` prints.

use std::collections::{BTreeMap, BTreeSet};

use flannel_model::config::cidr;
use ipnetwork::IpNetwork;

/// All tables that are there.
#[derive(Debug, Default)]
pub(in crate::rules) struct Saved {
    tables: BTreeMap<String, Table>,
    absent: Table,
    /// Tables that are there and are not printed.
    opaque: Vec<String>,
}

/// A table's chains, in no order.
#[derive(Debug, Default)]
pub(in crate::rules) struct Table {
    chains: BTreeMap<String, SavedChain>,
}

#[derive(Debug, Default)]
struct SavedChain {
    /// `ACCEPT`, `DROP`, or `-` for a chain that is not built in.
    policy: String,
    rules: Vec<Line>,
    /// Whether it has other rules, which iptables does not understand.
    is_opaque: bool,
}

/// A rule, without the chain it is in. Two are equal if their options are, in whatever order, for the order
/// is not the same in all versions.
#[derive(Clone, Debug)]
pub(in crate::rules) struct Line {
    /// As printed, so that it can be parsed again.
    pub(in crate::rules) text: String,
    /// `!`, an option, its arguments. Modules are left out: their options imply them.
    options: BTreeSet<Vec<String>>,
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.options == other.options
    }
}

impl Saved {
    pub(super) fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = &mut saved.absent;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = saved.tables.entry(name.trim().to_owned()).or_default();
            } else if let Some(name) = incompatible(line) {
                saved.opaque.push(name.to_owned());
            } else {
                table.read(line);
            }
        }
        saved
    }

    pub(super) fn opaque_tables(&self) -> Vec<String> {
        self.opaque.clone()
    }

    /// Adds what `iptables -S` prints of a chain, unless that is known.
    pub(super) fn add(&mut self, table: &str, text: &str) {
        let table = self.table_mut(table);
        let name = text.split_whitespace().nth(1).unwrap_or_default();
        if table.rules(name).is_none() {
            text.lines().for_each(|line| table.read(line));
        }
    }

    pub(super) fn table_mut(&mut self, name: &str) -> &mut Table {
        self.tables.entry(name.to_owned()).or_default()
    }

    /// Those that are there, by name.
    pub(in crate::rules) fn tables(&self) -> impl Iterator<Item = (&str, &Table)> {
        self.tables.iter().map(|(name, table)| (name.as_str(), table))
    }

    /// One that is not there is empty.
    pub(super) fn table(&self, name: &str) -> &Table {
        self.tables.get(name).unwrap_or(&self.absent)
    }
}

impl Table {
    fn chain(&mut self, name: &str) -> &mut SavedChain {
        self.chains.entry(name.to_owned()).or_default()
    }

    /// Reads a line about a chain, as `iptables-save` or `iptables -S` prints it.
    fn read(&mut self, line: &str) {
        let words = |prefix| line.strip_prefix(prefix).and_then(|line: &str| line.split_once(' '));
        if let Some((name, rest)) = words(":").or_else(|| words("-P ")) {
            let policy = rest.split_whitespace().next().unwrap_or_default();
            self.chain(name).policy = policy.to_owned();
        } else if let Some(name) = line.strip_prefix("-N ") {
            "-".clone_into(&mut self.chain(name.trim()).policy);
        } else if let Some((name, rule)) = words("-A ") {
            self.chain(name).rules.push(Line::parse(rule));
        }
    }

    /// Adds `count` rules like `jump`, beside others that cannot be read, to a chain.
    pub(super) fn add_opaque(&mut self, chain: &str, jump: &Line, count: usize) {
        let chain = self.chain(chain);
        chain.is_opaque = true;
        chain.rules.extend(std::iter::repeat_n(jump.clone(), count));
    }

    /// Whether only some rules of a chain are known.
    pub(super) fn is_opaque(&self, chain: &str) -> bool {
        self.chains.get(chain).is_some_and(|chain| chain.is_opaque)
    }

    /// The rules of a chain; `None` if there is no such chain.
    pub(in crate::rules) fn rules(&self, chain: &str) -> Option<&[Line]> {
        self.chains.get(chain).map(|chain| chain.rules.as_slice())
    }

    /// Whether a built-in chain refuses what nothing in it accepts.
    pub(super) fn drops(&self, chain: &str) -> bool {
        self.chains
            .get(chain)
            .is_some_and(|chain| chain.policy == "DROP" || chain.rules.iter().any(Line::refuses_everything))
    }

    /// Whether any chain but `parent` leads to `chain`.
    pub(super) fn is_used_outside(&self, parent: &str, chain: &str) -> bool {
        let others = self.chains.iter().filter(|(name, _)| *name != parent);
        others.flat_map(|(_, other)| &other.rules).any(|rule| rule.leads_to(chain))
    }

    /// Whether `chain` has rules with addresses, and `network` in each of them.
    pub(super) fn is_chain_of(&self, chain: &str, network: IpNetwork) -> bool {
        let mut rules = self.rules(chain).unwrap_or_default().iter().filter(|rule| rule.has_address());
        let mentions = |rule: &Line| rule.mentions(network);
        rules.next().is_some_and(mentions) && rules.all(mentions)
    }
}

impl Line {
    /// Reads a rule as it is printed: quotes around words with spaces, backslashes before quotes.
    pub(super) fn parse(text: &str) -> Self {
        let mut options: Vec<Vec<String>> = Vec::new();
        let mut is_negated = false;
        for (word, is_quoted) in words(text) {
            if word == "!" {
                is_negated = true;
            } else if word.starts_with('-') && !is_quoted {
                let negation = is_negated.then(|| "!".to_owned());
                options.push(negation.into_iter().chain([word]).collect());
                is_negated = false;
            } else if let Some(option) = options.last_mut() {
                option.push(word);
            }
        }
        options.retain(|option| option[0] != "-m");
        Self { text: text.to_owned(), options: options.into_iter().collect() }
    }

    /// The words as arguments of `iptables`.
    pub(super) fn words(&self) -> Vec<String> {
        words(&self.text).into_iter().map(|(word, _)| word).collect()
    }

    fn has(&self, option: &[&str]) -> bool {
        self.options.iter().any(|has| has.iter().eq(option))
    }

    pub(super) fn leads_to(&self, chain: &str) -> bool {
        self.has(&["-j", chain]) || self.has(&["-g", chain])
    }

    /// Whether every packet that comes to this rule ends there.
    pub(super) fn refuses_everything(&self) -> bool {
        let is_plain =
            |option: &Vec<String>| ["-j", "--reject-with", "--comment"].contains(&option[0].as_str());
        (self.leads_to("DROP") || self.leads_to("REJECT")) && self.options.iter().all(is_plain)
    }

    /// The chain, or the verdict, that it leads to.
    pub(in crate::rules) fn target(&self) -> Option<&str> {
        let jump = self.options.iter().find(|option| option[0] == "-j" || option[0] == "-g")?;
        jump.get(1).map(String::as_str)
    }

    /// Whether it is about a UDP port and lets not everybody pass.
    pub(in crate::rules) fn decides_about(&self, port: u16) -> bool {
        let names_port = |option: &Vec<String>| {
            let name = option.iter().find(|word| *word != "!").map(String::as_str);
            matches!(name, Some("--dport" | "--sport" | "--dports" | "--sports" | "--ports"))
                && option.last().is_some_and(|list| list.split(',').any(|ports| includes(ports, port)))
        };
        let is_about = self.has(&["-p", "udp"]) && self.options.iter().any(names_port);
        let lets_everybody_pass = !matches!(self.target(), Some("DROP" | "REJECT")) && !self.has_address();
        let decides = !matches!(self.target(), None | Some("LOG" | "NFLOG" | "RETURN" | "CT" | "MARK"));
        is_about && decides && !lets_everybody_pass
    }

    /// Whether it drops what comes to pods of `subnet` by other interfaces than the pods' `bridges`, as Docker's do.
    pub(in crate::rules) fn is_against(&self, subnet: IpNetwork, bridges: &[String]) -> bool {
        let destination =
            self.options.iter().find(|option| option[0] == "-d").and_then(|option| option.get(1));
        let by_destination = destination.and_then(|text| text.parse::<IpNetwork>().ok());
        let to_subnet = by_destination.is_some_and(|network| cidr::is_subnet_of(network, subnet));
        let to_bridge = bridges.iter().any(|bridge| self.has(&["-o", bridge]));
        let from_elsewhere = bridges.iter().any(|bridge| self.has(&["!", "-i", bridge]));
        (self.leads_to("DROP") || self.leads_to("REJECT")) && from_elsewhere && (to_subnet || to_bridge)
    }

    /// Whether it accepts every packet to `subnet`, whatever else that is like.
    pub(in crate::rules) fn accepts_all_to(&self, subnet: IpNetwork) -> bool {
        let is_to_subnet = |option: &Vec<String>| {
            let network = option.get(1).and_then(|text| text.parse::<IpNetwork>().ok());
            option[0] == "-d" && network.is_some_and(|network| cidr::is_subnet_of(subnet, network))
        };
        let is_of_these =
            |option: &Vec<String>| option[0] == "-j" || option[0] == "--comment" || is_to_subnet(option);
        self.leads_to("ACCEPT") && self.options.iter().all(is_of_these)
    }

    /// Whether every packet that comes to this rule goes where it leads.
    pub(in crate::rules) fn is_plain_jump(&self) -> bool {
        self.options.iter().all(|option| ["-j", "-g", "--comment"].contains(&option[0].as_str()))
    }

    fn has_address(&self) -> bool {
        self.options.iter().any(|option| option.iter().any(|word| word == "-s" || word == "-d"))
    }

    fn mentions(&self, network: IpNetwork) -> bool {
        let network = network.to_string();
        self.options.iter().any(|option| option.last() == Some(&network))
    }

    /// The same without what differs between versions of stock flannel.
    fn bare(&self) -> Self {
        let mut bare = self.clone();
        bare.options.retain(|option| option[0] != "--comment" && option[0] != "--random-fully");
        bare
    }
}

/// The rules that stock flannel wrote straight into POSTROUTING before v0.20, for `network`. Those of v0.7 have no
/// comment; they are known by the two that masquerade, which nobody else writes.
pub(super) fn old_masquerade(table: &Table, network: IpNetwork) -> Vec<Line> {
    let n = network;
    let out = Line::parse(&format!("-s {n} ! -d 224.0.0.0/4 -j MASQUERADE"));
    let back = Line::parse(&format!("! -s {n} -d {n} -j MASQUERADE"));
    let within = Line::parse(&format!("-s {n} -d {n} -j RETURN"));
    let rules = table.rules("POSTROUTING").unwrap_or_default();
    let there = |wanted: &Line| rules.iter().any(|rule| rule.bare() == *wanted);
    if !there(&out) || !there(&back) {
        return Vec::new();
    }
    let is_old = |rule: &&Line| {
        let bare = rule.bare();
        let source = n.to_string();
        // External clients of this host's own pods, whichever subnet that was.
        let to_own =
            bare.options.len() == 3 && bare.has(&["!", "-s", &source]) && bare.has(&["-j", "RETURN"]);
        bare == out || bare == back || bare == within || to_own
    };
    rules.iter().filter(is_old).cloned().collect()
}

/// The rules that stock flannel wrote straight into FORWARD before v0.20, for `network`. One without its
/// comment may be the user's own.
pub(super) fn old_forward(table: &Table, network: IpNetwork) -> Vec<Line> {
    let old = ["-s", "-d"].map(|side| {
        Line::parse(&format!("{side} {network} -m comment --comment \"flanneld forward\" -j ACCEPT"))
    });
    let rules = table.rules("FORWARD").unwrap_or_default();
    rules.iter().filter(|rule| old.contains(rule)).cloned().collect()
}

/// The table that a line says is not printed: "# Table `nat' is incompatible, use 'nft' tool."
fn incompatible(line: &str) -> Option<&str> {
    let (name, rest) = line.strip_prefix("# Table `")?.split_once('\'')?;
    rest.starts_with(" is incompatible").then_some(name)
}

/// Whether a port is one of `ports`: a number, or two with a colon between.
fn includes(ports: &str, port: u16) -> bool {
    let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok();
    number(first).is_some_and(|first| first <= port) && number(last).is_some_and(|last| port <= last)
}

/// The words, and whether each was quoted.
fn words(text: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(first) = characters.next() {
        let is_quoted = first == '"';
        let mut word = String::new();
        match first {
            ' ' => continue,
            '"' => {}
            _ => word.push(first),
        }
        while let Some(character) = characters.next() {
            match character {
                '\\' => word.extend(characters.next()),
                '"' if is_quoted => break,
                ' ' if !is_quoted => break,
                _ => word.push(character),
            }
        }
        words.push((word, is_quoted));
    }
    words
}
