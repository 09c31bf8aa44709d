//! What a cloud does to its users: the daemon stays, tells, and goes on forwarding.

use std::thread;
use std::time::Duration;

use flannel_tests::cloud::aws::{Fault, Metadata};
use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::etcd::PREFIX;
use flannel_tests::network::Place;
use flannel_tests::wait;
use rstest::rstest;

use super::{BACKEND, Lab};
use crate::{SOON, wait_log, wait_ready};

#[rstest]
#[case::throttled(Fault::Throttled, "RequestLimitExceeded")]
#[case::denied(Fault::Denied, "they must be good, and allow ec2:DescribeRouteTables on *")]
#[case::garbage(Fault::Garbage, "the answer cannot be read")]
#[case::unavailable(Fault::Unavailable, "Unavailable: The service is unavailable")]
#[case::silent(Fault::Silent, "does not answer within 15 s")]
fn a_start_waits_until_the_cloud_works(#[case] fault: Fault, #[case] told: &str) {
    let lab = Lab::new();
    lab.aws.state().faults.insert("DescribeRouteTables".to_owned(), fault);
    let (mut daemon, _host) = lab.begin(1, Place::Near);
    wait_log(&daemon, told);
    daemon.check_running().unwrap();
    let log = std::fs::read_to_string(daemon.log()).unwrap();
    assert!(!log.contains("AbCd"), "the encoded message is for machines");
    let status = daemon.ctl("status").unwrap_err();
    assert!(format!("{status:#}").contains("failed"), "the host is not ready: {status:#}");
    lab.aws.state().faults.clear();
    daemon.wait_ready().unwrap();
    wait_ready(&daemon);
}

#[test]
fn what_is_in_place_forwards_while_the_cloud_does_not_work() {
    let lab = Lab::new();
    let members = [lab.member(1, Place::Near), lab.member(2, Place::Near)];
    let nodes: Vec<_> = members.iter().map(|(_, node)| node).collect();
    for fault in [Fault::Throttled, Fault::Denied, Fault::Garbage, Fault::Unavailable] {
        lab.aws.state().faults.insert("*".to_owned(), fault);
        let told = || members[0].0.ctl("status").unwrap_or_default().contains("without sight of the cloud: ");
        wait::until_true(&format!("{fault:?} to be told"), SOON, told).unwrap();
        check_reached(&pod_pairs(&nodes)).unwrap();
        lab.aws.state().faults.clear();
        wait::until_true("sight of the cloud", SOON, || {
            members[0].0.ctl("status").is_ok_and(|text| !text.contains("without sight"))
        })
        .unwrap();
    }
}

#[test]
fn the_permission_that_is_missing_is_named() {
    let lab = Lab::new();
    lab.aws.state().faults.insert("ModifyNetworkInterfaceAttribute".to_owned(), Fault::Denied);
    let (daemon, _host) = lab.begin(1, Place::Near);
    wait_log(&daemon, "allow ec2:ModifyNetworkInterfaceAttribute on arn:aws:ec2:*:*:network-interface/eni-");
    lab.aws.state().faults.clear();
    wait_ready(&daemon);
}

#[rstest]
#[case::silent(Metadata::Silent, "--http-put-response-hop-limit 2")]
#[case::off(Metadata::Off, "--http-endpoint enabled")]
fn metadata_that_cannot_be_read_are_explained(#[case] metadata: Metadata, #[case] told: &str) {
    let lab = Lab::new();
    lab.aws.state().metadata = metadata;
    let (mut daemon, _host) = lab.begin(1, Place::Near);
    wait_log(&daemon, told);
    daemon.check_running().unwrap();
    lab.aws.state().metadata = Metadata::On(u32::MAX);
    wait_ready(&daemon);
}

#[test]
fn tokens_that_are_refused_are_asked_for_again() {
    let lab = Lab::new();
    lab.aws.state().metadata = Metadata::On(1);
    let (daemon, node) = lab.member(1, Place::Near);
    thread::sleep(Duration::from_secs(3));
    lab.aws.state().metadata = Metadata::Forgetful;
    wait::until_true("a token to be refused", SOON, || lab.aws.state().metadata != Metadata::Forgetful)
        .unwrap();
    let looks = lab.aws.calls("DescribeRouteTables");
    wait::until_true("more looks", SOON, || lab.aws.calls("DescribeRouteTables") > looks + 1).unwrap();
    assert!(lab.leads_to(&node));
    wait_ready(&daemon);
}

#[test]
fn an_instance_without_a_role_is_told_what_it_lacks() {
    let lab = Lab::new();
    let (mut daemon, host) = lab.begin(1, Place::Near);
    lab.aws.state().instances.get_mut(&host.address).unwrap().has_role = false;
    daemon.terminate().unwrap();
    daemon.restart().unwrap();
    wait_log(&daemon, "the instance has no role");
    lab.aws.state().instances.get_mut(&host.address).unwrap().has_role = true;
    wait_ready(&daemon);
}

#[test]
fn a_full_table_is_told_before_and_when_it_is() {
    let lab = Lab::with(r#"{"Type":"aws-vpc","RouteLimit":3}"#);
    lab.aws.state().limit = 3;
    let (first, _node) = lab.member(1, Place::Near);
    let (_second, _other) = lab.member(2, Place::Near);
    wait::until_true("a warning", SOON, || {
        first.ctl("status").is_ok_and(|text| text.contains("without room in route tables: 3 of 3 routes"))
    })
    .unwrap();
    let (mut third, _host) = lab.begin(3, Place::Near);
    wait_log(&third, "RouteLimitExceeded");
    third.check_running().unwrap();
    lab.aws.state().limit = 500;
    wait_ready(&third);
}

#[test]
fn a_network_of_the_vpc_is_refused() {
    let lab = Lab::new();
    lab.configure(PREFIX, "192.168.80.0/21", BACKEND);
    let (mut daemon, _host) = lab.begin(1, Place::Near);
    wait_log(&daemon, "Network 192.168.80.0/21 overlaps 192.168.64.0/19, which is a range of vpc-");
    daemon.check_running().unwrap();
    assert_eq!(lab.aws.calls("CreateRoute"), 0);
}

#[test]
fn what_is_shown_late_is_waited_for() {
    let lab = Lab::new();
    lab.aws.state().delay = Duration::from_secs(4);
    let (daemon, node) = lab.member(1, Place::Near);
    wait_log(&daemon, "RouteAlreadyExists");
    assert_eq!(lab.aws.calls("DeleteRoute") + lab.aws.calls("ReplaceRoute"), 0);
    wait::until_true("sight of the cloud", SOON, || {
        daemon.ctl("status").is_ok_and(|text| !text.contains("without sight"))
    })
    .unwrap();
    assert!(lab.leads_to(&node));
}
