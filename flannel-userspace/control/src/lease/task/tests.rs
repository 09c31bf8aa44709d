use std::net::IpAddr;
use std::time::Duration;

use flannel_model::family::PerFamily;
use flannel_model::lease::{EtcdLeaseId, Lease, Revision};
use flannel_registry::memory::{Fault, Memory};
use flannel_registry::{LeaseSource as _, Watch as _};
use ipnetwork::IpNetwork;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rstest::rstest;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{
    Attributes, HoldConfig, LeaseHandle, LeaseTask, Lost, MIN_PAUSE, PROBATION, WithdrawError, Withdrawn,
};
use crate::lease::{AcquireConfig, OwnLease, Pool, acquire};

const SUBNET: &str = "10.5.7.0/24";
const OWN: &str = "192.0.2.1";
const MAC: &str = "02:00:00:00:00:01";
const OTHER_MAC: &str = "02:00:00:00:00:02";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CONFIG: HoldConfig = HoldConfig { ttl: DAY, renew_margin: Duration::from_secs(60 * 60) };

fn attributes(public_ip: &str, mac: &str) -> Attributes {
    let backend_data = PerFamily::only_v4((&json!({ "VNI": 1, "VtepMAC": mac })).into());
    let backend_type = Some("vxlan".to_owned());
    Attributes { backend_type, backend_data, ..Attributes::new(public_ip.parse::<IpAddr>().unwrap().into()) }
}

fn own() -> Attributes {
    attributes(OWN, MAC)
}

fn term() -> Option<EtcdLeaseId> {
    EtcdLeaseId::from_id(7)
}

async fn acquired(registry: &Memory, attributes: Attributes, ttl: Duration) -> OwnLease {
    let pool = Pool::new("10.5.1.0".parse().unwrap(), "10.5.255.0".parse().unwrap(), 24).unwrap();
    let config = AcquireConfig {
        former_term: None,
        pools: PerFamily::only_v4(pool),
        attributes,
        previous: SUBNET.parse::<IpNetwork>().unwrap().into(),
        ttl,
    };
    let own = acquire(registry, &config, &mut StdRng::seed_from_u64(1)).await.unwrap();
    assert_eq!(own.lease.subnets.to_string(), SUBNET);
    own
}

/// A task that holds the lease and receives only the events given to it.
fn held_deaf(registry: &Memory, config: HoldConfig, own: OwnLease) -> (LeaseHandle, JoinHandle<Lost>) {
    let (hold, holder) = LeaseTask::new(registry.clone(), config, own);
    (holder, tokio::spawn(hold.run()))
}

/// The same, with every event passed on.
async fn held(registry: &Memory, config: HoldConfig, own: OwnLease) -> (LeaseHandle, JoinHandle<Lost>) {
    let mut watch = registry.watch(own.lease.mod_revision).await.unwrap();
    let (holder, task) = held_deaf(registry, config, own);
    let teller = holder.clone();
    tokio::spawn(async move {
        while let Ok(events) = watch.next().await {
            for event in &events {
                teller.observe(event);
            }
        }
    });
    (holder, task)
}

/// A registry and the task that holds a lease which nobody had before.
async fn holding() -> (Memory, LeaseHandle, JoinHandle<Lost>) {
    let registry = Memory::default();
    let own = acquired(&registry, own(), DAY).await;
    let (holder, task) = held(&registry, CONFIG, own).await;
    // The task begins to listen.
    sleep(Duration::from_secs(1)).await;
    (registry, holder, task)
}

