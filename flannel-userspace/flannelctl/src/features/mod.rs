//! `flannelctl features`: what the kernel and the network card offer, what is used of it, and why.

mod programs;

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use clap::Args;
use comfy_table::Cell;
use flannel_common::maps::Node;
use flannel_datapath::{Choice, Decapsulation, Offer, choose, tcx_programs};
use flannel_net::xdp_transmit::{DRIVER, XdpTransmit, xdp_transmit};
use flannel_net::{Netlink, XdpProgram, XdpSupport};
use serde::Serialize;

use self::programs::Programs;
use super::exit::Outcome;
use super::hooks::{Hook, format, hooks};
use super::objects;
use super::output::Report;
use super::page::{Page, Tone, cell, toned};
use super::place::Context;
use super::table::{Column, Key, Row, Sorting};
use super::watch::Watch;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Feature>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let look = async || {
            let mut features = Features::read(context).await?;
            self.sorting.sort(&mut features.features);
            Ok(features)
        };
        self.watch.show(self.sorting.printer(context.printer), look).await
    }
}

/// What there is and what is used.
#[derive(Debug, Serialize)]
pub(super) struct Features {
    /// The kernel's release.
    kernel: String,
    features: Vec<Feature>,
    /// Whether the kernel accepts each program that is for it.
    programs: Programs,
    /// The underlay, where a datapath names one.
    interface: Option<Nic>,
    /// What `--datapath-hook=auto` has decapsulate there, where there is a tunnel.
    choice: Option<Chosen>,
    /// Programs in their places, and why there.
    used: Vec<Used>,
}

#[derive(Debug, Serialize)]
pub(super) struct Feature {
    /// `kernel`, `program`, `map` or `helper`.
    kind: &'static str,
    name: &'static str,
    /// Nothing where it cannot be found out.
    supported: Option<bool>,
    /// What it is needed for.
    purpose: &'static str,
    /// Whether flannel needs it.
    required: bool,
}

#[derive(Debug, Serialize)]
struct Nic {
    name: String,
    /// The kernel's name of its driver; nothing for virtual devices without one.
    driver: Option<String>,
    mtu: u32,
    /// `native`, `generic` or `none`: how an XDP program, whoever's, is attached now.
    xdp: &'static str,
    /// Whether the driver takes native XDP; nothing where the kernel does not tell.
    xdp_native: Option<bool>,
    /// Whether the driver hands native XDP packets of several buffers.
    xdp_several_buffers: bool,
    /// Whether the XDP program that is attached is somebody else's.
    xdp_taken: bool,
    /// Whether it is a network card, not a virtual device.
    card: bool,
    /// `own` or `locked`: the queues by which XDP programs send; `None` if the driver has no such rule.
    xdp_transmit: Option<XdpTransmit>,
}

