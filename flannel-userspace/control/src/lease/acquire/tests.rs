use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::family::{PerFamily, Subnets};
use flannel_model::lease::{EtcdLeaseId, Snapshot};
use flannel_registry::memory::{Fault, Memory};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rstest::rstest;
use serde_json::json;

use super::{AcquireConfig, AcquireError, Attributes, Lease, OwnLease, Pool, acquire, own_lease};

const OWN: &str = "192.0.2.1";
const OTHER: &str = "192.0.2.9";
const TTL: Duration = Duration::from_secs(60);

fn attributes(public_ip: &str) -> Attributes {
    Attributes::new(public_ip.parse::<IpAddr>().unwrap().into())
}

/// What a host with the VXLAN backend says of itself.
fn vxlan(public_ip: &str, mac: &str) -> Attributes {
    let backend_data = PerFamily::only_v4((&json!({ "VNI": 1, "VtepMAC": mac })).into());
    Attributes { backend_type: Some("vxlan".to_owned()), backend_data, ..attributes(public_ip) }
}

fn config(first: &str, last: &str, previous: Option<&str>) -> AcquireConfig {
    AcquireConfig {
        former_term: None,
        pools: PerFamily::only_v4(Pool::new(first.parse().unwrap(), last.parse().unwrap(), 24).unwrap()),
        attributes: attributes(OWN),
        previous: Subnets { v4: previous.map(|text| text.parse().unwrap()), v6: None },
        ttl: TTL,
    }
}

/// 10.5.1.0/24 to 10.5.255.0/24.
fn usual(previous: Option<&str>) -> AcquireConfig {
    config("10.5.1.0", "10.5.255.0", previous)
}

fn term() -> Option<EtcdLeaseId> {
    EtcdLeaseId::from_id(7)
}

async fn acquired(registry: &Memory, config: &AcquireConfig) -> OwnLease {
    let mut rng = StdRng::seed_from_u64(1);
    let own = acquire(registry, config, &mut rng).await.unwrap();
    let subnet = own.lease.subnets.to_string();
    assert_eq!(registry.lease(&subnet).as_ref(), Some(&own.lease), "what is told is what stands there");
    assert_eq!(own.lease.attributes, config.attributes);
    own
}

#[rstest]
#[case::other_address(None, &[("10.5.1.0/24", OTHER, 1)], None)]
#[case::own_address(None, &[("10.5.1.0/24", OTHER, 1), ("10.5.2.0/24", OWN, 1)], Some("10.5.2.0/24"))]
#[case::reservation_first(None, &[("10.5.1.0/24", OWN, 1), ("10.5.2.0/24", OWN, 0)], Some("10.5.2.0/24"))]
#[case::previous_before_that(Some("10.5.1.0/24"), &[("10.5.1.0/24", OWN, 1), ("10.5.2.0/24", OWN, 0)], Some("10.5.1.0/24"))]
#[case::outside_the_pool(Some("10.6.1.0/24"), &[("10.6.1.0/24", OWN, 1)], None)]
#[case::of_another_length(None, &[("10.5.1.0/25", OWN, 1)], None)]
#[case::previous_of_another_address(Some("10.5.1.0/24"), &[("10.5.1.0/24", OTHER, 1)], None)]
fn which_lease_is_reused(
    #[case] previous: Option<&str>,
    #[case] leases: &[(&str, &str, i64)],
    #[case] reused: Option<&str>,
) {
    let registry = Memory::default();
    let put = |(subnet, ip, term): &(&str, &str, i64)| {
        registry.put(subnet, &attributes(ip), EtcdLeaseId::from_id(*term))
    };
    let snapshot = Snapshot { leases: leases.iter().map(put).collect(), ..Snapshot::default() };
    let lease = own_lease(&usual(previous), &snapshot).map(|lease| lease.subnets.to_string());
    assert_eq!(lease.as_deref(), reused);
}