#[rstest]
#[case::in_time(100, 40, &[0, 60, 120])]
#[case::usual(86400, 3600, &[0, 82800])]
#[case::margin_as_long_as_the_lease(90, 90, &[0, 30, 60, 90, 120])]
#[case::margin_longer_than_the_lease(90, 3600, &[0, 30, 60, 90, 120])]
#[tokio::test(start_paused = true)]
async fn renewals(#[case] ttl: u64, #[case] margin: u64, #[case] seconds: &[u64]) {
    let config = HoldConfig { ttl: Duration::from_secs(ttl), renew_margin: Duration::from_secs(margin) };
    let registry = Memory::default();
    let start = Instant::now();
    let own = acquired(&registry, own(), config.ttl).await;
    let (holder, _task) = held(&registry, config, own).await;
    sleep(Duration::from_secs(seconds.last().unwrap() + 10)).await;
    let writes = registry.writes();
    let times: Vec<u64> = writes.iter().map(|write| (write.at - start).as_secs()).collect();
    assert_eq!(times, seconds);
    assert!(writes.iter().all(|write| write.ttl == Some(config.ttl)));
    let held = holder.state().borrow().clone();
    assert_eq!(held.expires, Some(writes.last().unwrap().at + config.ttl));
    assert_eq!(Some(held.lease), registry.lease(SUBNET));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_is_kept() {
    let ttl = Duration::from_secs(30);
    let config = HoldConfig { ttl, ..CONFIG };
    let registry = Memory::default();
    let own = acquired(&registry, own(), ttl).await;
    let written = own.lease.clone();
    let (holder, _task) = held(&registry, config, own).await;
    registry.fail(Fault::Request, 1000);
    sleep(ttl * 10).await;
    let held = holder.state().borrow().clone();
    assert_eq!((registry.lease(SUBNET), &held.lease), (Some(written.clone()), &written));
    assert!(held.expires > Some(Instant::now() + ttl / 2), "kept well before it ends");
}

#[rstest]
#[case::deleted(Memory::remove)]
#[case::overwritten_with_junk(Memory::put_junk)]
#[case::overwritten_with_another_vtep(|registry: &Memory, subnet: &str| {
    registry.put(subnet, &attributes(OWN, OTHER_MAC), term());
})]
#[tokio::test(start_paused = true)]
async fn what_was_done_to_the_lease_is_undone(#[case] damage: fn(&Memory, &str)) {
    let (registry, holder, _task) = holding().await;
    damage(&registry, SUBNET);
    assert_ne!(registry.lease(SUBNET).map(|lease| lease.attributes), Some(own()));
    sleep(MIN_PAUSE * 2).await;
    let lease = registry.lease(SUBNET).unwrap();
    assert_eq!(lease.attributes, own());
    assert!(lease.term.is_some());
    assert_eq!(holder.state().borrow().lease, lease);
    // And that is that.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(registry.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn lease_that_another_address_has_is_lost() {
    let (registry, _holder, task) = holding().await;
    let thief = registry.put(SUBNET, &attributes("192.0.2.9", OTHER_MAC), term());
    let lost = task.await.unwrap();
    assert_eq!(lost, Lost::Taken { subnets: thief.subnets, holder: Box::new(thief.attributes.clone()) });
    assert!(lost.to_string().contains("192.0.2.9 holds it now"), "{lost}");
    assert_eq!(registry.lease(SUBNET), Some(thief));
}

#[tokio::test(start_paused = true)]
async fn lease_taken_unheard_is_found_lost_at_the_renewal() {
    let registry = Memory::default();
    let own = acquired(&registry, own(), DAY).await;
    let (_holder, task) = held_deaf(&registry, CONFIG, own);
    let thief = registry.put(SUBNET, &attributes("192.0.2.9", OTHER_MAC), term());
    assert!(matches!(task.await.unwrap(), Lost::Taken { .. }));
    assert_eq!(registry.lease(SUBNET), Some(thief));
}

#[tokio::test(start_paused = true)]
async fn second_host_of_one_address_yields_to_the_first() {
    let (registry, _holder, first) = holding().await;
    let second = acquired(&registry, attributes(OWN, OTHER_MAC), DAY).await;
    assert!(second.reused);
    let (_holder, second) = held(&registry, CONFIG, second).await;
    let lost = second.await.unwrap();
    assert!(matches!(lost, Lost::Contested { .. }), "{lost}");
    assert!(lost.to_string().contains("give every host its own address"), "{lost}");
    assert!(!first.is_finished());
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
}

#[tokio::test(start_paused = true)]
async fn host_that_took_its_lease_over_insists_on_it_after_a_while() {
    let registry = Memory::default();
    registry.put(SUBNET, &attributes(OWN, OTHER_MAC), term());
    let taken_over = acquired(&registry, own(), DAY).await;
    let (_holder, task) = held(&registry, CONFIG, taken_over).await;
    sleep(PROBATION + Duration::from_secs(1)).await;
    registry.put(SUBNET, &attributes(OWN, OTHER_MAC), term());
    sleep(MIN_PAUSE * 2).await;
    assert!(!task.is_finished());
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
}

