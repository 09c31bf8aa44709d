//! Whether the kernel takes programs under the clsact qdisc.

use std::io;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_core::NLM_F_CREATE;
use rtnetlink::packet_route::RouteNetlinkMessage::{NewQueueDiscipline, NewTrafficFilter};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use tracing::debug;

use super::bulk::Bulk;

/// Index of `lo` in every network namespace.
const LOOPBACK: i32 = 1;
/// `ETH_P_ALL`, in network byte order.
const EVERY_PROTOCOL: u32 = 0x0300;

/// Whether the kernel has the clsact qdisc (`CONFIG_NET_SCH_INGRESS`) and programs as filters under it
/// (`CONFIG_NET_CLS_BPF`). Tried in a temporary network namespace; `None` if that cannot be had, as without
/// `CAP_SYS_ADMIN`.
#[must_use]
pub fn knows_clsact() -> Option<bool> {
    knows("clsact", "bpf")
}

/// Whether the kernel knows that kind of qdisc, and that kind of filter under it.
fn knows(qdisc: &'static str, filter: &'static str) -> Option<bool> {
    let probe = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok::<_, io::Error>(add_qdisc(qdisc)? && add_filter(filter)?)
    };
    let outcome = thread::spawn(probe).join().ok()?;
    outcome.inspect_err(|error| debug!(%error, "cannot find out whether the kernel knows {qdisc}")).ok()
}

/// Whether the kind is known (`qdisc_create`).
fn add_qdisc(kind: &str) -> io::Result<bool> {
    let mut message = message(kind, TcHandle::CLSACT);
    message.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
    let mut refused = Bulk::open()?.send([(NewQueueDiscipline(message), NLM_F_CREATE)].into_iter())?;
    is_known(refused.pop())
}

/// Whether the kind is known (`tcf_proto_lookup_ops`). A missing program is reported later (`cls_bpf_change`).
fn add_filter(kind: &str) -> io::Result<bool> {
    let parent = TcHandle { major: TcHandle::CLSACT.major, minor: TcHandle::MIN_INGRESS };
    let mut message = message(kind, parent);
    message.header.info = EVERY_PROTOCOL;
    let mut refused = Bulk::open()?.send([(NewTrafficFilter(message), NLM_F_CREATE)].into_iter())?;
    match refused.pop() {
        Some((_, error)) if error.raw_os_error() == Some(Errno::EINVAL as i32) => Ok(true),
        refused => is_known(refused),
    }
}

fn message(kind: &str, parent: TcHandle) -> TcMessage {
    let mut message = TcMessage::with_index(LOOPBACK);
    message.header.parent = parent;
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

/// The answer of a kernel without a kind of that name, built in or as a module.
fn is_known(refused: Option<(usize, io::Error)>) -> io::Result<bool> {
    match refused {
        None => Ok(true),
        Some((_, error)) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Some((_, error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{knows, knows_clsact};

    #[test]
    fn this_kernel_knows_clsact() {
        assert_eq!(knows_clsact(), Some(true));
    }

    #[rstest]
    #[case::qdisc("none-such", "bpf")]
    #[case::filter("clsact", "none-such")]
    fn what_does_not_exist_is_unknown(#[case] qdisc: &'static str, #[case] filter: &'static str) {
        assert_eq!(knows(qdisc, filter), Some(false));
    }
}
