//! `flannelctl status`: this host's part of the network, and whether it forwards.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flannel_common::Ip4;
use flannel_common::maps::Guard;
use flannel_model::backend::Kind;
use flannel_net::Netlink;
use ipnetwork::Ipv4Network;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::daemon::Daemon;
use super::exit::Outcome;
use super::hooks::{Hook, Interface, hooks};
use super::output::Report;
use super::page::{Page, Tone, cell, or_dash, toned};
use super::place::Context;
use super::programless::Programless;
use super::running::Running;
use super::watch::Watch;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);
/// A daemon that is just being started has no socket for less than that.
const STARTING: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Wait until the programs are attached and flanneld, if it runs, is ready, at most for --timeout. That it does not
    /// run is believed after a second.
    #[arg(long, conflicts_with = "watch")]
    wait: bool,
    /// For how long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    watch: Watch,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        if self.wait {
            return self.wait(context).await;
        }
        self.watch.show(context.printer, async || Answer::read(context).await).await
    }

    async fn wait(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let begin = Instant::now();
        // Nothing for a time that never comes.
        let deadline = begin.checked_add(Duration::from_secs(self.timeout));
        let mut last_seen = begin;
        loop {
            let answer = Answer::read(context).await;
            if answer.as_ref().is_ok_and(Answer::has_daemon) {
                last_seen = Instant::now();
            }
            let is_starting = last_seen.elapsed() < STARTING;
            let is_up =
                answer.as_ref().is_ok_and(|answer| answer.is_up() && (answer.has_daemon() || !is_starting));
            let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_up || is_over {
                return context.printer.print(&answer?);
            }
            sleep(PAUSE).await;
        }
    }
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer {
    Status(Box<Status>),
    Programless(Box<Programless>),
}

impl Answer {
    async fn read(context: &Context<'_>) -> anyhow::Result<Self> {
        match Status::read(context).await {
            Ok(status) => Ok(Self::Status(Box::new(status))),
            Err(error) => match Programless::find(context, &error).await {
                Some(programless) => Ok(Self::Programless(Box::new(programless))),
                None => Err(error),
            },
        }
    }

    const fn has_daemon(&self) -> bool {
        match self {
            Self::Status(status) => status.daemon.is_some(),
            Self::Programless(programless) => programless.has_daemon(),
        }
    }

    fn is_up(&self) -> bool {
        match self {
            Self::Status(status) => status.is_up(),
            Self::Programless(programless) => programless.is_up(),
        }
    }
}

impl Report for Answer {
    fn show(&self, page: &mut Page) {
        match self {
            Self::Status(status) => status.show(page),
            Self::Programless(programless) => programless.show(page),
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.is_up())
    }
}

/// This host's part of the network.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    backend: &'static str,
    subnet: Option<Ipv4Network>,
    public_interface: Interface,
    address: Ipv4Addr,
    device: Option<Interface>,
    vni: Option<u32>,
    port: Option<u32>,
    /// The former format of VXLAN, while that is served, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<String>,
    guard: &'static str,
    peers: usize,
    /// Names of the pins of programs in their places.
    links: Vec<String>,
    pin_dir: PathBuf,
    /// Whether every program the tunnel needs sees packets.
    attached: bool,
    programs: Vec<Hook>,
    daemon: Option<Running>,
}

/// The subnet of that address and netmask.
pub(super) fn network(address: Ip4, netmask: Ip4) -> Option<Ipv4Network> {
    Ipv4Network::with_netmask(address.into(), netmask.into()).ok()
}

impl Status {
    pub(super) async fn read(context: &Context<'_>) -> anyhow::Result<Self> {
        let pin_dir = context.place.pin_dir();
        let tables = context.place.tables()?;
        let node = tables.node()?;
        let backend = Kind::from_number(node.backend);
        let guard = Guard::ALL.iter().find(|guard| **guard as u32 == node.guard);
        let subnet = network(node.subnet, node.netmask);
        let programs = hooks(&Netlink::open()?, &pin_dir, &node).await?;
        let daemon = Daemon::find(context.place).await?.map(Running::from);
        Ok(Self {
            backend: backend.map_or("unknown", Kind::name),
            subnet,
            public_interface: Interface::new(node.underlay),
            address: node.local_ip.into(),
            device: (node.device != 0).then(|| Interface::new(node.device)),
            vni: (backend == Some(Kind::Vxlan)).then_some(node.vni),
            port: (node.port != 0).then_some(node.port),
            former: (node.former_port != 0)
                .then(|| format!("and still VNI {} at UDP port {}", node.former_vni, node.former_port)),
            guard: guard.map_or("unknown", |guard| guard.label()),
            peers: tables.peers()?.len(),
            links: links(&programs),
            attached: programs.iter().all(|hook| hook.attached || !hook.required),
            programs,
            daemon,
            pin_dir,
        })
    }

    /// This host in one line.
    pub(super) fn headline(&self) -> String {
        let subnet = self.subnet.map_or_else(|| "no subnet".to_owned(), |subnet| subnet.to_string());
        let underlay = self.public_interface.name.as_deref().unwrap_or("an interface that is gone");
        format!("flannel {} {subnet}, {} on {underlay}", self.backend, self.address)
    }

    /// How the daemon is.
    pub(super) fn daemon_line(&self) -> (Tone, String) {
        match &self.daemon {
            Some(daemon) => (daemon.tone(), daemon.text()),
            None => (
                Tone::Warning,
                "does not run, or has no socket to answer at; this is from the pinned maps".to_owned(),
            ),
        }
    }