#[test]
fn lease_of_dual_stack_is_not_reused() {
    let lease = Memory::default().put("10.5.1.0/24", &attributes(OWN), term());
    let lease = Lease { subnets: lease.subnets.with("fd00::/64".parse().unwrap()), ..lease };
    let snapshot = Snapshot { leases: vec![lease], ..Snapshot::default() };
    assert_eq!(own_lease(&usual(None), &snapshot), None);
}

/// With IPv6 alone a host is known by its IPv6 address; `0.0.0.0` is nobody's.
#[tokio::test]
async fn hosts_without_ipv4_have_subnets_of_their_own() {
    let registry = Memory::default();
    let pool = Pool::new("fd00:10:5:1::".parse().unwrap(), "fd00:10:5:2::".parse().unwrap(), 64).unwrap();
    let host = |public_ip| AcquireConfig {
        pools: PerFamily { v4: None, v6: Some(pool) },
        attributes: attributes(public_ip),
        ..usual(None)
    };
    let first = acquired(&registry, &host("fd77::11")).await;
    let second = acquired(&registry, &host("fd77::12")).await;
    assert_ne!(first.lease.subnets, second.lease.subnets);
    assert!(acquired(&registry, &host("fd77::11")).await.reused);
}

#[tokio::test]
async fn with_both_families_a_host_has_a_subnet_of_each() {
    let pool = Pool::new("fd00:10:5:1::".parse().unwrap(), "fd00:10:5:1::".parse().unwrap(), 64).unwrap();
    let config = AcquireConfig {
        pools: PerFamily { v6: Some(pool), ..usual(None).pools },
        ..usual(Some("10.5.7.0/24"))
    };
    let own = acquire(&Memory::default(), &config, &mut StdRng::seed_from_u64(1)).await.unwrap();
    assert_eq!(own.lease.key().to_string(), "10.5.7.0-24&fd00:10:5:1::-64");
}

#[tokio::test]
async fn lease_with_own_address_is_taken_over_with_new_attributes() {
    let registry = Memory::default();
    let before = registry.put("10.5.7.0/24", &vxlan(OWN, "02:00:00:00:00:01"), term());
    let config = AcquireConfig { attributes: vxlan(OWN, "02:00:00:00:00:02"), ..usual(Some("10.5.8.0/24")) };
    let own = acquired(&registry, &config).await;
    assert_eq!((own.lease.subnets, own.reused), (before.subnets, true));
    assert_eq!(registry.writes()[0].ttl, Some(TTL));
}

#[rstest]
#[case::same_vtep("02:00:00:00:00:01", Some("10.5.7.0/24"), true)]
#[case::another_vtep("02:00:00:00:00:02", Some("10.5.7.0/24"), false)]
#[case::not_the_previous_subnet("02:00:00:00:00:01", Some("10.5.8.0/24"), false)]
#[case::no_previous_subnet("02:00:00:00:00:01", None, false)]
#[tokio::test]
async fn renumbered_host_keeps_its_subnet(
    #[case] mac: &str,
    #[case] previous: Option<&str>,
    #[case] kept: bool,
) {
    let registry = Memory::default();
    registry.put("10.5.7.0/24", &vxlan(OTHER, "02:00:00:00:00:01"), term());
    let config = AcquireConfig { attributes: vxlan(OWN, mac), ..usual(previous) };
    let own = acquired(&registry, &config).await;
    assert_eq!((own.lease.subnets.to_string() == "10.5.7.0/24", own.reused), (kept, kept));
}

#[rstest]
#[case::free(&[], true)]
#[case::leased_by_another(&["10.5.7.0/24"], false)]
#[case::overlapped(&["10.5.6.0/23"], false)]
#[tokio::test]
async fn previous_subnet_is_taken_again(#[case] taken: &[&str], #[case] kept: bool) {
    let registry = Memory::default();
    for subnet in taken {
        registry.put(subnet, &attributes(OTHER), term());
    }
    let own = acquired(&registry, &usual(Some("10.5.7.0/24"))).await;
    assert_eq!(own.lease.subnets.to_string() == "10.5.7.0/24", kept, "{}", own.lease.subnets);
    assert!(!own.reused);
}

