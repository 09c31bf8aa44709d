//! What the chains and tables of a network are called.

/// Stock flannel's default prefix in etcd, without slashes at its ends.
const STOCK_PREFIX: &str = "coreos.com/network";

/// The names of one network's chains and table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The chain in table nat that POSTROUTING jumps to.
    pub(super) postrouting: String,
    /// The chain in table filter that FORWARD jumps to.
    pub(super) forward: String,
    /// The chain in table mangle that POSTROUTING jumps to.
    pub(super) guard: String,
    /// The table of nftables, of family ip.
    pub(super) table: String,
}

impl Names {
    /// The names for the network below `etcd_prefix`: stock flannel's for its default prefix, with a suffix for any
    /// other. A chain of iptables has at most 28 characters, so the suffix is a digest.
    #[must_use]
    pub fn of(etcd_prefix: &str) -> Self {
        match etcd_prefix.trim_matches('/') {
            STOCK_PREFIX => Self::stock(),
            prefix => Self::with_suffix(&format!("-{:08x}", digest(prefix))),
        }
    }

    pub(super) fn stock() -> Self {
        Self::with_suffix("")
    }

    fn with_suffix(suffix: &str) -> Self {
        Self {
            postrouting: format!("FLANNEL-POSTRTG{suffix}"),
            forward: format!("FLANNEL-FWD{suffix}"),
            guard: format!("FLANNEL-GUARD{suffix}"),
            table: format!("flannel-ipv4{suffix}"),
        }
    }

    pub(super) fn is_stock(&self) -> bool {
        *self == Self::stock()
    }
}

/// FNV-1a: the same in every version, and a stranger who chose a prefix to collide would gain nothing.
fn digest(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn stock_prefix_has_stock_names() {
        assert_eq!(Names::of("/coreos.com/network/"), Names::of("/coreos.com/network"));
        let Names { postrouting, forward, guard, table } = Names::of("/coreos.com/network");
        assert_eq!((&*postrouting, &*forward, &*table), ("FLANNEL-POSTRTG", "FLANNEL-FWD", "flannel-ipv4"));
        assert_eq!(guard, "FLANNEL-GUARD");
    }

    #[test]
    fn other_prefixes_have_names_of_their_own() {
        let [vxlan, host_gw] = ["/vxlan/network", "/hostgw/network"].map(Names::of);
        assert_eq!(vxlan.postrouting, "FLANNEL-POSTRTG-0fed3edb");
        assert_eq!(vxlan, Names::of("vxlan/network/"));
        assert_ne!(vxlan.postrouting, host_gw.postrouting);
        assert_ne!(vxlan.forward, host_gw.forward);
        assert_ne!(vxlan.table, host_gw.table);
        assert!(vxlan.postrouting.len() <= 28, "{vxlan:?}");
    }
}