#[derive(Debug, Serialize)]
struct Chosen {
    /// `xdp` or `tc`.
    mechanism: String,
    reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Used {
    program: String,
    interface: String,
    mechanism: String,
    reason: &'static str,
}

impl Features {
    /// Asks the kernel.
    pub(super) async fn read(context: &Context<'_>) -> anyhow::Result<Self> {
        let netlink = Netlink::open()?;
        let node = context.place.tables().ok().and_then(|tables| tables.node().ok());
        let hooks = match &node {
            Some(node) => hooks(&netlink, &context.place.pin_dir(), node).await?,
            None => Vec::new(),
        };
        let has_tcx = tcx_programs(1, "udp_decap").ok().map(|programs| programs.is_some());
        let offer = match &node {
            Some(node) => Some(Offer::of(node.underlay, &context.place.pin_dir())?),
            None => None,
        };
        let format = node.as_ref().and_then(format);
        let choice = offer.as_ref().zip(format).map(|(offer, format)| choose(offer, format));
        let used = |hook: &Hook| used(hook, has_tcx, choice);
        Ok(Self {
            kernel: nix::sys::utsname::uname()?.release().to_string_lossy().into_owned(),
            features: features(has_tcx),
            programs: Programs::try_all(),
            interface: match node.as_ref().zip(offer.as_ref()) {
                Some((node, offer)) => nic(&netlink, node, offer).await?,
                None => None,
            },
            choice: choice
                .map(|Choice { by, because }| Chosen { mechanism: by.to_string(), reason: because }),
            used: hooks.iter().filter(|hook| hook.attached).map(used).collect(),
        })
    }
}

fn features(has_tcx: Option<bool>) -> Vec<Feature> {
    let feature =
        |kind, name, supported, required, purpose| Feature { kind, name, supported, purpose, required };
    let btf = Some(Path::new("/sys/kernel/btf/vmlinux").exists());
    let mut all = vec![
        feature("kernel", "btf", btf, false, "types of maps, for bpftool"),
        feature("kernel", "tcx", has_tcx, false, "programs of several owners, in order (6.6); else clsact"),
    ];
    let programs = [
        (ProgramType::SchedClassifier, "sched_cls", true, "the tunnel's programs at TCX or clsact"),
        (ProgramType::Xdp, "xdp", false, "decapsulation before receive offload"),
    ];
    for (program, name, required, purpose) in programs {
        let supported = is_program_supported(program).ok();
        all.push(feature("program", name, supported, required, purpose));
    }
    let maps = [
        (MapType::Hash, "hash", "peers, their addresses, pods' ports' ports"),
        (MapType::PerCpuHash, "percpu_hash", "counters of peers"),
        (MapType::Array, "array", "what programs know of the host and of flows"),
        (MapType::PerCpuArray, "percpu_array", "counters"),
        (MapType::LruHash, "lru_hash", "connections that can bypass the stack"),
        (MapType::RingBuf, "ringbuf", "reports of packets and connections"),
    ];
    for (map, name, purpose) in maps {
        all.push(feature("map", name, is_map_supported(map).ok(), true, purpose));
    }
    let helpers = [
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_skb_adjust_room,
            "skb_adjust_room",
            "room for headers",
        ),
        (ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect, "redirect", "to a pod or device"),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_redirect_neigh,
            "redirect_neigh",
            "out by the underlay",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_fib_lookup,
            "fib_lookup",
            "next hops that are known for a while",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_redirect_peer,
            "redirect_peer",
            "to a pod, past the host's stack",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_get_hash_recalc,
            "get_hash_recalc",
            "ports by flow",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_csum_level,
            "csum_level",
            "checksums of decapsulated packets",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_ktime_get_coarse_ns,
            "ktime_get_coarse_ns",
            "a cheaper clock (5.11)",
        ),
        (
            ProgramType::SchedClassifier,
            BpfHelper::BPF_FUNC_check_mtu,
            "check_mtu",
            "the bypass (5.12); without it every packet goes through the stack",
        ),
        (
            ProgramType::Xdp,
            BpfHelper::BPF_FUNC_xdp_get_buff_len,
            "xdp_get_buff_len",
            "packets of several buffers (5.18); else XDP takes those of one",
        ),
        (
            ProgramType::Xdp,
            BpfHelper::BPF_FUNC_xdp_adjust_head,
            "xdp_adjust_head",
            "headers off in the driver",
        ),
        (ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_adjust_meta, "xdp_adjust_meta", "a token for TC"),
    ];
    for (program, helper, name, purpose) in helpers {
        let is_optional = [BpfHelper::BPF_FUNC_ktime_get_coarse_ns, BpfHelper::BPF_FUNC_check_mtu];
        let required = matches!(program, ProgramType::SchedClassifier) && !is_optional.contains(&helper);
        all.push(feature("helper", name, is_helper_supported(program, helper).ok(), required, purpose));
    }
    all
}

async fn nic(netlink: &Netlink, node: &Node, offer: &Offer) -> anyhow::Result<Option<Nic>> {
    let Some(link) = netlink.link_by_index(node.underlay).await? else { return Ok(None) };
    // What is mounted at /sys may be of another network namespace.
    let sys = format!("/sys/class/net/{}", link.name);
    let address = fs::read_to_string(format!("{sys}/address")).unwrap_or_default();
    let is_it = address.trim() == link.mac.to_string();
    let driver = fs::read_link(format!("{sys}/device/driver")).ok().filter(|_| is_it);
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let Offer { support, is_taken } = offer;
    Ok(Some(Nic {
        xdp_transmit: transmit(driver.as_deref(), Path::new(&sys), support),
        driver,
        mtu: link.mtu,
        xdp: match support.attached {
            Some(XdpProgram { native: true, .. }) => "native",
            Some(_) => "generic",
            None => "none",
        },
        xdp_native: support.native,
        xdp_several_buffers: support.several_buffers,
        xdp_taken: *is_taken,
        card: support.is_card,
        name: link.name,
    }))
}

