use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use rstest::rstest;
use tokio::time::timeout;

use super::{PolicyMonitor, Tunnel, first_concerned, policies};
use crate::namespace::{ip, on_host};

const TUNNEL: Tunnel = Tunnel { local: Ipv4Addr::new(192, 168, 77, 11), port: 8472 };
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 77, 12));

/// Which policy concerns the tunnel, as iproute2 prints it, and what takes it away.
fn concerned() -> Option<(String, String)> {
    let (policy, peer) = first_concerned(&policies().unwrap(), TUNNEL, [PEER].into_iter())?;
    assert_eq!(peer, PEER);
    Some((policy.to_string(), policy.remedy()))
}

#[rstest]
#[case::the_port("src 192.168.77.11 dst 192.168.77.12 proto udp dport 8472 dir out", true)]
#[case::whole_networks("src 192.168.77.0/24 dst 192.168.77.0/24 dir in", true)]
#[case::everything("src 0.0.0.0/0 dst 0.0.0.0/0 dir out", true)]
#[case::source_port("src 192.168.77.12 dst 192.168.77.11 proto udp sport 50000 dir in", true)]
#[case::other_port("src 192.168.77.11 dst 192.168.77.12 proto udp dport 8473 dir out", false)]
#[case::other_protocol("src 192.168.77.11 dst 192.168.77.12 proto tcp dport 8472 dir out", false)]
#[case::other_way("src 192.168.77.12 dst 192.168.77.11 proto udp dport 8472 dir out", false)]
#[case::other_peer("src 192.168.77.11 dst 192.168.77.13 dir out", false)]
#[case::forwarded("src 0.0.0.0/0 dst 0.0.0.0/0 dir fwd", false)]
fn which_policies_concern_a_tunnel(
    #[case] policy: &str,
    #[case] is_concerned: bool,
    #[values("action block", "tmpl proto esp mode transport")] demand: &str,
) {
    on_host(async |_, _| {
        assert_eq!(concerned(), None);
        ip(&format!("xfrm policy add {policy} {demand}"));
        assert_eq!(concerned().is_some(), is_concerned);
        if let Some((_, remedy)) = concerned() {
            ip(remedy.strip_prefix("ip ").unwrap());
            assert_eq!(concerned(), None);
        }
    });
}

#[test]
fn a_policy_that_lets_everything_pass_concerns_nothing() {
    on_host(async |_, _| {
        ip("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir out action allow");
        assert_eq!(concerned(), None);
    });
}

#[test]
fn the_default_policy_concerns_everything() {
    on_host(async |_, _| {
        ip("xfrm policy setdefault out block");
        let (policy, remedy) = concerned().unwrap();
        assert_eq!(policy, "default dir out action block");
        ip(remedy.strip_prefix("ip ").unwrap());
        assert_eq!(concerned(), None);
    });
}

#[test]
fn changes_are_announced() {
    on_host(async |_, _| {
        let mut monitor = PolicyMonitor::open().unwrap();
        assert!(timeout(Duration::from_millis(100), monitor.changed()).await.is_err(), "nothing has changed");
        for change in ["add src 192.168.77.11 dst 192.168.77.12 dir out action block", "flush"] {
            ip(&format!("xfrm policy {change}"));
            timeout(Duration::from_secs(2), monitor.changed()).await.unwrap();
        }
    });
}
