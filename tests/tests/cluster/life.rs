//! What happens to running pods while parts of the cluster are replaced or away.

use std::net::{Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::binaries;
use flannel_tests::kubernetes::Lab;
use flannel_tests::traffic::{Conversation, Endpoint, Losses, Stream, transfer_by};
use serde_json::{Value, json};

use crate::ask::{Checks, source};

/// Datagrams per second of each stream.
const RATE: u32 = 2000;
/// Of a service, and of its servers.
const PORT: u16 = 100;
const TARGET: u16 = 8100;
/// How long what is away stays so.
const AWAY: Duration = Duration::from_secs(3);
const FILE: u64 = 32 << 20;
/// What a guard that is too strict would count.
const GUARD: [&str; 5] = [
    "inner_source_mismatch",
    "unknown_outer_source",
    "inner_dst_not_local",
    "spoofed_source",
    "tunnel_from_pod",
];

/// Two pods on different nodes, and the service that leads to the second.
struct Pair {
    client: Endpoint,
    server: Endpoint,
    service: Ipv4Addr,
}

/// Checks a cluster whose services were checked before.
pub fn check_all(lab: &mut Lab, checks: &mut Checks) -> Result<()> {
    let service = lab.api.request("GET", "/api/v1/namespaces/default/services/two", None)?;
    let pair = Pair {
        client: lab.endpoint(0, "client-1")?,
        server: lab.endpoint(1, "server-2")?,
        service: service["spec"]["clusterIP"].as_str().context("no clusterIP")?.parse()?,
    };
    let moved = transfer_by(&pair.client, &pair.server, TARGET, pair.by_service(), FILE);
    checks.note("a file by a service", moved.map(|_| ()));
    checks.note("while flannel is rolled out anew", pair.during(lab, roll_out));
    checks.note(
        "while kube-proxy starts again",
        pair.during(lab, |lab| {
            lab.nodes.iter_mut().try_for_each(flannel_tests::kubernetes::Agents::restart_proxy)?;
            sleep(AWAY);
            Ok(())
        }),
    );
    checks.note(
        "while the API server is away",
        pair.during(lab, |lab| {
            lab.api.kill()?;
            sleep(AWAY);
            let seen = source(&pair.client.namespace, (pair.service, 80))?;
            ensure!(seen == pair.client.address, "asked by {seen}");
            lab.api.restart()?;
            lab.wait_rolled_out()
        }),
    );
    check_guard(lab, checks);
    Ok(())
}

/// Checks that the guards, at their default level, have dropped nothing.
pub fn check_guard(lab: &Lab, checks: &mut Checks) {
    for node in 0..lab.nodes.len() {
        checks.note(&format!("what the guard of node {} has dropped", node + 1), guard_is_silent(lab, node));
    }
}

fn roll_out(lab: &mut Lab) -> Result<()> {
    lab.api.kubectl(&["--namespace=kube-flannel", "rollout", "restart", "daemonset/kube-flannel-ds"], "")?;
    lab.wait_rolled_out()
}

impl Pair {
    const fn by_service(&self) -> SocketAddr {
        SocketAddr::new(std::net::IpAddr::V4(self.service), PORT)
    }

    /// Whether datagrams both ways and a connection by a service outlive this without a loss.
    fn during(&self, lab: &mut Lab, change: impl FnOnce(&mut Lab) -> Result<()>) -> Result<()> {
        let talk = Conversation::start_by(&self.client, &self.server, TARGET, self.by_service())?;
        let streams = [
            Stream::start(&self.client, &self.server, RATE)?,
            Stream::start(&self.server, &self.client, RATE)?,
        ];
        let changed = change(lab);
        let losses = streams.into_iter().map(Stream::stop).collect::<Result<Vec<_>>>()?;
        let heard = talk.stop()?;
        changed?;
        eprintln!("{losses:?} {heard:?}");
        ensure!(Losses::unexcused_of(&losses) == 0, "lost: {losses:?}");
        Ok(())
    }
}

/// Fails if a guard has dropped anything of what was sent here, where nobody sends in somebody else's name.
fn guard_is_silent(lab: &Lab, node: usize) -> Result<()> {
    let flannelctl = binaries::find("flannelctl")?;
    let flannelctl = flannelctl.to_str().context("a path that is no text")?;
    let drops: Value = serde_json::from_str(&lab.node(node)?.machine.run(flannelctl, "drops -o json")?)?;
    let rows = drops["drops"].as_array().with_context(|| format!("no drops in {drops}"))?;
    let by_guard: Vec<&Value> =
        rows.iter().filter(|row| GUARD.iter().any(|reason| row["reason"] == json!(reason))).collect();
    ensure!(by_guard.is_empty(), "{by_guard:?}");
    Ok(())
}
