//! IP options of pods' packets: the stack sees to them, and they arrive.

use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::thread::sleep;
use std::time::Duration;

use flannel_tests::network::Offloads;
use flannel_tests::traffic::Endpoint;
use flannel_tests::traffic::capture::Capture;
use flannel_tests::wait;
use nix::libc;
use rstest::rstest;

use crate::bypass::{bypassed, start_served};
use crate::{HOST_GW, UDP, VXLAN};

/// Record route (RFC 791) with room for three hops, and the end of the list.
const RECORD_ROUTE: [u8; 16] = [7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Padding alone.
const PADDING: [u8; 4] = [1; 4];
const DATAGRAMS: usize = 150;

fn set_options(socket: &UdpSocket, options: &[u8]) {
    let length = libc::socklen_t::try_from(options.len()).unwrap();
    // SAFETY: the kernel reads this number of bytes.
    let code = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            options.as_ptr().cast(),
            length,
        )
    };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// Sends datagrams with `options` and returns those of the last one that arrived.
fn arrived(from: &Endpoint, to: &Endpoint, options: &[u8]) -> Vec<u8> {
    let socket = |end: &Endpoint| end.namespace.within(|| Ok(UdpSocket::bind((end.address, 0))?)).unwrap();
    let (near, far) = (socket(from), socket(to));
    set_options(&near, options);
    far.set_read_timeout(Some(wait::stretched(Duration::from_secs(2)))).unwrap();
    let capture = Capture::start(&to.namespace, "eth0").unwrap();
    for number in 0..DATAGRAMS {
        near.send_to(&number.to_be_bytes(), far.local_addr().unwrap()).unwrap();
        let mut content = [0; 9];
        assert_eq!(far.recv(&mut content).unwrap(), 8);
        assert_eq!(content[..8], number.to_be_bytes());
        sleep(Duration::from_millis(1));
    }
    let mut count = 0;
    capture
        .find("datagram with options", Duration::from_secs(2), |frame| {
            let is_ours = frame.get(23) == Some(&17) && frame.get(26..30) == Some(&from.address.octets());
            count += usize::from(is_ours);
            let header = usize::from(frame.get(14)? & 0xf) * 4;
            (is_ours && count == DATAGRAMS).then(|| frame[34..14 + header].to_vec())
        })
        .unwrap()
}

#[rstest]
#[case::udp(UDP, "auto")]
#[case::udp_xdp(UDP, "xdp")]
#[case::vxlan(VXLAN, "auto")]
#[case::vxlan_xdp(VXLAN, "xdp")]
#[case::host_gw(HOST_GW, "auto")]
fn options_arrive_by_the_no_bypass(#[case] backend: &str, #[case] hook: &str) {
    let cluster = start_served(backend, hook, "auto", Offloads::All);
    let (from, to) = (cluster.pod(0).unwrap(), cluster.pod(1).unwrap());
    assert_eq!(arrived(from, to, &PADDING), PADDING);
    let recorded = arrived(from, to, &RECORD_ROUTE);
    assert_eq!(recorded[..2], RECORD_ROUTE[..2]);
    // The pointer stands behind the last address: those of the pod and of two hosts.
    assert_eq!(recorded[2], 16, "{recorded:?}");
    assert_eq!(recorded[3..7], from.address.octets(), "{recorded:?}");
    for member in &cluster.members {
        assert_eq!(bypassed(&member.daemon), (0, 0));
    }
}
