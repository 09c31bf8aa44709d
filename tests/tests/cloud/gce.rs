//! The backend gce.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cloud::scene::{Scene, wait_for_status, wait_in_step};
use flannel_tests::cloud::{Gce, Mood};
use flannel_tests::cluster::{all_pairs, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::{Host, Node, Place};
use flannel_tests::traffic::Ping;
use flannel_tests::wait;
use ipnetwork::Ipv4Network;
use rstest::rstest;

use super::{SOON, places, subnet, wait_shown, weather};

const BACKEND: &str = r#"{"Type":"gce"}"#;

/// A key that was made for tests.
const KEY: &str = include_str!("../../../flannel-userspace/cloud/src/gce/test_key.pem");

/// Two hosts on different segments, and the cloud around them.
fn two_hosts(is_shared: bool) -> (Scene, Gce, [Host; 2]) {
    let scene = Scene::new(BACKEND).unwrap();
    let gce = Gce::start(&scene.network, is_shared).unwrap();
    let hosts = [scene.host(1, Place::Near).unwrap(), scene.host(2, Place::Far).unwrap()];
    hosts.iter().for_each(|host| gce.add(host, true).unwrap());
    (scene, gce, hosts)
}

fn nodes(scene: &Scene, gce: &Gce, hosts: &[Host]) -> Vec<(Daemon, Node)> {
    hosts.iter().map(|host| scene.node(host, &gce.variables()).unwrap()).collect()
}

fn names(gce: &Gce) -> Vec<String> {
    gce.state().routes.iter().map(|route| route.name.clone()).collect()
}

fn count(gce: &Gce, call: &str) -> usize {
    gce.state().calls.iter().filter(|asked| asked.starts_with(call)).count()
}

#[rstest]
#[case::own_network(false)]
#[case::shared_network(true)]
fn pods_reach_each_other_by_routes_of_the_cloud(#[case] is_shared: bool) {
    let (scene, gce, hosts) = two_hosts(is_shared);
    let mut nodes = nodes(&scene, &gce, &hosts);
    check_reached(&all_pairs(&places(&nodes))).unwrap();
    weather::check_leases(&scene, &hosts);
    assert!(names(&gce).iter().all(|name| name.len() <= 63 && name.starts_with("flannel-")));
    wait_shown(&nodes[0].0, &["2 of 100 routes used", "in step"]);

    // A restart finds its route.
    let before = gce.state().routes.clone();
    nodes[0].0.terminate().unwrap();
    nodes[0].0.restart().unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    assert_eq!(gce.state().routes, before);
    assert_eq!(
        (count(&gce, "POST /compute/v1/projects"), count(&gce, "DELETE")),
        (2 + 4, 0),
        "two routes, waited for"
    );
}

#[test]
fn nothing_secret_is_shown() {
    let (scene, gce, hosts) = two_hosts(false);
    let nodes = nodes(&scene, &gce, &hosts[..1]);
    let (daemon, _) = &nodes[0];
    assert!(gce.state().calls.len() > 3, "the cloud was asked with a token");
    weather::check_secrets_kept(daemon);
}

#[test]
fn a_route_of_stock_flannel_is_adopted() {
    let (scene, gce, hosts) = two_hosts(false);
    let mut nodes = nodes(&scene, &gce, &hosts);
    let own = subnet(&nodes[0].1);
    nodes[0].0.terminate().unwrap();
    let name = format!("flannel-{}", own.to_string().replace(['.', '/'], "-"));
    {
        let mut state = gce.state();
        let route = state.routes.iter_mut().find(|route| route.dest_range == own).unwrap();
        route.name = name.clone();
        route.next_hop_ip = None;
        route.next_hop_instance = Some("projects/shop/zones/europe-west1-b/instances/h1".to_owned());
    }
    nodes[0].0.restart().unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    assert!(names(&gce).contains(&name) && names(&gce).len() == 2, "{:?}", names(&gce));
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
}

#[test]
fn an_instance_that_may_not_forward_is_told_and_reached_once_it_may() {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().set_can_ip_forward(hosts[0].address, false).unwrap();
    let mut daemon = scene.daemon(&hosts[0], &gce.variables()).unwrap();
    wait_for_status(&mut daemon, &["canIpForward", "--can-ip-forward"]).unwrap();
    let (mut other, place) = scene.node(&hosts[1], &gce.variables()).unwrap();
    gce.state().set_can_ip_forward(hosts[0].address, true).unwrap();
    let file = daemon.wait_ready().unwrap();
    let node = Node::new(hosts[0].clone(), file, 1).unwrap();
    check_reached(&pod_pairs(&[&node, &place])).unwrap();
    // Without, the network drops what pods send: the check is one.
    gce.state().set_can_ip_forward(hosts[0].address, false).unwrap();
    let (from, to) = (node.endpoints().next().unwrap(), place.endpoints().next().unwrap());
    assert!(Ping::default().send(from, to).and_then(|pong| pong.check()).is_err());
    wait_for_status(&mut daemon, &["canIpForward"]).unwrap();
    other.check_running().unwrap();
}

#[test]
fn bad_weather_passes() {
    let (scene, gce, hosts) = two_hosts(false);
    let mut nodes = nodes(&scene, &gce, &hosts);
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
    weather::play(&mut nodes, |mood| gce.state().mood = mood);
}

#[rstest]
#[case::throttled(Mood::Throttling, "Rate Limit Exceeded")]
#[case::denied(Mood::Denying, "docs/clouds.md")]
#[case::failing(Mood::Failing, "502")]
#[case::babbling(Mood::Babbling, "cannot be read")]
fn a_start_in_bad_weather_succeeds_after_it(#[case] mood: Mood, #[case] told: &str) {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().mood = mood;
    let mut daemon = scene.daemon(&hosts[0], &gce.variables()).unwrap();
    wait_for_status(&mut daemon, &[told]).unwrap();
    gce.state().mood = Mood::Willing;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn an_operation_that_fails_is_told_and_tried_again() {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().operation_error = Some("INTERNAL_ERROR");
    let mut daemon = scene.daemon(&hosts[0], &gce.variables()).unwrap();
    wait_for_status(&mut daemon, &["INTERNAL_ERROR: what the operation ended with"]).unwrap();
    assert_eq!(names(&gce), Vec::<String>::new());
    gce.state().operation_error = None;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn a_route_that_is_shown_late_is_not_made_twice() {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().hides_new_for = 3;
    let mut daemon = scene.daemon(&hosts[0], &gce.variables()).unwrap();
    wait_in_step(&mut daemon).unwrap();
    wait_in_step(&mut daemon).unwrap();
    assert_eq!(names(&gce).len(), 1);
}

#[test]
fn tokens_are_replaced_before_and_after_they_expire() {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().token_life = 61;
    let mut nodes = nodes(&scene, &gce, &hosts[..1]);
    let given = || gce.state().tokens_given();
    let before = given();
    wait::until_true("a new token", Duration::from_secs(20), || given() > before).unwrap();
    gce.state().token_life = 3600;
    wait_in_step(&mut nodes[0].0).unwrap();
    gce.state().revoke_tokens();
    gce.state().remove_routes(|_| true).unwrap();
    wait::until_true("the route", Duration::from_secs(60), || names(&gce).len() == 1).unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
}

#[test]
fn the_quota_is_told_before_and_when_it_is_hit() {
    let (scene, gce, hosts) = two_hosts(false);
    gce.state().quota = 1;
    let mut nodes = nodes(&scene, &gce, &hosts[..1]);
    wait_for_status(&mut nodes[0].0, &["1 of 1 routes", "have the quota raised"]).unwrap();
    let mut daemon = scene.daemon(&hosts[1], &gce.variables()).unwrap();
    wait_for_status(&mut daemon, &["Quota 'ROUTES' exceeded"]).unwrap();
    let mut state = gce.state();
    state.quota = 2;
    drop(state);
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn routes_of_dead_hosts_go_and_nobody_elses() {
    let (scene, gce, hosts) = two_hosts(false);
    let mut nodes = nodes(&scene, &gce, &hosts);
    let (own, dead) = (subnet(&nodes[0].1), subnet(&nodes[1].1));
    let foreign = ["10.5.251.0/24", "10.5.252.0/24", "10.9.0.0/24"].map(|range| range.parse().unwrap());
    {
        let mut state = gce.state();
        // One by hand, one of another cluster, one elsewhere, all to an instance that is gone.
        let gone = hosts[1].address;
        state.add_route("by-hand", foreign[0], gone).unwrap();
        state.add_route("flannel-0123456789ab-10-5-252-0-24", foreign[1], gone).unwrap();
        state.add_route("flannel-10-9-0-0-24", foreign[2], gone).unwrap();
    }
    nodes[1].0.kill().unwrap();
    gce.state().set_running(hosts[1].address, false).unwrap();
    let key = format!("{PREFIX}/subnets/{}", dead.to_string().replace('/', "-"));
    sleep(Duration::from_secs(4));
    assert_eq!(gce.state().routes.len(), 5, "its subnet is still leased");
    scene.etcd.delete(&key).unwrap();
    wait::until_true("the dead host's route to go", Duration::from_secs(60), || {
        gce.state().routes.iter().all(|route| route.dest_range != dead)
    })
    .unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    let mut left: Vec<Ipv4Network> = gce.state().routes.iter().map(|route| route.dest_range).collect();
    left.sort_unstable();
    let mut expected = foreign.to_vec();
    expected.push(own);
    expected.sort_unstable();
    assert_eq!(left, expected);
}

#[test]
fn a_route_that_somebody_removes_or_turns_comes_back() {
    let (scene, gce, hosts) = two_hosts(false);
    let nodes = nodes(&scene, &gce, &hosts);
    let own = subnet(&nodes[0].1);
    gce.state().remove_routes(|route| route.dest_range == own).unwrap();
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
    {
        let mut state = gce.state();
        let turned = hosts[1].address;
        state
            .routes
            .iter_mut()
            .filter(|route| route.dest_range == own)
            .for_each(|route| route.next_hop_ip = Some(turned));
        state.remove_routes(|_| false).unwrap();
    }
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
}

#[test]
fn a_route_of_somebody_else_in_the_way_is_told_and_stays() {
    let (scene, gce, hosts) = two_hosts(false);
    let mut nodes = nodes(&scene, &gce, &hosts[..1]);
    let own = subnet(&nodes[0].1);
    let mut state = gce.state();
    state.remove_routes(|_| true).unwrap();
    state.add_route("by-hand", own, hosts[1].address).unwrap();
    drop(state);
    wait_for_status(&mut nodes[0].0, &["flanneld has not made"]).unwrap();
    assert_eq!(names(&gce), ["by-hand"]);
}

#[test]
fn a_network_inside_the_clouds_is_refused_with_the_reason() {
    let scene =
        Scene::of(r#"{"Network":"192.168.88.0/24","SubnetLen":28,"Backend":{"Type":"gce"}}"#).unwrap();
    let gce = Gce::start(&scene.network, false).unwrap();
    let host = scene.host(1, Place::Near).unwrap();
    gce.add(&host, true).unwrap();
    let mut daemon = scene.daemon(&host, &gce.variables()).unwrap();
    wait_for_status(&mut daemon, &["192.168.88.0/24", "choose a Network outside"]).unwrap();
    assert_eq!(names(&gce), Vec::<String>::new());
}

#[test]
fn a_service_accounts_key_is_exchanged_for_a_token() {
    let (scene, gce, hosts) = two_hosts(false);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key.json");
    let text = serde_json::json!({
        "type": "service_account", "client_email": "flannel@shop.iam.gserviceaccount.com", "private_key_id": "1",
        "private_key": KEY, "token_uri": gce.token_uri(),
    });
    fs::write(&file, text.to_string()).unwrap();
    let mut variables = gce.variables();
    variables.push(("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), file.display().to_string()));
    let mut daemon = scene.daemon(&hosts[0], &variables).unwrap();
    wait_in_step(&mut daemon).unwrap();
    fs::write(&file, r#"{"type":"external_account","audience":"canary"}"#).unwrap();
    let mut other = scene.daemon(&hosts[1], &variables).unwrap();
    wait_for_status(&mut other, &["external_account are not served"]).unwrap();
    assert!(!fs::read_to_string(other.log()).unwrap().contains("canary"));
}

#[test]
fn alias_ranges_need_neither_routes_nor_forwarding() {
    let scene = Scene::new(r#"{"Type":"gce","AliasRanges":true}"#).unwrap();
    let gce = Gce::start(&scene.network, false).unwrap();
    let hosts = [scene.host(1, Place::Near).unwrap(), scene.host(2, Place::Far).unwrap()];
    hosts.iter().for_each(|host| gce.add(host, false).unwrap());
    let kept: Ipv4Network = "10.9.0.0/28".parse().unwrap();
    gce.state().instances.get_mut(&hosts[0].address).unwrap().aliases.push(kept);
    let mut nodes = nodes(&scene, &gce, &hosts);
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
    let aliases = |gce: &Gce| gce.state().instances[&hosts[0].address].aliases.clone();
    assert_eq!(aliases(&gce), [kept, subnet(&nodes[0].1)]);
    assert_eq!(names(&gce), Vec::<String>::new());
    // Somebody else changes the interface while it is changed.
    {
        let mut state = gce.state();
        let instance = state.instances.get_mut(&hosts[0].address).unwrap();
        instance.aliases.truncate(1);
        instance.fingerprint += 1;
    }
    check_reached(&pod_pairs(&places(&nodes))).unwrap();
    let expected = [kept, subnet(&nodes[0].1)];
    wait::until_true("the range to be put back", SOON, || aliases(&gce) == expected).unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
}
