//! A driver's own reason for refusing a native XDP program. The system call that makes a link has no place for them;
//! the older request by netlink answers with them (`extack`).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use rtnetlink::sys::{Socket, SocketAddr};

/// `NETLINK_ROUTE`
const ROUTE: isize = 0;
/// `XDP_FLAGS_UPDATE_IF_NOEXIST` and `XDP_FLAGS_DRV_MODE` of `linux/if_link.h`.
const ONLY_NATIVE: u32 = 1 | 1 << 2;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// Bytes of the header, of the error number and of the header of the refused message.
const HEADERS: usize = 16 + 4 + 16;
/// `NLMSGERR_ATTR_MSG`
const MESSAGE: u16 = 1;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;

/// Repeats the refused request, and returns the kernel's text. `None` if it answers only with a number, or where it
/// accepts the program now: then it is detached again, because nobody holds it.
///
/// # Errors
/// The socket cannot be used.
pub fn xdp_refusal(interface: u32, program: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let socket = open()?;
    let answer = ask(&socket, interface, program.as_raw_fd())?;
    if is_acceptance(&answer) {
        ask(&socket, interface, -1)?;
    }
    Ok(message(&answer))
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.set_ext_ack(true)?;
    // The refused message is not repeated.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Sets the program of an interface, or removes it by -1.
fn ask(socket: &Socket, interface: u32, program: i32) -> io::Result<Vec<u8>> {
    let mut wanted = LinkMessage::default();
    wanted.header.index = interface;
    wanted.attributes.push(LinkAttribute::Xdp(vec![LinkXdp::Fd(program), LinkXdp::Flags(ONLY_NATIVE)]));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetLink(wanted));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(answer)
}

/// Whether it is an answer with the error number 0.
fn is_acceptance(answer: &[u8]) -> bool {
    number(answer, 4) == Some(ERROR) && answer.get(16..20) == Some(&[0; 4])
}

/// The text in an answer.
fn message(answer: &[u8]) -> Option<String> {
    if number(answer, 4)? != ERROR {
        return None;
    }
    let mut rest = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(number(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if number(rest, 2)? == MESSAGE {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{ERROR, MESSAGE, ask, is_acceptance, message, open};
    use crate::namespace::{add_interface, in_namespace};

    /// An answer with that error number, and attributes.
    fn answer(errno: i32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&ERROR.to_ne_bytes());
        bytes.resize(16, 0);
        bytes.extend_from_slice(&errno.to_ne_bytes());
        bytes.resize(36, 0);
        bytes.extend_from_slice(attributes);
        bytes
    }

    #[test]
    fn texts_are_found_or_not() {
        let mut attributes = vec![8, 0, 2, 0, 1, 2, 3, 4, 9, 0];
        attributes.extend_from_slice(&MESSAGE.to_ne_bytes());
        attributes.extend_from_slice(b"Busy\0\0\0\0");
        assert_eq!(message(&answer(-22, &attributes)).unwrap(), "Busy");
        assert_eq!(message(&answer(-22, &attributes[..8])), None);
        assert_eq!(message(&answer(-22, &[1, 0, 1, 0])), None);
        assert_eq!(message(&[]), None);
        assert!(is_acceptance(&answer(0, &[])) && !is_acceptance(&answer(-22, &[])) && !is_acceptance(&[]));
    }

    #[test]
    fn the_kernel_is_asked_and_answers() {
        in_namespace(async |netlink| {
            add_interface("eth0", "192.168.77.11/24");
            let cable = netlink.link("eth0").await.unwrap().unwrap().index;
            // There is nothing to remove, and no such program.
            let socket = open().unwrap();
            assert!(is_acceptance(&ask(&socket, cable, -1).unwrap()));
            assert!(!is_acceptance(&ask(&socket, cable, 0).unwrap()));
        });
    }
}