#[tokio::test(start_paused = true)]
async fn writers_that_insist_write_no_faster_than_the_least_pause() {
    let (registry, _holder, first) = holding().await;
    let second = acquired(&registry, attributes(OWN, OTHER_MAC), DAY).await;
    let (_holder, second) = held(&registry, CONFIG, OwnLease { reused: false, ..second }).await;
    sleep(Duration::from_secs(20)).await;
    assert!(!first.is_finished() && !second.is_finished());
    for mac in [MAC, OTHER_MAC] {
        let wanted = attributes(OWN, mac);
        let times: Vec<Instant> = registry
            .writes()
            .iter()
            .filter(|write| write.attributes == wanted)
            .map(|write| write.at)
            .collect();
        assert!(times.len() > 10, "{mac} gave up: {times:?}");
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= MIN_PAUSE), "{mac}: {times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_writes_are_tried_again_after_growing_pauses() {
    let (registry, _holder, _task) = holding().await;
    registry.fail(Fault::Request, 8);
    registry.remove(SUBNET);
    sleep(Duration::from_secs(180)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
    let writes = registry.writes();
    assert_eq!(writes.len(), 1 + 8 + 1);
    let pauses: Vec<f64> =
        writes[1..].windows(2).map(|pair| (pair[1].at - pair[0].at).as_secs_f64()).collect();
    for (pause, least) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5, 7.5]) {
        // A random part of up to as much comes on top.
        assert!((least..=2.0 * least + 0.01).contains(pause), "{pauses:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_whose_answer_was_lost_is_recognised() {
    let (registry, holder, task) = holding().await;
    registry.fail(Fault::Answer, 1);
    sleep(DAY).await;
    assert!(!task.is_finished());
    // The lost one, and one with an etcd lease of known length.
    assert_eq!(registry.writes().len(), 3);
    assert_eq!(Some(holder.state().borrow().lease.clone()), registry.lease(SUBNET));
}

#[rstest]
#[case::vtep(attributes(OWN, OTHER_MAC))]
#[case::address(attributes("192.0.2.77", MAC))]
#[tokio::test(start_paused = true)]
async fn published_attributes_are_written(#[case] news: Attributes) {
    let (registry, holder, task) = holding().await;
    holder.publish(own());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.writes().len(), 1, "what stands there needs not be written");
    holder.publish(news.clone());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, news);
    assert_eq!(holder.state().borrow().lease.attributes, news);
    registry.remove(SUBNET);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, news);
    assert!(!task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn lease_that_was_made_a_reservation_stays_one() {
    let (registry, holder, _task) = holding().await;
    let reservation = registry.put(SUBNET, &own(), None);
    sleep(DAY * 30).await;
    assert_eq!(registry.lease(SUBNET), Some(reservation.clone()));
    assert_eq!(registry.writes().len(), 1);
    let held = holder.state().borrow().clone();
    assert_eq!((held.lease, held.expires), (reservation, None));
    holder.publish(attributes(OWN, OTHER_MAC));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().term, None);
}

#[tokio::test(start_paused = true)]
async fn equal_lease_of_unknown_length_is_put_on_an_own_term_soon() {
    let (registry, _holder, _task) = holding().await;
    registry.put(SUBNET, &own(), term());
    sleep(Duration::from_secs(61)).await;
    assert_eq!(registry.writes().len(), 2);
    assert_ne!(registry.lease(SUBNET).unwrap().term, term());
}

/// Alerts go by what is reported: neither too early nor too late.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_lease_that_another_wrote_is_doubted_once_it_cannot_be_written() {
    let (registry, holder, _task) = holding().await;
    let before = holder.state().borrow().expires;
    registry.put(SUBNET, &own(), term());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(holder.state().borrow().expires, before, "it is about to be written again");
    registry.fail(Fault::Away, 1000);
    sleep(Duration::from_secs(120)).await;
    assert!(holder.state().borrow().expires < Some(Instant::now()), "nobody knows how long it lasts");
}

