//! Tunnel packets with right and wrong checksums, made by hand and put on the wire as they are.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, UdpHeader};

use super::Side;
use super::far::Far;
use super::machine::address_of;
use super::noted::VOUCHED_FOR;
use super::order::{Obey as _, Order};
use super::pair::Pair;
use crate::traffic::ChecksumErrors;
use crate::traffic::inject::{Format, FrameInjector};
use crate::wait;

/// How many are sent of each kind.
const COUNT: usize = 20;
const TTL: u8 = 64;
/// How long the right ones may take.
const ARRIVAL: Duration = Duration::from_secs(2);

/// The checksum of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// 0, which says that there is none.
    None,
    Right,
    Wrong,
}

use Checksum::{None as Absent, Right, Wrong};

/// The checksums of the outer and the inner datagram. A kind's number is the payload of its packets.
const KINDS: [(Checksum, Checksum); 6] =
    [(Absent, Wrong), (Right, Wrong), (Wrong, Wrong), (Wrong, Right), (Right, Right), (Absent, Right)];

/// What arrived at the pod.
#[derive(Debug)]
pub(super) struct Arrived {
    /// Of those whose checksums are right or, outside, absent.
    pub(super) right: usize,
    /// Of those with nothing but a wrong outer checksum, of which no more is promised than of those without one.
    pub(super) wrong_outside: usize,
    /// Datagrams that the pod's stack refused for their checksum.
    pub(super) refused: u64,
    /// Packets that the driver handed over with the word that their outermost checksum is right.
    pub(super) vouched_for: usize,
}

/// Sends packets of each kind from the near host to the far pod.
///
/// # Errors
/// One with a wrong inner checksum was delivered, or one with right ones was not.
pub(super) fn send(pair: &mut Pair, backend: &str) -> Result<Arrived> {
    let port: u16 = pair.ask(Side::Far, &Order::Hear)?;
    let before: ChecksumErrors = pair.ask(Side::Far, &Order::ChecksumErrors)?;
    let path = Path::of(pair, backend, port)?;
    let wire = FrameInjector::new(&pair.near().host().namespace, "eth0")?;
    let (heard, vouched_for) = VOUCHED_FOR.during(pair.far_mut(), |far| {
        for (number, kind) in (0..).zip(KINDS) {
            wire.send(&path.frame(number, kind)?, COUNT)?;
        }
        hear(far)
    })?;
    let wrong = [Absent, Right, Wrong].map(|outer| count(&heard, (outer, Wrong)));
    ensure!(
        wrong == [0; 3],
        "of {COUNT} each with a wrong inner checksum and none, a right and a wrong outer one, {wrong:?} were delivered"
    );
    let after: ChecksumErrors = pair.ask(Side::Far, &Order::ChecksumErrors)?;
    Ok(Arrived {
        right: right(&heard),
        wrong_outside: count(&heard, (Wrong, Right)),
        refused: after.since(&before, "Udp.InCsumErrors"),
        vouched_for,
    })
}

/// What arrives, once every right one has.
fn hear(far: &mut Far) -> Result<Vec<u8>> {
    let mut heard = Vec::new();
    wait::until("every right packet", ARRIVAL, || {
        heard.extend(far.ask::<Vec<u8>>(&Order::Heard)?);
        let right = right(&heard);
        ensure!(right >= 2 * COUNT, "{right} of {} right packets were delivered", 2 * COUNT);
        Ok(())
    })?;
    heard.extend(far.ask::<Vec<u8>>(&Order::Heard)?);
    Ok(heard)
}

/// How many have come of which nothing is wrong.
fn right(heard: &[u8]) -> usize {
    count(heard, (Absent, Right)) + count(heard, (Right, Right))
}

/// How many have come of a kind.
fn count(heard: &[u8], kind: (Checksum, Checksum)) -> usize {
    heard.iter().filter(|number| KINDS.get(usize::from(**number)) == Some(&kind)).count()
}

/// Addresses of the packets.
struct Path {
    format: Format,
    macs: [[u8; 6]; 2],
    pods: [SocketAddrV4; 2],
}

impl Path {
    fn of(pair: &mut Pair, backend: &str, port: u16) -> Result<Self> {
        let near = mac(&pair.near_mut().shell("cat /sys/class/net/eth0/address")?)?;
        let far = mac(&pair.far_mut().shell("cat /sys/class/net/eth0/address")?)?;
        let format = match backend {
            "vxlan" => Format::Vxlan(mac(&pair.far_mut().shell("cat /sys/class/net/flannel.1/address")?)?),
            _ => Format::Udp,
        };
        let pods = [Side::Near, Side::Far].map(|side| SocketAddrV4::new(pair.pod(side), port));
        Ok(Self { format, macs: [near, far], pods })
    }

    fn frame(&self, number: u8, (outer, inner): (Checksum, Checksum)) -> Result<Vec<u8>> {
        let [near, far] = self.pods;
        let inner = datagram((*near.ip(), *far.ip()), (near.port(), far.port()), &[number], inner)?;
        let payload = [&self.format.header()[..], &inner].concat();
        let port = self.format.port();
        let hosts = (address_of(Side::Near), address_of(Side::Far));
        let outer = datagram(hosts, (port, port), &payload, outer)?;
        let [source, destination] = self.macs;
        let ethernet = Ethernet2Header { source, destination, ether_type: EtherType::IPV4 };
        Ok([&ethernet.to_bytes()[..], &outer].concat())
    }
}

/// An IPv4 packet with a UDP datagram.
fn datagram(
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (from, to): (u16, u16),
    payload: &[u8],
    checksum: Checksum,
) -> Result<Vec<u8>> {
    let length = u16::try_from(UdpHeader::LEN + payload.len())?;
    let mut ip = Ipv4Header::new(length, TTL, IpNumber::UDP, source.octets(), destination.octets())?;
    ip.header_checksum = ip.calc_header_checksum();
    let mut udp = UdpHeader::with_ipv4_checksum(from, to, &ip, payload)?;
    udp.checksum = match checksum {
        Absent => 0,
        Right => udp.checksum,
        // 0 would say that there is none.
        Wrong => {
            if udp.checksum == 1 {
                2
            } else {
                udp.checksum ^ 1
            }
        }
    };
    Ok([&ip.to_bytes()[..], &udp.to_bytes(), payload].concat())
}

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().with_context(|| format!("no address: {text}"))?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("no Ethernet address: {text}"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use etherparse::{Ipv4HeaderSlice, UdpHeaderSlice};

    use super::{Absent, Right, Wrong, datagram, mac};

    #[test]
    fn checksums_are_what_they_are_to_be() {
        let ends = (Ipv4Addr::new(10, 5, 1, 2), Ipv4Addr::new(10, 5, 2, 2));
        for (checksum, is_there, is_right) in
            [(Absent, false, false), (Right, true, true), (Wrong, true, false)]
        {
            let packet = datagram(ends, (1, 2), b"x", checksum).unwrap();
            let ip = Ipv4HeaderSlice::from_slice(&packet).unwrap().to_header();
            let udp = UdpHeaderSlice::from_slice(&packet[20..]).unwrap().to_header();
            assert_eq!(udp.checksum != 0, is_there);
            assert_eq!(udp.calc_checksum_ipv4(&ip, b"x").unwrap() == udp.checksum, is_right);
        }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(mac("52:54:00:00:00:1f\n").unwrap(), [0x52, 0x54, 0, 0, 0, 0x1f]);
        assert!(mac("52:54").is_err() && mac("").is_err());
    }
}
