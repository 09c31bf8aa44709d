//! The API server away: for a while, at the start, after a boot.

use flannel_tests::cluster::check_reached;
use flannel_tests::network::{Node, SubnetFile};

use crate::{Lab, wait_log, wait_route};

#[test]
fn forwarding_goes_on_and_a_boot_succeeds_without_the_api_server() {
    let mut lab = Lab::new();
    let ((mut first, first_host), (second, second_host)) = (lab.member(1), lab.member(2));
    wait_route(&first_host, "10.244.2.0/24", true);
    let node = |host, file: &std::path::Path| Node::new(host, SubnetFile::read(file).unwrap(), 1).unwrap();
    let nodes = [node(first_host, &first.subnet_file()), node(second_host, &second.subnet_file())];
    let pairs = flannel_tests::cluster::all_pairs(&[&nodes[0], &nodes[1]]);
    check_reached(&pairs).unwrap();
    let file = first.subnet_file();
    let before = std::fs::read_to_string(&file).unwrap();
    flannel_tests::wait::until_true("the state to be written", crate::SOON, || {
        std::fs::read_to_string(first.state_file()).unwrap_or_default().contains("10.244.2.0/24")
    })
    .unwrap();

    lab.api.kill().unwrap();
    wait_log(&first, "the registry is away");
    check_reached(&pairs).unwrap();

    // As after a boot: /run is empty, and the API server is not there.
    first.terminate().unwrap();
    std::fs::remove_file(&file).unwrap();
    first.restart().unwrap();
    first.wait_ready().unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    wait_log(&first, "the API server is away: continuing with the lease held last");
    check_reached(&pairs).unwrap();

    lab.api.restart().unwrap();
    lab.add_peer(50);
    wait_route(&nodes[0].host, "10.244.50.0/24", true);
    wait_route(&nodes[1].host, "10.244.50.0/24", true);
    check_reached(&pairs).unwrap();
}

/// The files are read again without a restart; until they fit, it is as if the API server were away.
#[test]
fn another_certificate_and_token_are_taken_up() {
    let mut lab = Lab::new();
    let (mut daemon, host) = lab.member(1);
    lab.add_peer(50);
    wait_route(&host, "10.244.50.0/24", true);
    lab.api.kill().unwrap();
    lab.api.rotate("anothertoken").unwrap();
    lab.api.restart().unwrap();
    lab.add_peer(51);
    wait_log(&daemon, "(401): Unauthorized; is the token expired");
    assert!(host.namespace.ip("route").unwrap().contains("10.244.50.0/24"));
    std::fs::write(lab.api.token_file("flannel"), "anothertoken").unwrap();
    wait_route(&host, "10.244.51.0/24", true);
    daemon.check_running().unwrap();
}