    /// What is not as it should be, and why.
    pub(super) fn troubles(&self) -> Vec<(Tone, String)> {
        let detached = self.programs.iter().filter(|hook| hook.required && !hook.attached).map(|hook| {
            let (program, interface) = (&hook.program, hook.interface.text());
            let text = format!(
                "{program} is not attached to {interface}: flanneld attaches it, so see its log or start it"
            );
            (Tone::Bad, text)
        });
        self.daemon.iter().flat_map(Running::troubles).chain(detached).collect()
    }

    /// Whether packets are forwarded, and the daemon, if there is one, is ready.
    fn is_up(&self) -> bool {
        self.attached && self.daemon.as_ref().is_none_or(Running::is_ready)
    }
}

fn links(programs: &[Hook]) -> Vec<String> {
    let mut names: Vec<String> = programs
        .iter()
        .filter(|hook| hook.attached)
        .map(|hook| format!("{}-{}", hook.program, hook.interface.index))
        .collect();
    names.sort_unstable();
    names
}

impl Report for Status {
    fn show(&self, page: &mut Page) {
        page.pairs([
            ("backend", cell(self.backend)),
            ("subnet", or_dash(self.subnet)),
            ("underlay", cell(format!("{}, {}", self.public_interface.text(), self.address))),
            ("device", or_dash(self.device.as_ref().map(Interface::text))),
            (
                "VNI",
                or_dash(self.vni.map(|vni| match &self.former {
                    Some(former) => format!("{vni} ({former})"),
                    None => vni.to_string(),
                })),
            ),
            ("port", or_dash(self.port)),
            ("guard", cell(self.guard)),
            ("peers", cell(self.peers)),
            ("links", cell(self.links.join(" "))),
            ("pins", cell(self.pin_dir.display())),
            ("lease", or_dash(self.daemon.as_ref().and_then(Running::lease_text))),
            ("config", or_dash(self.daemon.as_ref().and_then(Running::hash))),
            ("flanneld", {
                let (tone, text) = self.daemon_line();
                toned(tone, text)
            }),
        ]);
        for (tone, trouble) in self.troubles() {
            page.toned_line(tone, &trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_control::socket::ConditionState;
    use flannel_datapath::hooks::Hook;
    use serde_json::json;

    use super::{Interface, Status};
    use crate::output::Report as _;
    use crate::running::tests::running;

    fn status(attached: bool, ready: bool) -> Status {
        let eth0 = Interface { index: 2, name: Some("eth0".to_owned()) };
        let hook = Hook {
            program: "vxlan_decap".to_owned(),
            interface: eth0.clone(),
            mechanism: Some("tcx".to_owned()),
            attached,
            required: true,
        };
        let state = if ready { ConditionState::Met } else { ConditionState::Pending };
        Status {
            backend: "vxlan",
            subnet: Some("10.5.39.0/24".parse().unwrap()),
            public_interface: eth0,
            address: [192, 168, 77, 11].into(),
            device: Some(Interface { index: 3, name: None }),
            vni: Some(1),
            port: Some(8472),
            former: None,
            guard: "strict",
            peers: 1,
            links: super::links(std::slice::from_ref(&hook)),
            pin_dir: "/sys/fs/bpf/x".into(),
            attached,
            programs: vec![hook],
            daemon: Some(running(state, None)),
        }
    }

    #[test]
    fn table() {
        assert_eq!(
            status(true, true).text(),
            " backend   vxlan
 subnet    10.5.39.0/24
 underlay  eth0 (index 2), 192.168.77.11
 device    gone (index 3)
 VNI       1
 port      8472
 guard     strict
 peers     1
 links     vxlan_decap-2
 pins      /sys/fs/bpf/x
 lease     expires in 23 h unless renewed
 config    0123456789ab
 flanneld  ready (process 7)
"
        );
        let text = status(false, false).text();
        assert!(
            text.contains(
                "flanneld  not ready: datapath in place (process 7)\nvxlan_decap is not attached to eth0"
            ),
            "{text}"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            serde_json::to_value(status(true, true)).unwrap(),
            json!({
                "backend": "vxlan", "subnet": "10.5.39.0/24",
                "public_interface": {"index": 2, "name": "eth0"}, "address": "192.168.77.11",
                "device": {"index": 3, "name": null}, "vni": 1, "port": 8472, "guard": "strict", "peers": 1,
                "links": ["vxlan_decap-2"], "pin_dir": "/sys/fs/bpf/x", "attached": true,
                "programs": [{
                    "program": "vxlan_decap", "interface": {"index": 2, "name": "eth0"},
                    "mechanism": "tcx", "attached": true, "required": true,
                }],
                "daemon": {
                    "pid": 7, "version": env!("CARGO_PKG_VERSION"), "started": 1_700_000_000, "ready": true,
                    "pending": [], "failing": [], "limits": [], "stale": false,
                    "lease": {
                        "subnets": ["10.5.39.0/24"], "public_ips": ["192.168.77.11"], "expires_seconds": 86000,
                    },
                    "registry": {"endpoints": ["http://192.168.77.1:2379"], "state": "reached"},
                    "configuration": {"hash": "0123456789ab", "outdated": null},
                    "log_level": {"level": "info", "configured": "info"},
                    "told_by": "socket",
                },
            })
        );
    }

    #[test]
    fn what_fails_is_told_with_its_reason() {
        let mut failing = running(ConditionState::Failed, Some("the kernel refuses the program bridge"));
        failing.limit("no bypass");
        failing.outdate("Network from a to b");
        let status = Status { daemon: Some(failing), ..status(true, false) };
        let text = status.text();
        let told = "not datapath in place for 7 s: the kernel refuses the program bridge\nno bypass\nNetwork from a to b\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn what_is_waited_for() {
        assert!(status(true, true).is_up());
        assert!(!status(false, true).is_up());
        assert!(!status(true, false).is_up());
        assert!(Status { daemon: None, ..status(true, true) }.is_up());
    }
}