#[tokio::test]
async fn own_leases_that_the_configuration_has_no_place_for_are_deleted() {
    let registry = Memory::default();
    registry.put("10.6.1.0/24", &attributes(OWN), term());
    registry.put("10.5.9.0/25", &attributes(OWN), None);
    registry.put("10.6.2.0/24", &attributes(OTHER), term());
    let own = acquired(&registry, &usual(None)).await;
    assert!(!own.reused);
    assert_eq!(registry.lease("10.6.1.0/24"), None);
    assert_eq!(registry.lease("10.5.9.0/25"), None);
    assert!(registry.lease("10.6.2.0/24").is_some());
}

#[tokio::test]
async fn reservation_stays_one() {
    let registry = Memory::default();
    registry.put("10.5.7.0/24", &attributes(OWN), None);
    let own = acquired(&registry, &usual(None)).await;
    assert_eq!((own.lease.term, own.reused), (None, true));
    assert_eq!(registry.writes()[0].ttl, None);
}

#[tokio::test]
async fn junk_is_not_overwritten() {
    let registry = Memory::default();
    registry.put_junk("10.5.1.0/24");
    let own = acquired(&registry, &config("10.5.1.0", "10.5.2.0", Some("10.5.1.0/24"))).await;
    assert_eq!(own.lease.subnets.to_string(), "10.5.2.0/24");
}

#[tokio::test(start_paused = true)]
async fn loser_of_a_race_tries_another_subnet() {
    let registry = Memory::default();
    let other = AcquireConfig { attributes: attributes(OTHER), ..usual(Some("10.5.7.0/24")) };
    let own = usual(Some("10.5.7.0/24"));
    let (first, second) = tokio::join!(acquired(&registry, &own), acquired(&registry, &other));
    assert_eq!(first.lease.subnets.to_string(), "10.5.7.0/24");
    assert_ne!(first.lease.subnets, second.lease.subnets);
    assert_eq!(registry.writes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn fifty_hosts_at_once_get_fifty_subnets() {
    let registry = Memory::default();
    let host = |number: u64| {
        let registry = registry.clone();
        let attributes = attributes(&format!("192.0.2.{number}"));
        // There are no more than that.
        let config = AcquireConfig { attributes, ..config("10.5.1.0", "10.5.50.0", None) };
        async move {
            let mut rng = StdRng::seed_from_u64(number);
            acquire(&registry, &config, &mut rng).await.unwrap().lease.subnets
        }
    };
    let subnets: BTreeSet<Subnets> =
        futures::future::join_all((1..=50).map(host)).await.into_iter().collect();
    assert_eq!(subnets.len(), 50);
    assert!(registry.writes().len() > 50, "nobody met anybody");
}

#[tokio::test]
async fn registry_that_fails_and_a_pool_that_is_full_are_told_apart() {
    let registry = Memory::default();
    let mut rng = StdRng::seed_from_u64(1);
    let config = config("10.5.1.0", "10.5.1.0", None);
    registry.fail(Fault::Request, 1);
    let error = acquire(&registry, &config, &mut rng).await.unwrap_err();
    assert!(matches!(error, AcquireError::Registry(_)), "{error}");
    registry.put("10.5.1.0/24", &attributes(OTHER), term());
    let error = acquire(&registry, &config, &mut rng).await.unwrap_err();
    assert!(matches!(error, AcquireError::OutOfSubnets(_)), "{error}");
}

#[tokio::test]
async fn lease_whose_answer_was_lost_is_found_again() {
    let registry = Memory::default();
    registry.fail(Fault::Answer, 1);
    let mut rng = StdRng::seed_from_u64(1);
    acquire(&registry, &usual(None), &mut rng).await.unwrap_err();
    let own = acquired(&registry, &usual(None)).await;
    assert!(own.reused);
}