fn transmit(driver: Option<&str>, sysfs: &Path, support: &XdpSupport) -> Option<XdpTransmit> {
    let is_native = support.attached.is_some_and(|attached| attached.native);
    driver.filter(|driver| *driver == DRIVER)?;
    xdp_transmit(sysfs, support.transmit_queues, is_native)
}

fn used(hook: &Hook, has_tcx: Option<bool>, choice: Option<Choice>) -> Used {
    let mechanism = hook.mechanism.clone().unwrap_or_default();
    let reason = match (mechanism.as_str(), has_tcx, choice) {
        ("tcx", _, _) => "the kernel knows TCX, and --datapath-hook is not clsact",
        ("clsact", Some(false), _) => "the kernel knows no TCX",
        ("clsact", _, _) => "--datapath-hook=clsact",
        ("xdp", _, Some(Choice { by: Decapsulation::Xdp, because })) => because,
        ("xdp", _, _) => "--datapath-hook=xdp, and the driver takes native XDP",
        ("xdp-generic", _, _) => "--datapath-hook=xdp-generic",
        _ => "",
    };
    Used { program: hook.program.clone(), interface: objects::name(hook.interface.index), mechanism, reason }
}

impl Row for Feature {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("kind", "KIND", |feature| cell(feature.kind), |feature| Key::text(feature.kind)),
        Column::words("name", "NAME", |feature| cell(feature.name), |feature| Key::text(feature.name)),
        Column::words("there", "THERE", Self::there, |feature| Key::text(feature.supported_word())),
        Column::words("for", "FOR", |feature| cell(feature.purpose), |feature| Key::text(feature.purpose)),
    ];
}

impl Feature {
    const fn supported_word(&self) -> &'static str {
        match (self.supported, self.required) {
            (Some(true), _) => "yes",
            (Some(false), true) => "no, required",
            (Some(false), false) => "no",
            (None, _) => "unknown",
        }
    }

    fn there(&self) -> Cell {
        let tone = match (self.supported, self.required) {
            (Some(true), _) => Tone::Good,
            (Some(false), true) => Tone::Bad,
            (Some(false), false) => Tone::Warning,
            (None, _) => Tone::Aside,
        };
        toned(tone, self.supported_word())
    }
}

impl Row for Used {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words("program", "PROGRAM", |used| cell(&used.program), |used| Key::text(&used.program)),
        Column::words(
            "interface",
            "INTERFACE",
            |used| cell(&used.interface),
            |used| Key::text(&used.interface),
        ),
        Column::words("by", "BY", |used| cell(&used.mechanism), |used| Key::text(&used.mechanism)),
        Column::words("because", "BECAUSE", |used| cell(used.reason), |used| Key::text(used.reason)),
    ];
}

impl Report for Features {
    fn show(&self, page: &mut Page) {
        page.line(format!("kernel {}", self.kernel));
        page.table(&self.features);
        self.programs.show(page);
        if let Some(nic) = &self.interface {
            nic.show(page);
        }
        if let Some(Chosen { mechanism, reason }) = &self.choice {
            page.line(format!("--datapath-hook=auto decapsulates by {mechanism}: {reason}"));
        }
        if !self.used.is_empty() {
            page.heading("used");
            page.table(&self.used);
        }
    }

    fn outcome(&self) -> Outcome {
        let lacks = |feature: &Feature| feature.required && feature.supported == Some(false);
        Outcome::of(!self.features.iter().any(lacks) && self.programs.are_accepted())
    }
}

