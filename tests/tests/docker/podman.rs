//! A bridge network of podman whose subnet is the lease.

use std::thread::sleep;
use std::time::Duration;

use flannel_tests::containers::{Podman, Site};
use flannel_tests::traffic::{Losses, Stream};
use flannel_tests::wait;

use crate::{VXLAN, check_both_ways, containers};

#[test]
fn containers_of_podman_reach_each_other() {
    let site = Site::start(VXLAN, &["--ip-masq=true".to_owned()]).unwrap();
    let podmen = site.hosts.each_ref().map(|host| Podman::start(&host.host, &host.file).unwrap());
    let containers = containers(&podmen);
    check_both_ways(&podmen, &containers);
    let [one, other] = containers.each_ref().map(|container| &container.endpoint);
    wait::until_true("what podman's containers send to arrive", Duration::from_secs(10), || {
        let stream = Stream::start(one, other, 2000).unwrap();
        sleep(Duration::from_millis(500));
        let losses = stream.stop().unwrap();
        assert_eq!(Losses::unexcused_of(&[losses]), 0, "{losses:?}");
        // What is translated on its way keeps to it.
        !podmen[0].is_plain || site.hosts[0].daemon.count("pod_out", "bypassed").unwrap() > losses.sent / 2
    })
    .unwrap();
}
