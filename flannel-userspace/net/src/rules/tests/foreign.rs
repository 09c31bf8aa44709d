//! The user's own rules, and where ours stand among them.

use rstest::rstest;

use super::{Means, run, spec};
use crate::namespace::in_namespace;
use crate::rules::tool::Program;
use crate::rules::{Names, RulesError, Spec, remove};

const IPTABLES: &str = r#"*nat
:MINE - [0:0]
-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -j RETURN
-A POSTROUTING -s 10.5.1.0/24 ! -o docker0 -m comment --comment "it's \"mine\"" -j MASQUERADE
-A POSTROUTING -j MINE
-A MINE ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m mark --mark 0x4000/0x4000 -j ACCEPT
COMMIT
*filter
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -s 10.5.0.0/16 -j ACCEPT
-A FORWARD -s 10.5.1.66/32 -m comment --comment "flanneld forward" -j DROP
-A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN
COMMIT
"#;

const NFTABLES: &str = "table ip mine {
	set internal {
		type ipv4_addr
		elements = { 10.5.1.9, 10.5.1.10 }
	}
	chain postrtg {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @internal masquerade fully-random
	}
}
";

#[rstest]
#[case::nftables(Means::Nftables, Means::Nftables, NFTABLES)]
#[case::nftables_beside_iptables(Means::Nftables, Means::Iptables, IPTABLES)]
#[case::iptables(Means::Iptables, Means::Iptables, IPTABLES)]
#[case::iptables_beside_nftables(Means::Iptables, Means::Nftables, NFTABLES)]
#[case::iptables_beside_legacy(Means::Iptables, Means::Legacy, IPTABLES)]
#[case::legacy(Means::Legacy, Means::Legacy, IPTABLES)]
fn rules_of_others_stay(#[case] ours: Means, #[case] theirs: Means, #[case] text: &str) {
    in_namespace(async |_| {
        theirs.feed(text);
        let before = theirs.listing();
        assert_ne!(before, "");
        ours.ensure(&spec()).await;
        for line in before.lines() {
            assert!(theirs.listing().contains(line), "{line} is gone from {}", theirs.listing());
        }
        let removed = remove(&Names::of("/coreos.com/network"), Some(spec().network)).await.unwrap();
        assert!(!removed.is_empty());
        let left = theirs.listing();
        // iptables leaves its empty tables in nftables.
        assert_eq!(left.strip_suffix(EMPTY_TABLES).unwrap_or(&left), before);
        assert!(remove(&Names::of("/coreos.com/network"), None).await.unwrap().is_empty());
    });
}

const EMPTY_TABLES: &str = "table ip nat {
	chain POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
	}
}
table ip filter {
	chain FORWARD {
		type filter hook forward priority filter; policy accept;
	}
}
table ip mangle {
	chain POSTROUTING {
		type filter hook postrouting priority mangle; policy accept;
	}
}
";

/// A rule of nftables' own in a chain of iptables hides the table from `iptables-save`.
#[rstest]
#[case::nat("nat", "POSTROUTING", "oifname eth7 masquerade", "FLANNEL-POSTRTG", "flanneld masq")]
#[case::filter(
    "filter",
    "FORWARD",
    "oifname eth7 numgen random mod 2 == 0 accept",
    "FLANNEL-FWD",
    "flanneld forward"
)]
#[case::mangle(
    "mangle",
    "POSTROUTING",
    "oifname eth7 numgen random mod 2 == 0 accept",
    "FLANNEL-GUARD",
    "flanneld guard"
)]
fn a_hidden_table_has_one_jump(
    #[case] table: &str,
    #[case] parent: &str,
    #[case] rule: &str,
    #[case] chain: &str,
    #[case] comment: &str,
    #[values(false, true)] is_there_first: bool,
) {
    in_namespace(async |_| {
        let wanted = spec();
        let ours = || Means::Iptables.ensure(&wanted);
        let hide = || {
            run("iptables", &format!("-t {table} -A {parent} -o eth8"));
            run("nft", &format!("add rule ip {table} {parent} {rule}"));
        };
        if is_there_first {
            hide();
            ours().await;
        } else {
            ours().await;
            hide();
        }
        assert!(run("iptables-save", "").contains(&format!("# Table `{table}' is incompatible")));
        assert!(ours().await.is_empty(), "everything is there");
        let jumps = |listing: &str| listing.matches(&format!("jump {chain}")).count();
        assert_eq!(jumps(&run("nft", "list ruleset")), 1);
        // Those that somebody has added go, and what is gone comes back.
        let jump = format!("-A {parent} -m comment --comment \"{comment}\" -j {chain}");
        Means::Iptables.feed(&format!("*{table}\n{jump}\n{jump}\n-D {chain} 1\nCOMMIT\n"));
        assert!(!ours().await.is_empty());
        assert!(ours().await.is_empty());
        assert_eq!(jumps(&run("nft", "list ruleset")), 1);

        remove(&Names::of("/coreos.com/network"), Some(wanted.network)).await.unwrap();
        let left = run("nft", "list ruleset");
        assert!(!left.contains("FLANNEL") && left.contains("eth7"), "{left}");
    });
}

