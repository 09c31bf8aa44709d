//! The exact rules.

use rstest::rstest;

use super::{Means, network, run, spec};
use crate::namespace::in_namespace;
use crate::rules::Spec;

const IPTABLES: &str = r#"*mangle
:FLANNEL-GUARD -
-A POSTROUTING -m comment --comment "flanneld guard" -j FLANNEL-GUARD
-A FLANNEL-GUARD -s 10.5.0.0/16 ! -d 10.5.0.0/16 -p udp -m udp --dport 8472 -m conntrack --ctdir ORIGINAL -m comment --comment "flanneld guard" -j DROP
*filter
:FLANNEL-FWD -
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.5.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
*nat
:FLANNEL-POSTRTG -
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.1.0/24 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.5.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.5.0.0/16 -d 10.5.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
"#;

const NFTABLES: &str = "table ip flannel-ipv4 {
	chain postrtg {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr 10.5.1.0/24 ip daddr 10.5.0.0/16 return
		ip saddr 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr != 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr 10.5.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 masquerade fully-random
	}

	chain guard {
		type filter hook postrouting priority mangle; policy accept;
		ip saddr 10.5.0.0/16 ip daddr != 10.5.0.0/16 udp dport 8472 ct direction original drop
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		ip saddr 10.5.0.0/16 accept
		ip daddr 10.5.0.0/16 accept
	}
}
";

#[rstest]
#[case::nftables(
    Means::Nftables,
    NFTABLES,
    "wrote chain postrtg of table ip flannel-ipv4, wrote chain guard of table ip flannel-ipv4, wrote chain forward of \
     table ip flannel-ipv4"
)]
#[case::iptables(
    Means::Iptables,
    IPTABLES,
    "wrote chain FLANNEL-POSTRTG (iptables), put the jump from POSTROUTING to FLANNEL-POSTRTG (iptables), \
     wrote chain FLANNEL-FWD (iptables), put the jump from FORWARD to FLANNEL-FWD (iptables), wrote chain \
     FLANNEL-GUARD (iptables), put the jump from POSTROUTING to FLANNEL-GUARD (iptables)"
)]
#[case::legacy(
    Means::Legacy,
    IPTABLES,
    "wrote chain FLANNEL-POSTRTG (iptables-legacy), put the jump from POSTROUTING to FLANNEL-POSTRTG \
     (iptables-legacy), wrote chain FLANNEL-FWD (iptables-legacy), put the jump from FORWARD to FLANNEL-FWD \
     (iptables-legacy), wrote chain FLANNEL-GUARD (iptables-legacy), put the jump from POSTROUTING to FLANNEL-GUARD \
     (iptables-legacy)"
)]
fn all_rules(#[case] means: Means, #[case] expected: &str, #[case] told: &str) {
    in_namespace(async |_| {
        assert_eq!(means.ensure(&spec()).await.to_string(), told);
        assert_eq!(means.listing(), expected);
        for other in [Means::Nftables, Means::Iptables, Means::Legacy] {
            let shares = [other, means].iter().all(|means| *means != Means::Legacy);
            assert!(other == means || shares || other.listing().is_empty(), "{}", other.listing());
        }
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn without_random_ports(#[case] means: Means) {
    in_namespace(async |_| {
        means.ensure(&Spec { fully_random: false, ..spec() }).await;
        assert!(!means.listing().contains("random"), "{}", means.listing());
        assert_eq!(means.listing().to_lowercase().matches("masquerade").count(), 2);
        // And back, in place.
        assert_eq!(means.ensure(&spec()).await.len(), 1);
        assert_eq!(means.listing().matches("random").count(), 2);
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn only_what_is_asked_for(#[case] means: Means) {
    in_namespace(async |_| {
        means.ensure(&spec()).await;
        let unguarded = Spec { tunnel_port: None, ..spec() };
        assert_eq!(means.ensure(&unguarded).await.len(), 1);
        assert!(!means.listing().to_lowercase().contains("guard"), "{}", means.listing());
        assert!(!means.ensure(&spec()).await.is_empty());
        let masquerade_only = Spec { forward: false, ..spec() };
        assert_eq!(means.ensure(&masquerade_only).await.len(), 1);
        assert!(!means.listing().to_lowercase().contains("accept\n"), "{}", means.listing());
        assert!(!means.ensure(&Spec { masquerade: false, ..spec() }).await.is_empty());
        let forward_only = means.listing().to_lowercase();
        assert!(!forward_only.contains("masquerade"), "{forward_only}");
        // A rule that asks connection tracking has every packet tracked, which nothing else asked for here.
        let asks = forward_only.contains("ctdir") || forward_only.contains("ct direction");
        assert!(forward_only.contains("guard") && !asks, "{forward_only}");
        means.ensure(&Spec { masquerade: false, forward: false, ..spec() }).await;
        assert!(!means.listing().to_lowercase().contains("flannel"), "{}", means.listing());
    });
}

/// Networks that do not end at a byte are read back as they were written.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn odd_prefix_lengths(#[case] means: Means) {
    in_namespace(async |_| {
        let odd = Spec { network: network("10.0.0.0/7"), subnet: network("10.10.16.0/20"), ..spec() };
        means.ensure(&odd).await;
        assert!(means.ensure(&odd).await.is_empty(), "{}", means.listing());
        let small = Spec { network: network("10.5.0.0/28"), subnet: network("10.5.0.4/30"), ..spec() };
        means.ensure(&small).await;
        assert!(means.ensure(&small).await.is_empty(), "{}", means.listing());
    });
}

#[test]
fn programs_of_this_machine() {
    // The cases above are what their names say.
    assert!(run("iptables", "-V").contains("nf_tables"));
    assert!(run("iptables-legacy", "-V").contains("legacy"));
}
