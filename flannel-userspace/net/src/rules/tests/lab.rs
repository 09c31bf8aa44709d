//! A host, and around it a pod of its own, a pod of another host, and the world outside.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

use crate::Netlink;
use crate::namespace::{in_namespace, ip, run};

/// A network namespace that lives as long as this.
#[derive(Clone)]
pub(super) struct Space(Arc<File>);

/// The calling thread is on the host; its devices `pod`, `peer` and `out` lead to the others.
pub(super) struct Lab {
    /// 10.5.1.7, of this host's subnet; the host is 10.5.1.1.
    pub(super) pod: Space,
    /// 10.5.2.7, behind a tunnel on which the host is 10.5.1.0.
    pub(super) peer: Space,
    /// 192.0.2.9; the host is 192.0.2.1.
    pub(super) outside: Space,
}

impl Space {
    fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace, which needs root");
            ip("link set lo up");
            Self(Arc::new(File::open("/proc/thread-self/ns/net").unwrap()))
        };
        std::thread::scope(|scope| scope.spawn(make).join()).unwrap()
    }

    /// Runs `action` in this namespace; sockets made there stay there.
    pub(super) fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap()
    }

    /// A socket at `address` that waits two seconds for a packet at most.
    pub(super) fn listen(&self, address: &str) -> UdpSocket {
        let socket = self.run(|| UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    }

    /// Sends a packet from `address` to `to`, and returns from where `listener` got it.
    pub(super) fn source_seen(&self, address: &str, to: &UdpSocket) -> String {
        let target = to.local_addr().unwrap();
        self.run(|| UdpSocket::bind((address, 0)).unwrap().send_to(b"from where?", target)).unwrap();
        receive(to, &mut [0; 64]).expect("the packet did not arrive")
    }

    /// A veth pair from here, as eth0, to the calling thread's namespace, as `name`.
    fn connect(&self, name: &str, host: &str, here: &str, routes: &[&str]) {
        let fd = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        ip(&format!("link add {name} type veth peer name eth0 netns {fd}"));
        ip(&format!("address add {host} dev {name}"));
        ip(&format!("link set {name} up"));
        self.run(|| {
            ip(&format!("address add {here} dev eth0"));
            ip("link set eth0 up");
            for route in routes {
                ip(&format!("route add {route} dev eth0 onlink"));
            }
        });
    }
}

/// From which address the next packet comes; `None` if none comes in time.
pub(super) fn receive(socket: &UdpSocket, packet: &mut [u8]) -> Option<String> {
    loop {
        match socket.recv_from(packet) {
            Ok((_, source)) => return Some(source.ip().to_string()),
            // By the signal that a program has ended.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                return None;
            }
        }
    }
}

/// Runs `test` on the host.
pub(super) fn in_lab(test: impl AsyncFnOnce(Netlink, Lab) + Send) {
    in_namespace(async |netlink| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let lab = Lab { pod: Space::new(), peer: Space::new(), outside: Space::new() };
        lab.pod.connect("pod", "10.5.1.1/24", "10.5.1.7/24", &["default via 10.5.1.1"]);
        lab.peer.connect("peer", "10.5.1.0/32", "10.5.2.7/24", &["default via 10.5.1.0"]);
        ip("route add 10.5.2.0/24 dev peer");
        lab.outside.connect("out", "192.0.2.1/24", "192.0.2.9/24", &["10.5.0.0/16 via 192.0.2.1"]);
        assert_eq!(run("nft", "list ruleset"), "");
        // The first packets find the neighbours, which may take longer than what comes behind them can wait.
        let [at_outside, at_peer] =
            [(&lab.outside, "192.0.2.9:1"), (&lab.peer, "10.5.2.7:1")].map(|(space, at)| space.listen(at));
        assert_eq!(lab.pod.source_seen("10.5.1.7", &at_outside), "10.5.1.7");
        assert_eq!(lab.outside.source_seen("192.0.2.9", &at_peer), "192.0.2.9");
        test(netlink, lab).await;
    });
}
