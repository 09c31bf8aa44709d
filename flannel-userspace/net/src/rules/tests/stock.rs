//! What stock flannel left behind.

use rstest::rstest;

use super::{Means, network, run, spec};
use crate::namespace::in_namespace;
use crate::rules::{Names, Spec, remove};

/// Two rules of the user's, which stand before and behind.
const V0_28: &str = r#"*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -o eth9 -j MASQUERADE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A POSTROUTING -o eth8 -j MASQUERADE
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.1.0/24 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"#;

const V0_20: &str = r#"*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -o eth9 -j MASQUERADE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A POSTROUTING -o eth8 -j MASQUERADE
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"#;

/// Before it had chains: the rules it wrote with comments, from v0.14 on.
const V0_14: &str = r#"*nat
-A POSTROUTING -o eth9 -j MASQUERADE
-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A POSTROUTING -o eth8 -j MASQUERADE
COMMIT
*filter
-A FORWARD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FORWARD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"#;

const V0_7: &str = "*nat
-A POSTROUTING -o eth9 -j MASQUERADE
-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -j RETURN
-A POSTROUTING -s 10.5.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
-A POSTROUTING ! -s 10.5.0.0/16 -d 10.5.0.0/16 -j MASQUERADE
-A POSTROUTING -o eth8 -j MASQUERADE
COMMIT
";

/// By nftables, v0.28.
pub(super) const V0_28_NFTABLES: &str = r#"table ip flannel-ipv4 {
	comment "rules for flannel-ipv4"
	chain postrtg {
		comment "chain to manage traffic masquerading by flannel"
		type nat hook postrouting priority srcnat; policy accept;
		meta mark 0x00004000 return
		ip saddr 10.5.1.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr != 10.5.1.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
	}
	chain forward {
		comment "chain to accept flannel traffic"
		type filter hook forward priority filter; policy accept;
		ip saddr 10.5.0.0/16 accept
		ip daddr 10.5.0.0/16 accept
	}
}
table ip6 flannel-ipv6 {
	comment "rules for flannel-ipv6"
}
"#;

/// What stock flannel of every version left, with two rules of the user's in POSTROUTING.
pub(super) const VERSIONS: [&str; 4] = [V0_28, V0_20, V0_14, V0_7];

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[rstest]
fn taken_over_by_iptables(
    #[values(Means::Iptables, Means::Legacy)] means: Means,
    #[values(0, 1, 2, 3)] version: usize,
) {
    in_namespace(async |_| {
        // What a clean host with the user's rules has.
        let clean = in_other_namespace(means);
        means.feed(VERSIONS[version]);
        let repairs = means.ensure(&spec()).await;
        // Of the newest only the guard is missing, and the jump to it.
        assert_eq!(repairs.len() == 2, version == 0, "{repairs}");
        assert_eq!(sorted(&means.listing()), sorted(&clean));
        assert!(means.ensure(&spec()).await.is_empty());
    });
}

fn in_other_namespace(means: Means) -> String {
    let (sender, receiver) = std::sync::mpsc::channel();
    in_namespace(async move |_| {
        means.feed(
            "*nat\n-A POSTROUTING -o eth9 -j MASQUERADE\n-A POSTROUTING -o eth8 -j MASQUERADE\nCOMMIT\n",
        );
        means.ensure(&spec()).await;
        sender.send(means.listing()).unwrap();
    });
    receiver.recv().unwrap()
}

#[rstest]
fn replaced_by_nftables(
    #[values(Means::Iptables, Means::Legacy)] old: Means,
    #[values(0, 1, 2, 3)] version: usize,
) {
    in_namespace(async |_| {
        old.feed(VERSIONS[version]);
        Means::Nftables.ensure(&spec()).await;
        let left = "*nat\n-A POSTROUTING -o eth9 -j MASQUERADE\n-A POSTROUTING -o eth8 -j MASQUERADE\n";
        assert_eq!(old.listing(), left);
        assert!(run("nft", "list ruleset").contains("table ip flannel-ipv4"));
        assert!(Means::Nftables.ensure(&spec()).await.is_empty());
    });
}

/// The forward chain is right and stays, handles and all; the other one is not, and stays a chain.
#[test]
fn nftables_taken_over() {
    in_namespace(async |_| {
        Means::Nftables.feed(V0_28_NFTABLES);
        let handles = |chain: &str| {
            let text = run("nft", &format!("-a list chain ip flannel-ipv4 {chain}"));
            text.lines().skip(1).filter(|line| line.contains("handle")).map(str::to_owned).collect::<Vec<_>>()
        };
        let (postrtg, forward) = (handles("postrtg"), handles("forward"));
        assert_eq!(Means::Nftables.ensure(&spec()).await.len(), 3);
        assert_eq!(handles("forward"), forward);
        assert_eq!(handles("postrtg")[0], postrtg[0], "the chain's own");
        let listing = Means::Nftables.listing();
        assert!(listing.contains("ip saddr != 10.5.0.0/16 ip daddr 10.5.1.0/24 return"), "{listing}");
        assert!(!listing.contains("ip6"), "{listing}");
        assert!(Means::Nftables.ensure(&spec()).await.is_empty());
    });
}

/// A network below another prefix had stock flannel's names, too, and has its own ones now.
#[rstest]
#[case::iptables(Means::Iptables, V0_28)]
#[case::legacy(Means::Legacy, V0_20)]
#[case::nftables(Means::Nftables, V0_28_NFTABLES)]
fn other_prefix(#[case] means: Means, #[case] old: &str) {
    in_namespace(async |_| {
        means.feed(old);
        means.rules_of(&spec(), "/vxlan/network").ensure().await.unwrap();
        let listing = means.listing();
        assert_eq!(
            listing
                .to_lowercase()
                .matches("daddr 10.5.1.0/24")
                .count()
                .max(listing.matches("-d 10.5.1.0/24").count()),
            2,
            "{listing}"
        );
        assert!(means.rules_of(&spec(), "/vxlan/network").ensure().await.unwrap().is_empty());
        // Of another network they are another daemon's.
        means.feed(old);
        let before = means.identity();
        let other = Spec { network: network("10.6.0.0/16"), subnet: network("10.6.1.0/24"), ..spec() };
        means.rules_of(&other, "/hostgw/network").ensure().await.unwrap();
        let after = means.identity();
        assert!(before.lines().filter(|line| line.contains("10.5.1.0/24")).all(|line| after.contains(line)));
    });
}

/// Rules of which some look like stock flannel's are the user's.
#[rstest]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn what_only_looks_like_it(#[case] means: Means) {
    let theirs = "*filter
-A FORWARD -s 10.5.0.0/16 -j ACCEPT
-A FORWARD -d 10.5.0.0/16 -j ACCEPT
*nat
-A POSTROUTING -s 10.5.0.0/16 -d 10.5.0.0/16 -j RETURN
-A POSTROUTING -s 10.5.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
";
    in_namespace(async |_| {
        means.feed(&format!("{}COMMIT\n", theirs.replace("*nat", "COMMIT\n*nat")));
        means.ensure(&spec()).await;
        remove(&Names::of("/coreos.com/network"), Some(spec().network)).await.unwrap();
        assert_eq!(sorted(&means.listing()), sorted(theirs));
    });
}