impl Nic {
    fn show(&self, page: &mut Page) {
        let Self { name, driver, mtu, xdp, .. } = self;
        let native = match (self.xdp_native, self.xdp_several_buffers) {
            (Some(true), true) => "yes, in several buffers",
            (Some(true), false) => "yes, in one buffer",
            (Some(false), _) => "no",
            (None, _) => "unknown",
        };
        let what = if self.card { "network card" } else { "virtual device" };
        let whose = if self.xdp_taken { " by another" } else { "" };
        page.heading(&format!(
            "underlay {name}: {what}, driver {}, MTU {mtu}, takes native XDP: {native}, XDP attached: {xdp}{whose}",
            driver.as_deref().unwrap_or("unstated")
        ));
        if self.xdp_transmit == Some(XdpTransmit::Locked) {
            page.line(format!(
                "XDP programs that send have no queues of their own: {DRIVER} has fewer to spare than CPUs, and locks \
                 those of the stack; flannel's send nothing"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::programs::{Loaded, Programs};
    use super::{Chosen, Feature, Features, Nic, Used, XdpTransmit};
    use crate::output::Report as _;

    fn features() -> Features {
        let feature = |name, supported, required| Feature {
            kind: "kernel",
            name,
            supported,
            purpose: "types",
            required,
        };
        Features {
            kernel: "6.18.0".to_owned(),
            features: vec![
                feature("btf", Some(true), true),
                feature("tcx", Some(false), false),
                feature("hash", Some(false), true),
                feature("xdp", None, false),
            ],
            programs: Programs::Tried(vec![
                Loaded {
                    backend: "vxlan",
                    program: "vxlan_encap",
                    accepted: true,
                    verified_instructions: Some(2629),
                    refusal: None,
                },
                Loaded {
                    backend: "vxlan",
                    program: "vxlan_decap",
                    accepted: false,
                    verified_instructions: None,
                    refusal: Some("no".to_owned()),
                },
            ]),
            interface: Some(Nic {
                name: "eth0".to_owned(),
                driver: None,
                mtu: 1500,
                xdp: "none",
                xdp_native: Some(true),
                xdp_several_buffers: true,
                xdp_taken: false,
                card: true,
                xdp_transmit: Some(XdpTransmit::Locked),
            }),
            choice: Some(Chosen { mechanism: "xdp".to_owned(), reason: "it wins" }),
            used: vec![Used {
                program: "vxlan_encap".to_owned(),
                interface: "flannel.1".to_owned(),
                mechanism: "clsact".to_owned(),
                reason: "the kernel knows no TCX",
            }],
        }
    }

    #[test]
    fn table() {
        assert_eq!(
            features().text(),
            "kernel 6.18.0
 KIND    NAME  THERE         FOR
 kernel  btf   yes           types
 kernel  tcx   no            types
 kernel  hash  no, required  types
 kernel  xdp   unknown       types

programs
 BACKEND  PROGRAM      ACCEPTED  INSTRUCTIONS  ANSWER
 vxlan    vxlan_encap  yes       2629
 vxlan    vxlan_decap  refused   -             no

underlay eth0: network card, driver unstated, MTU 1500, takes native XDP: yes, in several buffers, XDP attached: none
XDP programs that send have no queues of their own: virtio_net has fewer to spare than CPUs, and locks those of the stack; flannel's send nothing
--datapath-hook=auto decapsulates by xdp: it wins

used
 PROGRAM      INTERFACE  BY      BECAUSE
 vxlan_encap  flannel.1  clsact  the kernel knows no TCX
"
        );
    }

    #[test]
    fn json() {
        let value = serde_json::to_value(features()).unwrap();
        assert_eq!(
            value["features"][1],
            serde_json::json!({"kind": "kernel", "name": "tcx", "supported": false, "purpose": "types", "required": false})
        );
        assert_eq!(value["programs"]["tried"][1]["accepted"], false);
        assert_eq!(value["programs"]["tried"][1]["refusal"], "no");
        assert_eq!(value["interface"]["xdp"], "none");
        assert_eq!(value["interface"]["xdp_transmit"], "locked");
        assert_eq!(value["choice"], serde_json::json!({"mechanism": "xdp", "reason": "it wins"}));
        assert_eq!(value["used"][0]["mechanism"], "clsact");
    }
}