#[tokio::test(start_paused = true)]
async fn a_remembered_lease_lasts_no_longer_than_it_did() {
    let registry = Memory::default();
    let remembered = registry.put(SUBNET, &own(), term());
    registry.fail(Fault::Request, 1000);
    let end = Instant::now() + Duration::from_secs(600);
    let (hold, holder) = LeaseTask::resume(registry.clone(), CONFIG, remembered, Some(end));
    let _task = tokio::spawn(hold.run());
    sleep(Duration::from_secs(60)).await;
    let held = holder.state().borrow().clone();
    assert_eq!(held.expires, Some(end));
    assert!(held.renewal < Some(Instant::now()), "it is late");
    registry.fail(Fault::Request, 0);
    // What is found then is as it should be, and taken over within a minute.
    sleep(Duration::from_secs(120)).await;
    let held = holder.state().borrow().clone();
    assert!(held.expires > Some(end) && held.renewal > Some(Instant::now()), "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn listing_without_the_lease_has_it_written_again() {
    let registry = Memory::default();
    let lease = acquired(&registry, own(), DAY).await;
    let (holder, _task) = held_deaf(&registry, CONFIG, lease);
    let before = registry.list().await.unwrap();
    registry.remove(SUBNET);
    holder.sync(&registry.list().await.unwrap());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
    // A listing from before that comes late.
    holder.sync(&before);
    holder.sync(&registry.list().await.unwrap());
    sleep(Duration::from_secs(10)).await;
    assert_eq!(registry.writes().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn registry_that_was_made_anew_gets_the_lease_again() {
    let (registry, holder, _task) = holding().await;
    registry.put("10.5.9.0/24", &attributes("192.0.2.9", OTHER_MAC), term());
    holder.sync(&registry.list().await.unwrap());
    registry.wipe();
    holder.sync(&registry.list().await.unwrap());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
}

#[tokio::test(start_paused = true)]
async fn events_of_other_keys_are_not_the_holders() {
    let (registry, holder, _task) = holding().await;
    let mut watch = registry.watch(Revision::new(1)).await.unwrap();
    registry.put("10.5.9.0/24", &attributes("192.0.2.9", OTHER_MAC), term());
    registry.remove(SUBNET);
    let events = watch.next().await.unwrap();
    let told: Vec<bool> = events.iter().map(|event| holder.observe(event)).collect();
    assert_eq!(told, [true, false, true]);
}

/// The host booted while the registry was away, with another address than it had before.
#[rstest]
#[case::own_term(7, true)]
#[case::term_of_another_host(8, false)]
#[tokio::test(start_paused = true)]
async fn a_remembered_lease_that_tells_of_the_former_address(#[case] term_id: i64, #[case] is_own: bool) {
    let registry = Memory::default();
    let before = attributes("192.0.2.9", MAC);
    let written = registry.put(SUBNET, &before, term());
    let remembered = Lease { attributes: own(), term: EtcdLeaseId::from_id(term_id), ..written };
    let (hold, holder) = LeaseTask::resume(registry.clone(), CONFIG, remembered, None);
    let task = tokio::spawn(hold.run());
    sleep(Duration::from_secs(5)).await;
    if is_own {
        assert_eq!(registry.lease(SUBNET).unwrap().attributes, own());
        assert_eq!(holder.state().borrow().lease.attributes, own());
    } else {
        assert!(matches!(task.await.unwrap(), Lost::Taken { .. }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_withdrawn_is_gone_and_stays_so() {
    let (registry, holder, task) = holding().await;
    assert_eq!(holder.withdraw().await.unwrap(), Withdrawn::Deleted);
    assert!(registry.lease(SUBNET).is_none());
    let written = registry.writes().len();
    sleep(2 * DAY).await;
    assert_eq!(registry.writes().len(), written, "nobody writes it again, who hears that it was deleted");
    assert!(registry.lease(SUBNET).is_none() && !task.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_reservation_is_not_withdrawn() {
    let (registry, holder, _task) = holding().await;
    registry.put(SUBNET, &own(), None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(holder.withdraw().await.unwrap(), Withdrawn::Kept);
    assert!(registry.lease(SUBNET).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_withdrawn_stays_held() {
    let registry = Memory::default();
    let own_lease = acquired(&registry, own(), DAY).await;
    let (holder, task) = held_deaf(&registry, CONFIG, own_lease);
    // Somebody writes it, which the task does not hear of.
    registry.put(SUBNET, &own(), term());
    let error = holder.withdraw().await.unwrap_err();
    assert!(matches!(error, WithdrawError::Changed(_)), "{error}");
    assert!(registry.lease(SUBNET).is_some());
    let written = registry.writes().len();
    sleep(DAY).await;
    assert!(registry.writes().len() > written && !task.is_finished(), "it is renewed");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_lost_cannot_be_withdrawn() {
    let (registry, holder, task) = holding().await;
    registry.put(SUBNET, &attributes("192.0.2.2", OTHER_MAC), term());
    task.await.unwrap();
    assert!(matches!(holder.withdraw().await, Err(WithdrawError::Lost)));
    assert!(registry.lease(SUBNET).is_some(), "it is the other's");
}
