//! Which modules a guest is given: those by name, and what they need.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::kernel::{BUILTIN, Kernel};

/// Names of modules; one that ends in `*` stands for all that begin so. They are loaded when somebody needs them: the
/// kernel itself asks modprobe.
pub const WANTED: &[&str] = &[
    // The guest's own devices.
    "virtio_pci",
    "virtio_console",
    "virtio_rng",
    "virtio_net",
    "virtio_balloon",
    "failover",
    "net_failover",
    // Devices of networks.
    "veth",
    "bridge",
    "br_netfilter",
    "vxlan",
    "geneve",
    "tun",
    "dummy",
    "macvlan",
    "ipvlan",
    "8021q",
    "bonding",
    "ifb",
    "vrf",
    "ipip",
    "ip_tunnel",
    "ip_gre",
    "ip6_tunnel",
    "sit",
    "fou",
    "wireguard",
    "udp_tunnel",
    "ip6_udp_tunnel",
    "af_packet",
    "af_packet_diag",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
    "netlink_diag",
    // Filters, queues and what they do.
    "cls_bpf",
    "cls_flower",
    "cls_matchall",
    "cls_u32",
    "cls_basic",
    "act_*",
    "sch_*",
    "em_*",
    // Netfilter, both variants of iptables.
    "nf_*",
    "nft_*",
    "nfnetlink*",
    "xt_*",
    "x_tables",
    "ip_tables",
    "iptable_*",
    "ip6_tables",
    "ip6table_*",
    "ipt_*",
    "ip6t_*",
    "arp_tables",
    "arptable_*",
    "ebtables",
    "ebtable_*",
    "ebt_*",
    "ip_set*",
    // IPsec.
    "xfrm_*",
    "esp4",
    "esp6",
    "ah4",
    "xfrm4_tunnel",
    "authenc",
    "authencesn",
    "echainiv",
    "seqiv",
    "gcm",
    "ccm",
    "cbc",
    "ctr",
    "ghash_generic",
    "sha256_generic",
    "sha512_generic",
    "af_key",
    "chacha20poly1305",
    // Congestion control, namespaces of files, programs.
    "tcp_bbr",
    "overlay",
    "configfs",
    "autofs4",
];

/// Modules of a kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Paths below the folder of modules.
    pub files: BTreeSet<String>,
    /// Names that the kernel has neither as a module nor built in.
    pub missing: Vec<String>,
}

impl Selection {
    /// Those of `kernel` by `names`.
    pub fn of<'a>(kernel: &Kernel, names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let read = |file: &str| {
            let path = kernel.modules.join(file);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(select(&read("modules.dep")?, &read(BUILTIN)?, names))
    }
}

/// By lines of `modules.dep`, `file: files that it needs`, in which those are complete, and `modules.builtin`, a file
/// per line.
fn select<'a>(dependencies: &str, builtin: &str, names: impl IntoIterator<Item = &'a str>) -> Selection {
    let modules: BTreeMap<String, (&str, &str)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (name(file), (file, needs)))
        .collect();
    let builtin: BTreeSet<String> = builtin.lines().map(name).collect();
    let mut selection = Selection::default();
    for wanted in names {
        let matches = |name: &str| match wanted.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == wanted,
        };
        let before = selection.files.len();
        for (_, (file, needs)) in modules.iter().filter(|(name, _)| matches(name)) {
            selection.files.insert((*file).to_owned());
            selection.files.extend(needs.split_whitespace().map(str::to_owned));
        }
        let is_there = selection.files.len() > before
            || modules.keys().any(|name| matches(name))
            || builtin.iter().any(|name| matches(name));
        if !is_there {
            selection.missing.push(wanted.to_owned());
        }
    }
    selection
}

/// The name of a module's file, in which the kernel takes `-` for `_`.
fn name(file: &str) -> String {
    let file = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::{Selection, select};

    const DEPENDENCIES: &str = "kernel/net/veth.ko:\n\
        kernel/net/vxlan.ko: kernel/net/udp_tunnel.ko kernel/net/ip6_udp_tunnel.ko\n\
        kernel/net/udp_tunnel.ko:\n\
        kernel/net/ip6_udp_tunnel.ko: kernel/net/udp_tunnel.ko\n\
        kernel/net/br-netfilter.ko: kernel/net/bridge.ko\n\
        kernel/net/xt_mark.ko: kernel/net/x_tables.ko\n\
        kernel/net/xt_comment.ko: kernel/net/x_tables.ko\n";
    const BUILTIN: &str = "kernel/drivers/virtio/virtio-pci.ko\n";

    fn selected(names: &[&str]) -> (Vec<String>, Vec<String>) {
        let Selection { files, missing } = select(DEPENDENCIES, BUILTIN, names.iter().copied());
        let files = files.iter().map(|file| file.trim_start_matches("kernel/net/").to_owned());
        (files.collect(), missing)
    }

    #[test]
    fn a_module_brings_what_it_needs() {
        assert_eq!(selected(&["vxlan"]).0, ["ip6_udp_tunnel.ko", "udp_tunnel.ko", "vxlan.ko"]);
        assert_eq!(selected(&["br_netfilter"]).0, ["br-netfilter.ko", "bridge.ko"]);
    }

    #[test]
    fn a_star_stands_for_all_that_begin_so() {
        assert_eq!(selected(&["xt_*"]).0, ["x_tables.ko", "xt_comment.ko", "xt_mark.ko"]);
    }

    #[test]
    fn what_is_neither_module_nor_built_in_is_missing() {
        let missing = selected(&["wireguard", "virtio_pci", "nft_*", "veth", "veth"]).1;
        assert_eq!(missing, ["wireguard", "nft_*"]);
    }
}
