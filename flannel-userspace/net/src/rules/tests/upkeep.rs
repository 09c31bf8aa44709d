//! Rules that are there stay; rules that are gone come back.

use rstest::rstest;

use super::{Means, network, run, spec};
use crate::namespace::in_namespace;
use crate::rules::{Rules, Spec};

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn second_time_changes_nothing(#[case] means: Means) {
    in_namespace(async |_| {
        let rules = means.rules(&spec());
        rules.ensure().await.unwrap();
        let before = means.identity();
        assert!(before.contains("10.5.1.0/24"), "{before}");
        assert!(rules.ensure().await.unwrap().is_empty());
        assert!(rules.differences().await.unwrap().is_empty());
        // Nor does a daemon that starts.
        assert!(means.ensure(&spec()).await.is_empty());
        assert_eq!(means.identity(), before);
    });
}

#[rstest]
#[case::rule(Means::Nftables, "nft", "flush chain ip flannel-ipv4 postrtg")]
#[case::chain(Means::Nftables, "nft", "delete chain ip flannel-ipv4 forward")]
#[case::table(Means::Nftables, "nft", "delete table ip flannel-ipv4")]
#[case::everything(Means::Nftables, "nft", "flush ruleset")]
#[case::added(Means::Nftables, "nft", "insert rule ip flannel-ipv4 postrtg ip saddr 10.5.1.9 return")]
#[case::policy(Means::Nftables, "nft", "add chain ip flannel-ipv4 forward { policy drop; }")]
#[case::first_rule(Means::Iptables, "iptables", "-t nat -D FLANNEL-POSTRTG 1")]
#[case::last_rule(Means::Iptables, "iptables", "-t nat -D FLANNEL-POSTRTG 6")]
#[case::jump(Means::Iptables, "iptables", "-t nat -F POSTROUTING")]
#[case::second_jump(Means::Iptables, "iptables", "-t nat -A POSTROUTING -j FLANNEL-POSTRTG")]
#[case::narrowed_jump(Means::Iptables, "iptables", "-R FORWARD 1 -i eth0 -j FLANNEL-FWD")]
#[case::rules(Means::Iptables, "iptables", "-F")]
#[case::table(Means::Iptables, "nft", "delete table ip nat")]
#[case::everything(Means::Iptables, "nft", "flush ruleset")]
#[case::added(Means::Iptables, "iptables", "-I FLANNEL-FWD -j DROP")]
#[case::first_rule(Means::Legacy, "iptables-legacy", "-w -t nat -D FLANNEL-POSTRTG 1")]
#[case::jump(Means::Legacy, "iptables-legacy", "-w -F FORWARD")]
#[case::swapped(
    Means::Legacy,
    "iptables-legacy",
    "-w -t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN"
)]
fn what_is_gone_comes_back(#[case] means: Means, #[case] program: &str, #[case] arguments: &str) {
    in_namespace(async |_| {
        let rules = means.rules(&spec());
        rules.ensure().await.unwrap();
        let before = means.listing();
        run(program, arguments);
        let damaged = means.listing();
        assert_ne!(damaged, before);
        let told = rules.differences().await.unwrap();
        assert_eq!(means.listing(), damaged, "nothing is changed by looking");
        let repairs = rules.ensure().await.unwrap();
        assert!(!repairs.is_empty());
        assert_eq!(told, repairs);
        assert_eq!(means.listing(), before, "{repairs}");
        assert!(rules.ensure().await.unwrap().is_empty());
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn another_subnet_and_another_network(#[case] means: Means) {
    in_namespace(async |_| {
        means.ensure(&spec()).await;
        let moved = Spec { subnet: network("10.5.9.0/24"), ..spec() };
        assert_eq!(means.ensure(&moved).await.len(), 1);
        assert!(!means.listing().contains("10.5.1.0/24"), "{}", means.listing());
        assert_eq!(means.listing().matches("10.5.9.0/24").count(), 3);
        let other = Spec { network: network("10.6.0.0/16"), subnet: network("10.6.1.0/24"), ..spec() };
        assert_eq!(means.ensure(&other).await.len(), 3);
        assert!(!means.listing().contains("10.5."), "{}", means.listing());
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn two_networks_on_one_host(#[case] means: Means) {
    in_namespace(async |_| {
        let other = Spec { network: network("10.6.0.0/16"), subnet: network("10.6.1.0/24"), ..spec() };
        let rules: [Rules; 2] = [means.rules(&spec()), means.rules_of(&other, "/hostgw/network")];
        // Both daemons start at once.
        let (one, other) = tokio::join!(rules[0].ensure(), rules[1].ensure());
        assert_eq!(one.unwrap().len(), other.unwrap().len());
        let before = means.identity();
        for rules in &rules {
            assert!(rules.ensure().await.unwrap().is_empty());
        }
        assert_eq!(means.identity(), before);
        assert_eq!(
            before.to_lowercase().matches("10.6.0.0/16").count(),
            before.matches("10.5.0.0/16").count()
        );
        crate::rules::remove(&rules[0].names, None).await.unwrap();
        assert!(!means.listing().contains("10.5."));
        assert!(rules[1].ensure().await.unwrap().is_empty());
    });
}

/// Both ask at once, as a resync and an event do.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
fn asked_twice_at_once(#[case] means: Means) {
    in_namespace(async |_| {
        let rules = means.rules(&spec());
        let (one, two) = tokio::join!(rules.ensure(), rules.ensure());
        assert!(one.unwrap().is_empty() != two.unwrap().is_empty());
        assert!(rules.ensure().await.unwrap().is_empty());
    });
}
