//! What to do about packets that are dropped.

use flannel_common::Reason;

/// What to do about packets dropped for `reason`; `None` for reasons of other verdicts.
pub(super) const fn of(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Truncated | Reason::BadIpHeader | Reason::BadVxlanFlags | Reason::InnerNotIpv4 => {
            "Somebody sends to the tunnel's port what is no tunnel packet: find the sender with `tcpdump -ni \
             INTERFACE udp port PORT`. Rules of this host's firewall do not see these packets; one in front of it can let \
             only hosts of the network reach the port."
        }
        Reason::UnknownOuterSource => {
            "The sender holds no lease this host has accepted: see `flannelctl leases` for refused ones. Behind \
             address translation a host must announce what others see of it (flanneld --public-ip)."
        }
        Reason::InnerSourceMismatch => {
            "A host sends with an address that is not of its subnet: traffic that is routed through it without \
             masquerade. Masquerade it there (flanneld --ip-masq), or accept it here with --guard=peer."
        }
        Reason::InnerDestinationNotLocal => {
            "A peer believes that this host leases another subnet: see `flannelctl leases` there and here. It ends \
             by itself when that host receives the present lease."
        }
        Reason::BadInnerMac => {
            "A peer knows an older Ethernet address of this host's VTEP: compare `flannelctl leases` with `ip link \
             show` of the device. flanneld publishes the present one when it runs."
        }
        Reason::NoPeer => {
            "See `flannelctl leases` for who leases the destination. If nobody does, no host has such a pod any \
             more; if somebody does, `flannelctl verify` says why it is not in the map."
        }
        Reason::NoRoute => {
            "`ip route get PEER from THIS_HOST ipproto udp dport PORT` says what the routing table has for the peer's \
             public address: give the host a route to it that does not lead into the tunnel itself."
        }
        Reason::TtlExceeded => {
            "There is a routing loop: `flannelctl explain SRC DST` on each host says where the destination leads."
        }
        Reason::Fragment => {
            "The path between the hosts carries less than the underlay's interface says: give the interface the MTU \
             of the path, and flanneld follows."
        }
        Reason::EcnIllegal => {
            "A router on the path marks congestion on packets whose sender does not know of it: look for one that \
             sets the ECN field wrongly."
        }
        Reason::AdjustFailed => {
            "The kernel had no memory for the headers, or the packet cannot be changed: see `dmesg` and the free \
             memory; without a cause there, report it with a `flannelctl sysdump`."
        }
        Reason::RedirectFailed => {
            "The interface the packet was to leave by is down or gone: see `ip link`, and `flannelctl verify`."
        }
        Reason::NotGuarded => {
            "Tunnel packets arrive at an interface that flanneld takes for one of containers or virtual machines, and \
             the kernel took the headers off. If other hosts are behind it, choose it (flanneld --iface), or correct \
             the routes between the hosts."
        }
        Reason::TunnelFromPod => {
            "A pod speaks to the tunnel's port of another host, as if it were one: find it with `flannelctl drops \
             --follow`. What tunnels of its own must use another port than the network's."
        }
        Reason::SpoofedSource => {
            "Somebody on the link, or a pod, sends with an address that is not its own: see the packets with \
             `flannelctl drops`. If the sender is a host of the network that has a direct route to this one, this \
             host must have one to it, too (DirectRouting with the same netmask on both)."
        }
        Reason::AgainstPolicy => {
            "A policy of IPsec concerns tunnel packets (`ip xfrm policy`), and the udp backend cannot obey it: take the \
             policy away, or use the vxlan backend."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use flannel_common::{Reason, Verdict};

    use super::of;

    #[test]
    fn every_drop_has_a_remedy_and_nothing_else_has() {
        for reason in Reason::ALL {
            assert_eq!(of(*reason).is_some(), reason.verdict() == Verdict::Drop, "{reason}");
        }
    }
}
