//! Whether a driver takes native XDP, asked of the kernel (6.3) over generic netlink without attaching anything.

use std::io;

use rtnetlink::sys::{Socket, SocketAddr};

/// `NETLINK_GENERIC`
const GENERIC: isize = 16;
/// `GENL_ID_CTRL`, the family that knows the others.
const CONTROL: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`
const FAMILY_NAME: u16 = 2;
/// `NETDEV_CMD_DEV_GET`
const GET_DEVICE: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`
const INTERFACE: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: the driver runs programs that pass and drop.
const BASIC: u64 = 1;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`
const ERROR: u16 = 2;
/// Bytes of the headers of netlink and generic netlink.
const HEADERS: usize = 16 + 4;
/// Bytes of an attribute's header.
const ATTRIBUTE: usize = 4;

/// Whether the driver of the interface takes native XDP. Nothing where the kernel does not tell: it is older than 6.3,
/// or the interface is gone.
///
/// # Errors
/// The socket cannot be used.
pub fn takes_native_xdp(interface: u32) -> io::Result<Option<bool>> {
    let mut socket = Socket::new(GENERIC)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let family = ask(&socket, &request(CONTROL, GET_FAMILY, FAMILY_NAME, b"netdev\0"))?;
    let Some(family) = attribute(&family, FAMILY_ID).and_then(|value| value.try_into().ok()) else {
        return Ok(None);
    };
    let device = request(u16::from_ne_bytes(family), GET_DEVICE, INTERFACE, &interface.to_ne_bytes());
    let answer = ask(&socket, &device)?;
    let features = attribute(&answer, XDP_FEATURES).and_then(|value| value.try_into().ok());
    Ok(features.map(|features| u64::from_ne_bytes(features) & BASIC != 0))
}

fn ask(socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(request, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    Ok(answer)
}

/// A request with one attribute.
fn request(family: u16, command: u8, kind: u16, value: &[u8]) -> Vec<u8> {
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
    let attribute = ATTRIBUTE + value.len();
    let padded = attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(HEADERS + padded);
    bytes.extend_from_slice(&u32::from(length(HEADERS + padded)).to_ne_bytes());
    bytes.extend_from_slice(&family.to_ne_bytes());
    bytes.extend_from_slice(&REQUEST.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[command, 1, 0, 0]);
    bytes.extend_from_slice(&length(attribute).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(HEADERS + padded, 0);
    bytes
}

/// The value of an attribute of an answer; none in one that tells of an error.
fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    let number = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    if number(answer, 4)? == ERROR {
        return None;
    }
    let mut rest = answer.get(HEADERS..)?;
    loop {
        let length = usize::from(number(rest, 0)?);
        let value = rest.get(ATTRIBUTE..length)?;
        if number(rest, 2)? == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::{FAMILY_NAME, HEADERS, attribute, request, takes_native_xdp};
    use crate::kernel::namespace::{add_interface, in_namespace};

    #[test]
    fn virtual_cables_take_it_and_the_loopback_does_not() {
        in_namespace(async |netlink| {
            add_interface("eth0", "192.168.77.11/24");
            let cable = netlink.link("eth0").await.unwrap().unwrap().index;
            assert_eq!(takes_native_xdp(cable).unwrap(), Some(true));
            assert_eq!(takes_native_xdp(1).unwrap(), Some(false));
            assert_eq!(takes_native_xdp(4_000_000).unwrap(), None, "there is none of that index");
        });
    }

    #[test]
    fn attributes_are_found_or_not() {
        let message = request(0x10, 3, FAMILY_NAME, b"netdev\0");
        assert_eq!(message.len(), HEADERS + 12);
        assert_eq!(attribute(&message, FAMILY_NAME), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&message, 7), None);
        assert_eq!(attribute(&message[..HEADERS + 3], FAMILY_NAME), None);
        assert_eq!(attribute(&[], FAMILY_NAME), None);
    }
}
