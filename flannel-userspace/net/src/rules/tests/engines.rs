//! From one engine to the other, and rules that several packet filters must have.

use rstest::rstest;

use super::{Means, run, spec};
use crate::namespace::in_namespace;
use crate::rules::{Names, Spec, remove};

const ALL: [Means; 3] = [Means::Nftables, Means::Iptables, Means::Legacy];

fn flannel(listing: &str) -> bool {
    listing.to_lowercase().contains("flannel")
}

#[rstest]
fn nothing_of_the_other_is_left(
    #[values(Means::Nftables, Means::Iptables, Means::Legacy)] old: Means,
    #[values(Means::Nftables, Means::Iptables, Means::Legacy)] new: Means,
) {
    in_namespace(async |_| {
        old.ensure(&spec()).await;
        let repairs = new.ensure(&spec()).await;
        assert_eq!(repairs.is_empty(), old == new, "{repairs}");
        for means in [Means::Iptables, Means::Legacy] {
            assert_eq!(flannel(&means.listing()), means == new, "{means:?}: {}", means.listing());
        }
        let tables = run("nft", "list tables");
        assert_eq!(flannel(&tables), new == Means::Nftables, "{tables}");
        assert!(new.ensure(&spec()).await.is_empty());
    });
}

#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn all_is_removed(#[case] means: Means) {
    in_namespace(async |_| {
        run("iptables", "-P FORWARD DROP");
        run("iptables-legacy", "-w -P FORWARD DROP");
        means.ensure(&spec()).await;
        remove(&Names::of("/coreos.com/network"), None).await.unwrap();
        for means in ALL {
            assert!(!flannel(&means.listing()), "{}", means.listing());
        }
        assert_eq!(run("iptables", "-S FORWARD"), "-P FORWARD DROP\n");
        assert_eq!(run("iptables-legacy", "-w -S FORWARD"), "-P FORWARD DROP\n");
    });
}

/// Whichever engine writes, a FORWARD chain of the other variant that drops by default lets pods pass.
#[rstest]
#[case::nftables(Means::Nftables)]
#[case::iptables(Means::Iptables)]
#[case::legacy(Means::Legacy)]
fn every_variant_that_drops_accepts(
    #[case] means: Means,
    #[values("-P FORWARD DROP", "-A FORWARD -j REJECT")] refusal: &str,
) {
    in_namespace(async |_| {
        let variants = [(Means::Iptables, "iptables"), (Means::Legacy, "iptables-legacy")];
        for (_, program) in variants {
            run(program, &format!("-w {refusal}"));
        }
        means.ensure(&spec()).await;
        for (variant, program) in variants {
            let rules = run(program, "-w -S");
            assert!(rules.contains("-A FLANNEL-FWD -s 10.5.0.0/16"), "{variant:?}: {rules}");
            assert_eq!(variant.listing().contains("FLANNEL-POSTRTG"), variant == means);
        }
        assert!(means.ensure(&spec()).await.is_empty());
        // What no longer drops needs no rules.
        for (_, program) in variants {
            run(program, "-w -P FORWARD ACCEPT");
            run(program, "-w -S FORWARD").contains("REJECT").then(|| run(program, "-w -D FORWARD -j REJECT"));
        }
        means.ensure(&spec()).await;
        for (variant, _) in variants {
            assert_eq!(flannel(&variant.listing()), variant == means, "{}", variant.listing());
        }
        // Nor does one who wants none.
        for (_, program) in variants {
            run(program, &format!("-w {refusal}"));
        }
        means.ensure(&Spec { forward: false, ..spec() }).await;
        assert!(variants.iter().all(|(variant, _)| !variant.listing().contains("FLANNEL-FWD")));
    });
}
