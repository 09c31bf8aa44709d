//! A bridge network of podman whose subnet is the lease.

use flannel_tests::containers::{Podman, Site};
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::wait;
use std::time::Duration;

use crate::{VXLAN, check_both_ways, containers};

#[test]
fn containers_of_podman_reach_each_other() {
    let site = Site::start(VXLAN, &[Podman::flag()]).unwrap();
    let podmen = site.hosts.each_ref().map(|host| Podman::start(&host.host, &host.file).unwrap());
    let containers = containers(&podmen);
    check_both_ways(&podmen, &containers);
    let [one, other] = containers.each_ref().map(|container| &container.endpoint);
    wait::until_true("the bypass of podman's bridge", Duration::from_secs(10), || {
        let stream = Stream::start(one, other, 2000).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let losses = stream.stop().unwrap();
        assert_eq!(Losses::unexcused_of(&[losses]), 0, "{losses:?}");
        site.hosts[0].daemon.count("pod_out", "bypassed").unwrap() > losses.sent / 2
    })
    .unwrap();
}