/// The jump comes behind what refuses by name, and before what refuses the rest.
#[rstest]
#[case::nothing("", &["FLANNEL-FWD"])]
#[case::policy("-P FORWARD DROP", &["FLANNEL-FWD"])]
#[case::rejecting_end(
    "-A FORWARD -s 10.5.1.66 -j DROP; -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
    &["10.5.1.66", "FLANNEL-FWD", "REJECT"]
)]
#[case::commented_end(
    "-A FORWARD -j ACCEPT -i lo; -A FORWARD -j DROP -m comment --comment end; -A FORWARD -o eth1 -j ACCEPT",
    &["-i lo", "FLANNEL-FWD", "DROP", "eth1"]
)]
#[case::no_end("-A FORWARD ! -i eth0 -j REJECT; -A FORWARD -j LOG", &["eth0", "LOG", "FLANNEL-FWD"])]
fn place_of_the_jump(#[case] theirs: &str, #[case] order: &[&str]) {
    for (means, program) in [(Means::Iptables, "iptables"), (Means::Legacy, "iptables-legacy")] {
        in_namespace(async |_| {
            for arguments in theirs.split("; ").filter(|arguments| !arguments.is_empty()) {
                run(program, &format!("-w {arguments}"));
            }
            means.ensure(&spec()).await;
            let in_order = |listing: &str| {
                let rules: Vec<&str> =
                    listing.lines().filter(|line| line.starts_with("-A FORWARD")).collect();
                assert_eq!(rules.len(), order.len(), "{listing}");
                let mut pairs = rules.iter().zip(order);
                assert!(pairs.all(|(rule, expected)| rule.contains(expected)), "{listing}");
            };
            in_order(&run(program, "-w -S FORWARD"));
            assert!(means.ensure(&spec()).await.is_empty());
            // firewalld loads its rules again: everything else first.
            let number = 1 + order.iter().position(|rule| *rule == "FLANNEL-FWD").unwrap();
            run(program, &format!("-w -D FORWARD {number}"));
            run(program, "-w -A FORWARD -j FLANNEL-FWD");
            assert_eq!(means.ensure(&spec()).await.len(), 1);
            in_order(&run(program, "-w -S FORWARD"));
        });
    }
}

/// A chain of ours that a rule of the user's leads to is emptied, not removed.
#[rstest]
#[case::iptables(Means::Iptables, "iptables")]
#[case::legacy(Means::Legacy, "iptables-legacy")]
fn chain_in_use(#[case] means: Means, #[case] program: &str) {
    in_namespace(async |_| {
        means.ensure(&spec()).await;
        run(program, "-w -N MINE");
        run(program, "-w -A MINE -i eth0 -j FLANNEL-FWD");
        let nothing = Spec { masquerade: false, forward: false, ..spec() };
        means.ensure(&nothing).await;
        assert_eq!(means.listing(), "*filter\n:FLANNEL-FWD -\n:MINE -\n-A MINE -i eth0 -j FLANNEL-FWD\n");
        assert!(means.ensure(&nothing).await.is_empty());
    });
}

/// Where nothing is to be done nothing is made.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn nothing_wanted(#[case] means: Means) {
    in_namespace(async |_| {
        let nothing = Spec { masquerade: false, forward: false, ..spec() };
        assert!(means.ensure(&nothing).await.is_empty());
        assert_eq!(run("nft", "list ruleset"), "");
        assert_eq!(std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap(), "");
    });
}

#[tokio::test]
async fn missing_program() {
    let program = Program { name: "no-such-nft", package: "nftables", other_engine: false };
    let error = program.run(&[], "").await.unwrap_err();
    assert!(error.is_missing());
    assert_eq!(
        error.to_string(),
        "cannot find the program no-such-nft: install the package nftables, or set EnableNFTables to false in \
         the network's configuration for the other kind of rules, or do without: leave --ip-masq out and give \
         --iptables-forward-rules=false"
    );
}

#[test]
fn what_a_program_says_is_told() {
    in_namespace(async |_| {
        let nft = Program { name: "nft", package: "nftables", other_engine: false };
        let error = nft.run(&["-f", "-"], "add rule ip none none accept").await.unwrap_err();
        assert!(error.is_absence());
        assert!(matches!(error, RulesError::Failed { .. }));
        let text = error.to_string();
        assert!(
            text.starts_with("`nft -f -` failed (exit status: 1): ") && text.contains("No such file"),
            "{text}"
        );
    });
}

/// To be forbidden to look is not to find nothing.
#[rstest]
#[case::nftables(&["nft", "list", "tables"])]
#[case::iptables(&["iptables-nft-save"])]
#[case::legacy(&["iptables-legacy-save", "-t", "nat"])]
fn reading_without_the_right_to(#[case] command: &[&str]) {
    in_namespace(async |_| {
        let as_nobody = Program { name: "setpriv", package: "util-linux", other_engine: false };
        let arguments = [&["--reuid=65534", "--clear-groups"], command].concat();
        let error = as_nobody.run(&arguments, "").await.unwrap_err();
        assert!(matches!(error, RulesError::Failed { .. }) && !error.is_absence(), "{error}");
    });
}
