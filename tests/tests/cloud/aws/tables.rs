//! What becomes of route tables.

use std::collections::BTreeMap;

use flannel_tests::cloud::aws::{Aws, Life, MAIN, Target};
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::leases;
use flannel_tests::network::Place;
use flannel_tests::wait;

use super::{BACKEND, Lab};
use crate::{SOON, wait_log, wait_ready};

#[test]
fn pods_reach_each_other_by_the_clouds_routes() {
    let lab = Lab::new();
    let members = [lab.member(1, Place::Near), lab.member(2, Place::Near), lab.member(3, Place::Far)];
    let nodes: Vec<_> = members.iter().map(|(_, node)| node).collect();
    check_reached(&pod_pairs(&nodes)).unwrap();
    for (daemon, node) in &members {
        assert!(lab.leads_to(node));
        assert!(!lab.aws.state().instances[&node.host.address].is_checked, "the source check is off");
        let links = node.host.namespace.ip("-brief link").unwrap();
        assert!(!links.contains("flannel"), "there is no device: {links}");
        let routes = node.host.namespace.ip("route").unwrap();
        assert_eq!(
            routes.lines().filter(|line| line.starts_with("10.5.")).count(),
            1,
            "its own alone: {routes}"
        );
        let status = wait_ready(daemon);
        assert_eq!(status["backend"], "aws-vpc");
        let cloud = &status["daemon"]["cloud"];
        assert_eq!(
            (cloud["tables"][0]["id"].as_str(), cloud["tables"][0]["limit"].as_u64()),
            (Some(MAIN), Some(500))
        );
        let text = daemon.ctl("status").unwrap();
        assert!(text.contains(&format!("{MAIN}, ")) && text.contains("of 500 routes used"), "{text}");
        let log = std::fs::read_to_string(daemon.log()).unwrap();
        assert!(!log.contains("canary"), "no secret is logged");
    }
    // The bytes of stock flannel: no type, no data.
    for entry in lab.etcd.list(&format!("{PREFIX}/subnets/")).unwrap() {
        let lease: serde_json::Value = serde_json::from_str(&entry.value).unwrap();
        assert_eq!(
            lease.as_object().unwrap().keys().collect::<Vec<_>>(),
            ["PublicIP", "PublicIPv6"],
            "{lease}"
        );
    }
    let (from, to) = (&nodes[0].pods[0].endpoint, &nodes[1].pods[0].endpoint);
    let explained = members[0].0.ctl(&format!("explain {} {}", from.address, to.address)).unwrap();
    assert!(explained.contains("route tables of the cloud"), "{explained}");
}

#[test]
fn a_restart_changes_nothing() {
    let lab = Lab::new();
    let (mut daemon, node) = lab.member(1, Place::Near);
    let before = lab.route(&node);
    let changes = |aws: &Aws| ["CreateRoute", "ReplaceRoute", "DeleteRoute"].map(|action| aws.calls(action));
    let changed = changes(&lab.aws);
    daemon.terminate().unwrap();
    assert_eq!(lab.route(&node), before, "the end of a daemon leaves its route");
    daemon.restart().unwrap();
    daemon.wait_ready().unwrap();
    wait_ready(&daemon);
    assert_eq!(lab.route(&node), before);
    assert_eq!(changes(&lab.aws), changed);
}

#[test]
fn what_somebody_changes_is_put_right() {
    let lab = Lab::new();
    let members = [lab.member(1, Place::Near), lab.member(2, Place::Near)];
    let nodes: Vec<_> = members.iter().map(|(_, node)| node).collect();
    let node = nodes[0];
    {
        let mut state = lab.aws.state();
        state.tables.get_mut(MAIN).unwrap().routes.remove(&node.file.subnet);
        state.apply().unwrap();
    }
    wait::until_true("the route to be put again", SOON, || lab.leads_to(node)).unwrap();
    let other = lab.aws.state().instances[&nodes[1].host.address].interface.clone();
    lab.put(node.file.subnet, Target::Interface(other));
    wait::until_true("the route to be turned back", SOON, || lab.leads_to(node)).unwrap();
    assert_eq!(lab.aws.calls("DeleteRoute"), 0, "there is a route at any time");
    wait_log(&members[0].0, "does another cluster with the same Network use this route table?");
    {
        let mut state = lab.aws.state();
        state.instances.get_mut(&node.host.address).unwrap().is_checked = true;
        state.apply().unwrap();
    }
    let is_checked = || lab.aws.state().instances[&node.host.address].is_checked;
    wait::until_true("the check to be off again", SOON, || !is_checked()).unwrap();
    check_reached(&pod_pairs(&nodes)).unwrap();
}

