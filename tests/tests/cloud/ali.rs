//! The backend ali-vpc.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cloud::ali::{Entry, KEY};
use flannel_tests::cloud::scene::{Scene, wait_for_status, wait_in_step};
use flannel_tests::cloud::{Ali, Mood};
use flannel_tests::cluster::{all_pairs, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::network::{Host, Node, Place};
use rstest::rstest;

use super::{places, subnet, wait_shown, weather};

/// With the key in the configuration.
fn backend() -> String {
    let (id, secret) = KEY;
    format!(r#"{{"Type":"ali-vpc","AccessKeyID":"{id}","AccessKeySecret":"{secret}"}}"#)
}

/// Two hosts on different segments, and the cloud around them.
fn two_hosts(backend: &str) -> (Scene, Ali, [Host; 2]) {
    let scene = Scene::new(backend).unwrap();
    let cloud = Ali::start(&scene.network).unwrap();
    let hosts = [scene.host(1, Place::Near).unwrap(), scene.host(2, Place::Far).unwrap()];
    hosts.iter().for_each(|host| cloud.add(host));
    (scene, cloud, hosts)
}

fn nodes(scene: &Scene, hosts: &[Host]) -> Vec<(Daemon, Node)> {
    hosts.iter().map(|host| scene.node(host, &Ali::variables()).unwrap()).collect()
}

#[test]
fn pods_reach_each_other_by_routes_of_the_cloud() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    let mut nodes = nodes(&scene, &hosts);
    check_reached(&all_pairs(&places(&nodes))).unwrap();
    weather::check_leases(&scene, &hosts);
    wait_shown(&nodes[0].0, &["vtb-1, 2 of 200 routes used", "in step"]);
    let before = cloud.state().entries.clone();
    nodes[0].0.terminate().unwrap();
    nodes[0].0.restart().unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    assert_eq!(cloud.state().entries, before, "a restart finds its route");
}

#[rstest]
#[case::of_the_environment(&[("ACCESS_KEY_ID", KEY.0), ("ACCESS_KEY_SECRET", KEY.1)], false)]
#[case::of_the_role(&[], true)]
fn a_key_is_found(#[case] variables: &[(&str, &str)], #[case] has_role: bool) {
    let (scene, cloud, hosts) = two_hosts(r#"{"Type":"ali-vpc"}"#);
    cloud.state().has_role = has_role;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let variables: Vec<_> = Ali::variables().into_iter().chain(variables).collect();
    let (daemon, _) = scene.node(&hosts[0], &variables).unwrap();
    weather::check_secrets_kept(&daemon);
}

#[test]
fn without_a_key_it_says_where_one_belongs() {
    let (scene, _cloud, hosts) = two_hosts(r#"{"Type":"ali-vpc"}"#);
    let mut daemon = scene.daemon(&hosts[0], &Ali::variables()).unwrap();
    wait_for_status(&mut daemon, &["ACCESS_KEY_ID and ACCESS_KEY_SECRET must be provided! "]).unwrap();
}

#[test]
fn a_wrong_key_is_told_and_not_shown() {
    let (scene, cloud, hosts) =
        two_hosts(r#"{"Type":"ali-vpc","AccessKeyID":"LTAItest","AccessKeySecret":"canary-wrong"}"#);
    let mut daemon = scene.daemon(&hosts[0], &Ali::variables()).unwrap();
    wait_for_status(&mut daemon, &["SignatureDoesNotMatch"]).unwrap();
    assert!(cloud.state().entries.is_empty());
    weather::check_secrets_kept(&daemon);
}

#[test]
fn nothing_secret_is_shown() {
    let (scene, _cloud, hosts) = two_hosts(&backend());
    let (daemon, _) = scene.node(&hosts[0], &Ali::variables()).unwrap();
    weather::check_secrets_kept(&daemon);
    weather::check_sysdump(&daemon);
}

#[test]
fn bad_weather_passes() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    let mut nodes = nodes(&scene, &hosts);
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
    weather::play(&mut nodes, |mood| cloud.state().mood = mood);
}

#[rstest]
#[case::throttled(Mood::Throttling, "Throttling.User")]
#[case::denied(Mood::Denying, "Forbidden.RAM")]
#[case::failing(Mood::Failing, "502")]
#[case::babbling(Mood::Babbling, "cannot be read")]
fn a_start_in_bad_weather_succeeds_after_it(#[case] mood: Mood, #[case] told: &str) {
    let (scene, cloud, hosts) = two_hosts(&backend());
    cloud.state().mood = mood;
    let mut daemon = scene.daemon(&hosts[0], &Ali::variables()).unwrap();
    wait_for_status(&mut daemon, &[told]).unwrap();
    cloud.state().mood = Mood::Willing;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn a_full_table_is_told() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    cloud.state().quota = 0;
    let mut daemon = scene.daemon(&hosts[0], &Ali::variables()).unwrap();
    wait_for_status(&mut daemon, &["QuotaExceeded"]).unwrap();
    cloud.state().quota = 1;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn own_entries_come_back_and_those_of_others_stay() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    let entry = |destination: &str, host: &Host| Entry {
        destination: destination.parse().unwrap(),
        instance: Ali::instance(host),
        pending_for: 0,
    };
    // Stock flannel removes every other entry to its instance.
    let others = [entry("10.9.0.0/24", &hosts[0]), entry("172.16.0.0/12", &hosts[1])];
    cloud.state().change_entries(|entries| entries.extend(others.iter().cloned())).unwrap();
    let mut nodes = nodes(&scene, &hosts);
    let own = subnet(&nodes[0].1);
    let pairs = pod_pairs(&places(&nodes));
    cloud.state().change_entries(|entries| entries.retain(|entry| entry.destination != own)).unwrap();
    check_reached(&pairs).unwrap();
    let other = Ali::instance(&hosts[1]);
    cloud
        .state()
        .change_entries(|entries| {
            entries
                .iter_mut()
                .filter(|entry| entry.destination == own)
                .for_each(|entry| entry.instance = other.clone());
        })
        .unwrap();
    check_reached(&pairs).unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    sleep(Duration::from_secs(3));
    for other in &others {
        assert!(cloud.state().entries.contains(other), "{other:?} is gone");
    }
}

#[test]
fn a_table_that_others_change_is_changed_after_them() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    cloud.state().conflicts = 3;
    let mut daemon = scene.daemon(&hosts[0], &Ali::variables()).unwrap();
    wait_in_step(&mut daemon).unwrap();
    let state = cloud.state();
    assert_eq!(state.calls.iter().filter(|call| *call == "CreateRouteEntry").count(), 4);
    assert!(
        state.entries.iter().all(|entry| entry.pending_for == 0),
        "ready before the entry is: {:?}",
        state.entries
    );
}

#[test]
fn a_network_inside_the_vpc_is_refused_with_the_reason() {
    let scene = Scene::of(&format!(r#"{{"Network":"192.168.200.0/22","Backend":{}}}"#, backend())).unwrap();
    let cloud = Ali::start(&scene.network).unwrap();
    let host = scene.host(1, Place::Near).unwrap();
    cloud.add(&host);
    let mut daemon = scene.daemon(&host, &Ali::variables()).unwrap();
    wait_for_status(&mut daemon, &["192.168.200.0/22", "192.168.0.0/16", "choose a Network outside"])
        .unwrap();
    assert!(cloud.state().entries.is_empty());
}
