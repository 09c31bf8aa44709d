//! Many requests with one system call, and long listings read message by message: a peer is three entries of the
//! kernel's tables, and there can be tens of thousands of peers.

use std::io;

use nix::libc::MSG_DONTWAIT;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::constants::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// Longest datagram that is received, in bytes; the kernel's own limit is half of it.
const DATAGRAM: usize = 64 << 10;

/// So often a listing is made that is interrupted again and again.
pub(super) const MOST_LISTINGS: usize = 50;

/// A socket of its own. The kernel has done what it is asked for, and has answered, when the system call returns:
/// nothing here waits for anything.
pub(super) struct Bulk {
    socket: Socket,
    sequence: u32,
    requests: Vec<u8>,
    answer: Vec<u8>,
}

impl Bulk {
    /// The most requests to send together: the refusals of all of them fit into the socket's buffer.
    pub(super) const MAX: usize = 100;

    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // A refusal does not repeat the request.
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self { socket, sequence: 1, requests: Vec::new(), answer: Vec::with_capacity(DATAGRAM) })
    }

    /// Puts `requests`, each with its `NLM_F_*` flags, to the kernel, at most [`Bulk::MAX`] of them; returns which were
    /// refused, by their places, and why.
    pub(super) fn send<T: NetlinkSerializable>(
        &mut self,
        requests: impl Iterator<Item = (T, u16)>,
    ) -> io::Result<Vec<(usize, io::Error)>> {
        self.ask(requests, |_, _| ())
    }

    /// The same with requests that have answers. Each is handed to `take` with the place of its request.
    pub(super) fn ask<T: NetlinkSerializable>(
        &mut self,
        requests: impl Iterator<Item = (T, u16)>,
        mut take: impl FnMut(usize, RouteNetlinkMessage),
    ) -> io::Result<Vec<(usize, io::Error)>> {
        let first = self.sequence;
        self.requests.clear();
        let mut requests = requests.peekable();
        while let Some((request, flags)) = requests.next() {
            // A refusal is always answered. The answer to the last request says that there are no more.
            let flags = if requests.peek().is_none() { flags | NLM_F_ACK } else { flags };
            self.append(request, flags);
        }
        if self.requests.is_empty() {
            return Ok(Vec::new());
        }
        let last = self.sequence.wrapping_sub(1);
        self.socket.send_to(&self.requests, &SocketAddr::new(0, 0), 0)?;
        let mut refused = Vec::new();
        loop {
            for NetlinkMessage { header, payload, .. } in self.receive()? {
                let sequence = header.sequence_number;
                let place = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                match payload {
                    NetlinkPayload::InnerMessage(answer) => take(place, answer),
                    NetlinkPayload::Error(answer) => {
                        if answer.code.is_some() {
                            refused.push((place, answer.to_io()));
                        }
                        if sequence == last {
                            return Ok(refused);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Hands every message of a listing to `take`.
    ///
    /// # Errors
    /// The kernel refused; [`io::ErrorKind::Interrupted`] where something changed meanwhile, so that messages may be
    /// missing (`nl_dump_check_consistent`).
    pub(super) fn list(
        &mut self,
        request: RouteNetlinkMessage,
        mut take: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.requests.clear();
        self.append(request, NLM_F_DUMP);
        self.socket.send_to(&self.requests, &SocketAddr::new(0, 0), 0)?;
        let mut is_interrupted = false;
        loop {
            for NetlinkMessage { header, payload, .. } in self.receive()? {
                is_interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match payload {
                    NetlinkPayload::InnerMessage(message) => take(message),
                    NetlinkPayload::Error(refusal) => return Err(refusal.to_io()),
                    NetlinkPayload::Done(_) if is_interrupted => {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    _ => {}
                }
            }
        }
    }

    fn append<T: NetlinkSerializable>(&mut self, request: T, flags: u16) {
        let mut message =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(request));
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        message.finalize();
        let start = self.requests.len();
        self.requests.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut self.requests[start..start + message.buffer_len()]);
    }

    /// The messages of the next datagram.
    fn receive(&mut self) -> io::Result<impl Iterator<Item = NetlinkMessage<RouteNetlinkMessage>> + use<'_>> {
        self.answer.clear();
        self.socket.recv(&mut self.answer, MSG_DONTWAIT)?;
        Ok(messages(&self.answer))
    }
}

/// What `pick` makes of each message of a listing, in the calling thread's network namespace. One that is interrupted by
/// changes is made again.
///
/// # Errors
/// The kernel refused, or every listing was interrupted: one with something missing is worse than none.
pub(super) fn listed<T>(
    request: &RouteNetlinkMessage,
    pick: impl Fn(RouteNetlinkMessage) -> Option<T>,
) -> io::Result<Vec<T>> {
    let mut bulk = Bulk::open()?;
    let mut attempts = 0;
    loop {
        let mut all = Vec::new();
        attempts += 1;
        match bulk.list(request.clone(), |message| all.extend(pick(message))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < MOST_LISTINGS => {}
            listed => return listed.map(|()| all),
        }
    }
}

/// The messages in a datagram; one that cannot be read is left out.
pub(super) fn messages<T: NetlinkDeserializable>(
    datagram: &[u8],
) -> impl Iterator<Item = NetlinkMessage<T>> + use<'_, T> {
    frames(datagram).flat_map(NetlinkMessage::deserialize)
}

/// The bytes of each message in a datagram.
pub(super) fn frames(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let (length, _) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        // A length below that of a header would loop without end.
        let message = rest.get(..length).filter(|_| length >= 16)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use flannel_common::Mac;
    use nix::errno::Errno;
    use rtnetlink::packet_core::NLM_F_CREATE;
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::neighbour::NeighbourMessage;

    use super::{Bulk, messages};
    use crate::namespace::{ip, on_host};
    use crate::objects::neighbour_message;

    #[test]
    fn refusals_bear_the_place_of_their_request() {
        on_host(async |_, underlay| {
            let put = |last: usize, device| {
                let ip = Ipv4Addr::new(192, 168, 77, u8::try_from(last).unwrap()).into();
                (RouteNetlinkMessage::NewNeighbour(neighbour_message(device, ip, Mac([2; 6]))), NLM_F_CREATE)
            };
            let mut bulk = Bulk::open().unwrap();
            // Two rounds: the second must not read answers of the first.
            for _ in 0..2 {
                let device = |place| if place % 2 == 0 { underlay.index } else { 4_000_000 };
                let refused = bulk.send((0..Bulk::MAX).map(|place| put(place, device(place)))).unwrap();
                let places: Vec<usize> = refused.iter().map(|(place, _)| *place).collect();
                assert_eq!(places, (1..Bulk::MAX).step_by(2).collect::<Vec<_>>());
                assert!(refused.iter().all(|(_, error)| error.raw_os_error() == Some(Errno::ENODEV as i32)));
            }
            let mut listed = 0;
            bulk.list(RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()), |_| listed += 1)
                .unwrap();
            assert!(listed >= Bulk::MAX / 2, "{listed}");
            assert_eq!(ip("neighbour show nud permanent").lines().count(), Bulk::MAX / 2);
        });
    }

    #[test]
    fn a_datagram_of_nonsense_comes_to_an_end() {
        for length in [0_u32, 1, 15, 16, 17, 4000, u32::MAX] {
            let mut datagram = length.to_ne_bytes().to_vec();
            datagram.extend([0; 36]);
            assert!(messages::<RouteNetlinkMessage>(&datagram).count() < 4, "{length}");
        }
    }
}