#[test]
fn a_route_of_no_host_is_not_replaced() {
    let lab = Lab::new();
    // One subnet is left to choose.
    let config = format!(
        r#"{{"Network":"10.5.0.0/16","SubnetMin":"10.5.7.0","SubnetMax":"10.5.7.0","Backend":{BACKEND}}}"#
    );
    lab.etcd.put(&format!("{PREFIX}/config"), &config).unwrap();
    let subnet = "10.5.7.0/24".parse().unwrap();
    lab.put(subnet, Target::Gateway("pcx-1".to_owned()));
    let (mut daemon, _host) = lab.begin(1, Place::Near);
    wait_log(
        &daemon,
        "has a route for 10.5.7.0/24 to pcx-1, which flanneld has not made and does not replace",
    );
    daemon.check_running().unwrap();
    let route = lab.aws.route(MAIN, subnet).unwrap().unwrap();
    assert_eq!(route.target, Target::Gateway("pcx-1".to_owned()));
    let mut state = lab.aws.state();
    state.tables.get_mut(MAIN).unwrap().routes.clear();
    state.apply().unwrap();
    drop(state);
    wait_ready(&daemon);
}

#[test]
fn routes_of_dead_hosts_go_and_no_others() {
    let lab = Lab::new();
    let (_daemon, _node) = lab.member(1, Place::Near);
    let (mut dying, dead) = lab.member(2, Place::Near);
    let (mut pausing, paused) = lab.member(3, Place::Near);
    let foreign = "10.6.1.0/24".parse().unwrap();
    let (gateway, smaller) = ("10.5.250.0/24".parse().unwrap(), "10.5.251.0/25".parse().unwrap());
    let gone = || Target::Interface("eni-0000000000000dead".to_owned());
    lab.put(foreign, gone());
    lab.put(gateway, Target::Gateway("pcx-1".to_owned()));
    lab.put(smaller, gone());
    dying.kill().unwrap();
    pausing.kill().unwrap();
    {
        let mut state = lab.aws.state();
        state.instances.get_mut(&dead.host.address).unwrap().life = Life::Terminated;
        state.instances.get_mut(&paused.host.address).unwrap().life = Life::Stopped;
        state.apply().unwrap();
    }
    for lease in leases::list(&lab.etcd, PREFIX).unwrap() {
        if lease.subnet == dead.file.subnet {
            lab.etcd.delete(&lease.key(PREFIX)).unwrap();
        }
    }
    wait::until_true("the route of the dead host to go", SOON, || lab.route(&dead).is_none()).unwrap();
    assert!(lab.route(&paused).is_some(), "its subnet is leased still");
    for kept in [foreign, gateway, smaller] {
        assert!(lab.aws.route(MAIN, kept).unwrap().is_some(), "{kept}");
    }
}

#[test]
fn two_clusters_share_a_table() {
    let lab = Lab::new();
    let prefix = "/other/network";
    lab.configure(prefix, "10.6.0.0/16", BACKEND);
    let (mut dying, dead) = lab.member(1, Place::Near);
    let (mut other, _host) = lab.begin_at(prefix, 2, Place::Near);
    other.wait_ready().unwrap();
    wait_ready(&other);
    dying.kill().unwrap();
    {
        let mut state = lab.aws.state();
        state.instances.get_mut(&dead.host.address).unwrap().life = Life::Terminated;
        state.apply().unwrap();
    }
    for lease in leases::list(&lab.etcd, PREFIX).unwrap() {
        lab.etcd.delete(&lease.key(PREFIX)).unwrap();
    }
    let looks = || lab.aws.calls("DescribeRouteTables");
    let since = looks();
    wait::until_true("several looks", SOON, || looks() >= since + 6).unwrap();
    assert!(lab.route(&dead).is_some(), "it is another cluster's to remove");
}

#[test]
fn every_table_with_the_tags_leads_to_the_host() {
    let lab = Lab::with(r#"{"Type":"aws-vpc","RouteTableFilter":["tag:KubernetesCluster=prod"]}"#);
    {
        let mut state = lab.aws.state();
        state.page = 2;
        for number in 1..=5 {
            let tags: BTreeMap<String, String> = [("KubernetesCluster".to_owned(), "prod".to_owned())].into();
            state.tables.entry(format!("rtb-{number:017x}")).or_default().tags = tags;
        }
    }
    let (_daemon, node) = lab.member(1, Place::Near);
    for number in 1..=5 {
        let table = format!("rtb-{number:017x}");
        assert!(lab.aws.route(&table, node.file.subnet).unwrap().is_some(), "{table}");
    }
    assert!(lab.route(&node).is_none(), "the main table has no such tag");
}
