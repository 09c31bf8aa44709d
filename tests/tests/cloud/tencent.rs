//! The backend tencent-vpc.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cloud::scene::{Scene, wait_for_status, wait_in_step};
use flannel_tests::cloud::tencent::{KEY, Route};
use flannel_tests::cloud::{Mood, Tencent};
use flannel_tests::cluster::{all_pairs, check_reached, pod_pairs};
use flannel_tests::daemon::Daemon;
use flannel_tests::network::{Host, Node, Place};
use rstest::rstest;

use super::{places, subnet, wait_shown, weather};

/// With the key in the configuration.
fn backend() -> String {
    let (id, secret) = KEY;
    format!(r#"{{"Type":"tencent-vpc","AccessKeyID":"{id}","AccessKeySecret":"{secret}"}}"#)
}

/// Two hosts on different segments, and the cloud around them.
fn two_hosts(backend: &str) -> (Scene, Tencent, [Host; 2]) {
    let scene = Scene::new(backend).unwrap();
    let cloud = Tencent::start(&scene.network).unwrap();
    let hosts = [scene.host(1, Place::Near).unwrap(), scene.host(2, Place::Far).unwrap()];
    hosts.iter().for_each(|host| cloud.add(host));
    (scene, cloud, hosts)
}

fn nodes(scene: &Scene, hosts: &[Host]) -> Vec<(Daemon, Node)> {
    hosts.iter().map(|host| scene.node(host, &Tencent::variables()).unwrap()).collect()
}

fn route(destination: &str, gateway: &str, gateway_type: &str) -> Route {
    Route {
        id: 7,
        destination: destination.parse().unwrap(),
        gateway: gateway.to_owned(),
        gateway_type: gateway_type.to_owned(),
        enabled: true,
    }
}

#[test]
fn pods_reach_each_other_by_routes_of_the_cloud() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    let mut nodes = nodes(&scene, &hosts);
    check_reached(&all_pairs(&places(&nodes))).unwrap();
    weather::check_leases(&scene, &hosts);
    wait_shown(&nodes[0].0, &["rtb-1, 2 routes", "in step"]);
    let before = cloud.state().routes.clone();
    nodes[0].0.terminate().unwrap();
    nodes[0].0.restart().unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    assert_eq!(cloud.state().routes, before, "a restart finds its route");
}

#[rstest]
#[case::of_the_environment(&[("ACCESS_KEY_ID", KEY.0), ("ACCESS_KEY_SECRET", KEY.1)], false)]
#[case::of_the_role(&[], true)]
fn a_key_is_found(#[case] variables: &[(&str, &str)], #[case] has_role: bool) {
    let (scene, cloud, hosts) = two_hosts(r#"{"Type":"tencent-vpc"}"#);
    cloud.state().has_role = has_role;
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let variables: Vec<_> = Tencent::variables().into_iter().chain(variables).collect();
    let (daemon, _) = scene.node(&hosts[0], &variables).unwrap();
    weather::check_secrets_kept(&daemon);
}

#[test]
fn without_a_key_it_says_where_one_belongs() {
    let (scene, _cloud, hosts) = two_hosts(r#"{"Type":"tencent-vpc"}"#);
    let mut daemon = scene.daemon(&hosts[0], &Tencent::variables()).unwrap();
    wait_for_status(&mut daemon, &["ACCESS_KEY_ID and ACCESS_KEY_SECRET must be provided! "]).unwrap();
}

#[test]
fn a_wrong_key_is_told_and_not_shown() {
    let (scene, cloud, hosts) =
        two_hosts(r#"{"Type":"tencent-vpc","AccessKeyID":"AKIDtest","AccessKeySecret":"canary-wrong"}"#);
    let mut daemon = scene.daemon(&hosts[0], &Tencent::variables()).unwrap();
    wait_for_status(&mut daemon, &["AuthFailure.SignatureFailure"]).unwrap();
    assert!(cloud.state().routes.is_empty());
    weather::check_secrets_kept(&daemon);
}

#[test]
fn nothing_secret_is_shown() {
    let (scene, _cloud, hosts) = two_hosts(&backend());
    let (daemon, _) = scene.node(&hosts[0], &Tencent::variables()).unwrap();
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
#[case::throttled(Mood::Throttling, "RequestLimitExceeded")]
#[case::denied(Mood::Denying, "UnauthorizedOperation")]
#[case::failing(Mood::Failing, "502")]
#[case::babbling(Mood::Babbling, "without an answer of the API's")]
fn a_start_in_bad_weather_succeeds_after_it(#[case] mood: Mood, #[case] told: &str) {
    let (scene, cloud, hosts) = two_hosts(&backend());
    cloud.state().mood = mood;
    let mut daemon = scene.daemon(&hosts[0], &Tencent::variables()).unwrap();
    wait_for_status(&mut daemon, &[told]).unwrap();
    cloud.state().mood = Mood::Willing;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn a_full_table_is_told() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    cloud.state().quota = 0;
    let mut daemon = scene.daemon(&hosts[0], &Tencent::variables()).unwrap();
    wait_for_status(&mut daemon, &["LimitExceeded"]).unwrap();
    cloud.state().quota = 1;
    wait_in_step(&mut daemon).unwrap();
}

#[test]
fn own_routes_come_back_and_those_of_others_stay() {
    let (scene, cloud, hosts) = two_hosts(&backend());
    let others = [
        route("10.9.0.0/24", &hosts[0].address.to_string(), "NORMAL_CVM"),
        route("172.16.0.0/12", "nat-1", "NAT"),
    ];
    cloud.state().change_routes(|routes| routes.extend(others.iter().cloned())).unwrap();
    let mut nodes = nodes(&scene, &hosts);
    let own = subnet(&nodes[0].1);
    let pairs = pod_pairs(&places(&nodes));
    let (first, second) = (own, hosts[1].address.to_string());
    let own_route = move |route: &&mut Route| route.destination == first;
    cloud
        .state()
        .change_routes(|routes| routes.iter_mut().filter(own_route).for_each(|own| own.enabled = false))
        .unwrap();
    check_reached(&pairs).unwrap();
    cloud.state().change_routes(|routes| routes.retain(|route| route.destination != own)).unwrap();
    check_reached(&pairs).unwrap();
    cloud
        .state()
        .change_routes(|routes| {
            routes.iter_mut().filter(own_route).for_each(|own| own.gateway = second.clone());
        })
        .unwrap();
    check_reached(&pairs).unwrap();
    wait_in_step(&mut nodes[0].0).unwrap();
    sleep(Duration::from_secs(3));
    for other in &others {
        assert!(cloud.state().routes.contains(other), "{other:?} is gone");
    }
}

#[test]
fn a_network_inside_the_vpc_is_refused_with_the_reason() {
    let scene = Scene::of(&format!(r#"{{"Network":"192.168.200.0/22","Backend":{}}}"#, backend())).unwrap();
    let cloud = Tencent::start(&scene.network).unwrap();
    let host = scene.host(1, Place::Near).unwrap();
    cloud.add(&host);
    let mut daemon = scene.daemon(&host, &Tencent::variables()).unwrap();
    wait_for_status(&mut daemon, &["192.168.200.0/22", "192.168.0.0/16", "choose a Network outside"])
        .unwrap();
    assert!(cloud.state().routes.is_empty());
}
