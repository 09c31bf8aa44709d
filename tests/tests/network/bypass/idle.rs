//! Connection tracking keeps idle flows as long as if it had seen all of them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use flannel_tests::cluster::Cluster;
use flannel_tests::network::Host;
use flannel_tests::wait;
use rstest::rstest;

use super::flow::{Datagrams, Flow as _};
use super::netfilter::nft;
use super::{bypassed, start};
use crate::{HOST_GW, UDP, VXLAN};

/// So long the rig has connection tracking keep a connection whose data is not acknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(6);
/// The usual one for an established connection, which the rig leaves as it is: five days.
const ESTABLISHED: Duration = Duration::from_secs(432_000);

/// The policy of a host whose pods are only answered by those that they have asked, as kube-router writes it.
fn restrict(host: &Host, client: &str) {
    nft(host, "add table ip fence");
    nft(host, "add chain ip fence forward { type filter hook forward priority 0 ; }");
    nft(host, "add rule ip fence forward ct state invalid drop");
    nft(host, "add rule ip fence forward ct state established accept");
    nft(host, &format!("add rule ip fence forward ip protocol tcp ip saddr {client} accept"));
    nft(host, "add rule ip fence forward ip protocol tcp drop");
}

/// A TCP connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn start(cluster: &Cluster) -> Self {
        let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
        let listener = to.namespace.within(|| Ok(TcpListener::bind((to.address, 0))?)).unwrap();
        let address = listener.local_addr().unwrap();
        let client = from.namespace.within(|| Ok(TcpStream::connect(address)?)).unwrap();
        let (server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(wait::stretched(Duration::from_secs(2)))).unwrap();
        }
        Self { client, server }
    }

    /// The server says something.
    fn notify(&mut self) {
        self.server.write_all(b"notice").unwrap();
        let mut notice = [0; 6];
        let heard = self.client.read_exact(&mut notice);
        assert!(heard.is_ok() && &notice == b"notice", "the connection is dead: {heard:?}");
    }

    fn exchange(&mut self, times: usize) {
        let mut request = [0; 7];
        for _ in 0..times {
            self.client.write_all(b"request").unwrap();
            self.server.read_exact(&mut request).unwrap();
            self.notify();
            sleep(Duration::from_millis(1));
        }
    }
}

/// How long connection tracking of a host still keeps the flow of that socket.
fn remaining(host: &Host, socket: SocketAddr) -> Option<Duration> {
    let port = format!("sport={} ", socket.port());
    let table = host.namespace.proc_net("nf_conntrack").unwrap();
    let entry = table.lines().find(|line| line.contains(&port))?;
    entry.split_whitespace().nth(4)?.parse().ok().map(Duration::from_secs)
}

/// What happens to the daemons.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daemons {
    Stay,
    /// They end while the connection is busy, and start again before it is idle for long.
    Restart,
}

#[rstest]
#[case::vxlan(VXLAN, Daemons::Stay)]
#[case::udp(UDP, Daemons::Stay)]
#[case::host_gw(HOST_GW, Daemons::Stay)]
#[case::restarted(VXLAN, Daemons::Restart)]
fn an_idle_connection_lives_on(#[case] backend: &str, #[case] daemons: Daemons) {
    let mut cluster = start(backend, &["--ip-masq=true"]);
    let client = cluster.pod(0).unwrap().address.to_string();
    for member in &cluster.members {
        restrict(&member.node.host, &client);
        let timeout = UNACKNOWLEDGED.as_secs().to_string();
        member
            .node
            .host
            .namespace
            .sysctl("netfilter/nf_conntrack_tcp_timeout_unacknowledged", &timeout)
            .unwrap();
    }
    // The daemons have read it.
    sleep(Duration::from_secs(3));
    let mut connection = Connection::start(&cluster);
    connection.exchange(1000);
    if daemons == Daemons::Restart {
        for member in &mut cluster.members {
            member.daemon.terminate().unwrap();
            connection.exchange(100);
            member.daemon.restart().unwrap();
        }
    }
    let socket = connection.client.local_addr().unwrap();
    sleep(UNACKNOWLEDGED + Duration::from_secs(4));
    for member in &cluster.members {
        assert!(bypassed(&member.daemon).0 > 500);
        let kept = remaining(&member.node.host, socket);
        let is_kept = kept.is_some_and(|kept| kept <= ESTABLISHED && kept + UNACKNOWLEDGED * 3 > ESTABLISHED);
        assert!(is_kept, "on {}: {kept:?}", member.node.host.name);
    }
    connection.notify();

    drop(connection);
    let is_closing = || {
        let kept = cluster.members.iter().filter_map(|member| remaining(&member.node.host, socket));
        kept.max().is_none_or(|kept| kept <= Duration::from_secs(120))
    };
    wait::until_true("the closed connection to be tracked as one", Duration::from_secs(5), is_closing)
        .unwrap();
    sleep(Duration::from_secs(4));
    assert!(is_closing(), "a closed connection was prolonged");
}

/// Connection tracking sees a packet of each direction in 40 ms: a flow of datagrams is forgotten when it would be.
#[rstest]
#[case::vxlan(VXLAN)]
#[case::host_gw(HOST_GW)]
fn a_flow_of_datagrams_is_kept_as_long_as_its_timeout(#[case] backend: &str) {
    let cluster = start(backend, &["--ip-masq=true"]);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    for member in &cluster.members {
        let host = &member.node.host.namespace;
        host.sysctl("netfilter/nf_conntrack_udp_timeout", "3").unwrap();
        host.sysctl("netfilter/nf_conntrack_udp_timeout_stream", "40").unwrap();
    }
    let socket = to.namespace.within(|| Ok(std::net::UdpSocket::bind((to.address, 0))?)).unwrap();
    let answering = socket.try_clone().unwrap();
    let flow = Datagrams::to(from, socket).unwrap();
    // With an answer, and for more than two seconds, it is a stream.
    let source = flow.source().unwrap();
    for _ in 0..50 {
        answering.send_to(b"answer", source).unwrap();
        flow.wait_for(60).unwrap();
    }
    for member in &cluster.members {
        assert!(bypassed(&member.daemon).0 + bypassed(&member.daemon).1 > 1000);
        let kept = remaining(&member.node.host, source);
        let is_kept = kept.is_some_and(|kept| kept >= Duration::from_secs(38));
        assert!(is_kept, "on {}: {kept:?}", member.node.host.name);
    }
}
