//! `flannelctl status`: this host's part of the network, and whether it forwards.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flannel_common::Ip4;
use flannel_common::maps::Guard;
use flannel_model::backend::Kind;
use flannel_net::Netlink;
use ipnetwork::Ipv4Network;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::hooks::{Hook, Interface, hooks};
use super::output::{Page, Report, Tone, cell, or_dash, toned};
use super::place::Context;
use super::programless::Programless;
use super::running::Running;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Wait until the programs are attached and flanneld, if it runs, is ready, at most for --timeout.
    #[arg(long)]
    wait: bool,
    /// For how long.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// Where flanneld's /readyz answers [default: by the flags of the running flanneld].
    #[arg(long, value_name = "ADDRESS:PORT")]
    health: Option<SocketAddr>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        loop {
            let answer = Answer::read(context, self.health).await;
            let is_up = answer.as_ref().is_ok_and(Answer::is_up);
            if is_up || !self.wait || Instant::now() >= deadline {
                context.printer.print(&answer?)?;
                return Ok(if is_up { ExitCode::SUCCESS } else { ExitCode::FAILURE });
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
    Programless(Programless),
}

impl Answer {
    async fn read(context: &Context<'_>, health: Option<SocketAddr>) -> anyhow::Result<Self> {
        match Status::read(context, health).await {
            Ok(status) => Ok(Self::Status(Box::new(status))),
            Err(error) => Programless::find(context, health).map(Self::Programless).ok_or(error),
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
    pub(super) async fn read(context: &Context<'_>, health: Option<SocketAddr>) -> anyhow::Result<Self> {
        let pin_dir = context.place.pin_dir();
        let tables = context.place.tables()?;
        let node = tables.node()?;
        let backend = Kind::from_number(node.backend);
        let guard = Guard::ALL.iter().find(|guard| **guard as u32 == node.guard);
        let subnet = network(node.subnet, node.netmask);
        let programs = hooks(&Netlink::open()?, &pin_dir, &node).await?;
        let daemon = Running::find(&pin_dir, health, subnet);
        Ok(Self {
            backend: backend.map_or("unknown", Kind::name),
            subnet,
            public_interface: Interface::new(node.underlay),
            address: node.local_ip.into(),
            device: (node.device != 0).then(|| Interface::new(node.device)),
            vni: (backend == Some(Kind::Vxlan)).then_some(node.vni),
            port: (node.port != 0).then_some(node.port),
            guard: guard.map_or("unknown", |guard| guard.label()),
            peers: tables.peers()?.len(),
            links: links(&programs),
            attached: programs.iter().all(|hook| hook.attached || !hook.required),
            programs,
            daemon,
            pin_dir,
        })
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
            ("VNI", or_dash(self.vni)),
            ("port", or_dash(self.port)),
            ("guard", cell(self.guard)),
            ("peers", cell(self.peers)),
            ("links", cell(self.links.join(" "))),
            ("pins", cell(self.pin_dir.display())),
            (
                "flanneld",
                match &self.daemon {
                    Some(daemon) => toned(daemon.tone(), daemon.text()),
                    None => toned(Tone::Warning, "not running"),
                },
            ),
        ]);
        if let Some(daemon) = &self.daemon {
            daemon.show_reasons(page);
        }
        for hook in self.programs.iter().filter(|hook| hook.required && !hook.attached) {
            page.toned_line(
                Tone::Bad,
                &format!(
                    "{} is not attached to {}: flanneld attaches it, so see its log or start it",
                    hook.program,
                    hook.interface.text()
                ),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_datapath::hooks::Hook;
    use serde_json::json;

    use super::{Interface, Running, Status};
    use crate::daemon::{Failing, Readiness};
    use crate::output::Report as _;

    fn status(attached: bool, ready: Option<bool>) -> Status {
        let eth0 = Interface { index: 2, name: Some("eth0".to_owned()) };
        let hook = Hook {
            program: "vxlan_decap".to_owned(),
            interface: eth0.clone(),
            mechanism: Some("tcx".to_owned()),
            attached,
            required: true,
        };
        let pending = if ready == Some(true) { Vec::new() } else { vec!["lease acquired".to_owned()] };
        let readiness = Readiness {
            ready,
            pending,
            failing: Vec::new(),
            limits: Vec::new(),
            stale: Some(false),
            told_by: "endpoint",
        };
        Status {
            backend: "vxlan",
            subnet: Some("10.5.39.0/24".parse().unwrap()),
            public_interface: eth0,
            address: [192, 168, 77, 11].into(),
            device: Some(Interface { index: 3, name: None }),
            vni: Some(1),
            port: Some(8472),
            guard: "strict",
            peers: 1,
            links: super::links(std::slice::from_ref(&hook)),
            pin_dir: "/sys/fs/bpf/x".into(),
            attached,
            programs: vec![hook],
            daemon: Some(Running { pid: 7, readiness }),
        }
    }

    #[test]
    fn table() {
        assert_eq!(
            status(true, Some(true)).text(),
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
 flanneld  ready (process 7)
"
        );
        let text = status(false, Some(false)).text();
        assert!(
            text.contains(
                "flanneld  not ready: lease acquired (process 7)\nvxlan_decap is not attached to eth0"
            ),
            "{text}"
        );
    }

    #[test]
    fn json() {
        assert_eq!(
            serde_json::to_value(status(true, Some(true))).unwrap(),
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
                    "pid": 7, "ready": true, "pending": [], "failing": [], "limits": [], "stale": false,
                    "told_by": "endpoint",
                },
            })
        );
    }

    #[test]
    fn what_fails_is_told_with_its_reason() {
        let mut status = status(true, Some(false));
        if let Some(daemon) = &mut status.daemon {
            let failing = Failing {
                condition: "datapath in place".to_owned(),
                reason: "the kernel refuses the program bridge".to_owned(),
                seconds: 7,
            };
            daemon.readiness.failing = vec![failing];
            daemon.readiness.limits = vec!["no bypass".to_owned()];
        }
        let text = status.text();
        let told = "not datapath in place for 7 s: the kernel refuses the program bridge\nno bypass\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn what_is_waited_for() {
        assert!(status(true, Some(true)).is_up());
        assert!(status(true, None).is_up());
        assert!(!status(false, Some(true)).is_up());
        assert!(!status(true, Some(false)).is_up());
        assert!(Status { daemon: None, ..status(true, None) }.is_up());
    }
}
