//! What `iptables-save` prints.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

/// All tables that are there.
#[derive(Debug, Default)]
pub(super) struct Saved {
    tables: BTreeMap<String, Table>,
    absent: Table,
}

/// A table's chains, in no order.
#[derive(Debug, Default)]
pub(super) struct Table {
    chains: BTreeMap<String, SavedChain>,
}

#[derive(Debug, Default)]
struct SavedChain {
    /// `ACCEPT`, `DROP`, or `-` for a chain that is not built in.
    policy: String,
    rules: Vec<Line>,
}

/// A rule, without the chain it is in. Two are equal if their options are, in whatever order, for the order
/// is not the same in all versions.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// As printed, so that it can be parsed again.
    pub(super) text: String,
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
            } else if let Some((name, rest)) = line.strip_prefix(':').and_then(|line| line.split_once(' ')) {
                let policy = rest.split_whitespace().next().unwrap_or_default();
                table.chain(name).policy = policy.to_owned();
            } else if let Some((name, rule)) = line.strip_prefix("-A ").and_then(|line| line.split_once(' '))
            {
                table.chain(name).rules.push(Line::parse(rule));
            }
        }
        saved
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

    /// The rules of a chain; `None` if there is no such chain.
    pub(super) fn rules(&self, chain: &str) -> Option<&[Line]> {
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
