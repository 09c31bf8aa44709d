//! The cases, by what the cards take over on receipt.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::crafted;
use super::order::{Obey as _, Order};
use super::pair::{FILE, Pair, Wanted};
use super::relay::relay;
use super::report::Report;
use super::{Card, Side};
use crate::traffic::Ping;

const BACKENDS: [&str; 2] = ["udp", "vxlan"];
/// A packet of this MTU fits one buffer of a driver.
const ONE_BUFFER: u32 = 1500;
/// One of this needs three.
const SEVERAL_BUFFERS: u32 = 9000;
/// Fewer packets of the longest kind do not carry a file.
const FILE_PACKETS: u64 = 5_500;
/// What flanneld says where TC does the work that XDP was to do.
const FALLBACK: &str = "decapsulating at TC instead";
/// What virtio_net says where XDP programs that send share queues with the stack (`virtnet_xdp_set`).
const LOCKED: &str = "slower locked tx mode";

/// Tries all that are for these cards.
pub(super) fn run(card: Card, pair: &mut Pair, report: &mut Report) {
    match card {
        Card::Bare => {
            for backend in BACKENDS {
                offloads(pair, report, backend);
                native(pair, report, backend, "one buffer", ONE_BUFFER);
                several_buffers(pair, report, backend);
            }
            relayed(pair, report);
            let name = "bare: queues: native XDP without queues of its own";
            report.case(pair, name, queues_in_use);
        }
        Card::Offloading => {
            for backend in BACKENDS {
                native(pair, report, backend, "receive offloads turned off by the driver", ONE_BUFFER);
                for hook in ["xdp", "auto"] {
                    checksums(pair, report, "offloading", backend, hook);
                }
            }
        }
        Card::Stubborn => {
            for backend in BACKENDS {
                let name = format!("stubborn: {backend}: receive offloads keep native XDP away");
                report.case(pair, &name, |pair| refused(pair, &wanted(backend, "xdp", ONE_BUFFER)));
                checksums(pair, report, "stubborn", backend, "xdp");
            }
        }
    }
}

const fn wanted(backend: &'static str, hook: &'static str, mtu: u32) -> Wanted {
    Wanted { backend, hook, mtu }
}

/// Every hook, with what the card takes over on and off. Wrong checksums at the hooks that differ in them.
fn offloads(pair: &mut Pair, report: &mut Report, backend: &'static str) {
    for hook in ["auto", "clsact", "xdp"] {
        for state in ["on", "off"] {
            let name = format!("bare: {backend}: --datapath-hook={hook}, offloads {state}");
            report.case(pair, &name, |pair| {
                pair.start(&wanted(backend, hook, ONE_BUFFER))?;
                pair.shell(&format!(
                    "ethtool -K eth0 tx {state} sg {state} tso {state} gso {state} gro {state}"
                ))?;
                let outcome = whole(pair);
                pair.shell("ethtool -K eth0 tx on sg on tso on gso on gro on")?;
                Ok(format!("by {}, {}", mechanism(pair, Side::Far)?, outcome?))
            });
        }
        if hook != "clsact" {
            checksums(pair, report, "bare", backend, hook);
        }
    }
}

/// Native XDP does the work, and continues while the daemons are killed.
fn native(pair: &mut Pair, report: &mut Report, backend: &'static str, what: &str, mtu: u32) {
    let name = format!("native XDP: {backend}: {what}");
    report.case(pair, &name, |pair| {
        pair.start(&wanted(backend, "xdp", mtu))?;
        is_native(pair)
    });
}

/// Native XDP where the driver takes packets of several buffers, and TC where it does not.
fn several_buffers(pair: &mut Pair, report: &mut Report, backend: &'static str) {
    let name = format!("several buffers: {backend}: MTU {SEVERAL_BUFFERS}");
    report.case(pair, &name, |pair| {
        let wanted = wanted(backend, "xdp", SEVERAL_BUFFERS);
        pair.start(&wanted)?;
        let long = Ping { count: 20, size: 8000, dont_fragment: true, ..Ping::default() };
        pair.ping(&long).context("pings of 8000 bytes")?;
        if features(pair)?["xdp_several_buffers"] == true { is_native(pair) } else { refused(pair, &wanted) }
    });
}

fn is_native(pair: &mut Pair) -> Result<String> {
    let check = |pair: &mut Pair| {
        for side in [Side::Near, Side::Far] {
            let mechanism = mechanism(pair, side)?;
            ensure!(mechanism == "xdp", "{side:?}: decapsulated by {mechanism}");
        }
        Ok(())
    };
    check(pair)?;
    let whole = whole(pair)?;
    let pings = pair.restart_under_pings().context("pings over kill -9 of both daemons")?;
    check(pair)?;
    let nic = features(pair)?;
    ensure!(nic["xdp"] == "native", "features: {nic}");
    let packets = decapsulated(pair)?;
    ensure!(packets > FILE_PACKETS, "XDP has decapsulated {packets} packets");
    Ok(format!(
        "{whole}, 0 of {pings} pings lost over kill -9 of both daemons, {packets} packets through XDP"
    ))
}

/// The driver refuses native XDP: the log says why, and TC does the work.
fn refused(pair: &mut Pair, wanted: &Wanted) -> Result<String> {
    pair.start(wanted)?;
    let mechanism = mechanism(pair, Side::Far)?;
    ensure!(mechanism == "tcx" || mechanism == "clsact", "decapsulated by {mechanism}");
    let log: String = pair.ask(Side::Far, &Order::Log)?;
    let line = log.lines().find(|line| line.contains(FALLBACK)).context("the log does not say so")?;
    let said = line.split_once("WARN").map_or(line, |(_, said)| said).trim().to_owned();
    let whole = whole(pair)?;
    let pings = pair.restart_under_pings().context("pings over kill -9 of both daemons")?;
    Ok(format!(
        "by {mechanism}, {whole}, 0 of {pings} pings lost over kill -9 of both daemons; the log: {said}"
    ))
}

/// As many queues as there can be are in use, so that XDP gets none of its own.
fn queues_in_use(pair: &mut Pair) -> Result<String> {
    pair.start(&wanted("udp", "xdp", ONE_BUFFER))?;
    let spare = features(pair)?["xdp_transmit"].clone();
    pair.stop()?;
    pair.shell("ethtool -L eth0 combined 4")?;
    let outcome = locked(pair);
    pair.stop()?;
    pair.shell("ethtool -L eth0 combined 2")?;
    Ok(format!("{}; features: {spare} with queues to spare, else \"locked\"", outcome?))
}

fn locked(pair: &mut Pair) -> Result<String> {
    pair.start(&wanted("udp", "xdp", ONE_BUFFER))?;
    let mechanism = mechanism(pair, Side::Far)?;
    ensure!(mechanism == "xdp", "decapsulated by {mechanism}");
    let nic = features(pair)?;
    ensure!(nic["xdp_transmit"] == "locked", "features: {nic}");
    let log = pair.far_mut().shell("dmesg")?;
    let line = log.lines().find(|line| line.contains(LOCKED)).context("the kernel does not say")?.to_owned();
    Ok(format!("{}, the kernel: {line}", whole(pair)?))
}

/// Nothing with a wrong checksum is delivered.
fn checksums(pair: &mut Pair, report: &mut Report, card: &str, backend: &'static str, hook: &'static str) {
    let name = format!("{card}: {backend}: --datapath-hook={hook}: wrong checksums");
    report.case(pair, &name, |pair| {
        pair.start(&wanted(backend, hook, ONE_BUFFER))?;
        let arrived = crafted::send(pair, backend)?;
        let has_words = card == "offloading" && hook == "auto";
        ensure!(arrived.vouched_for >= 20 || !has_words, "the card called only {} good", arrived.vouched_for);
        Ok(format!(
            "by {}, {} of 40 right ones delivered, 0 of 60 with a wrong inner checksum ({} counted by the pod), \
             {} of 20 with a wrong outer one alone; the card had called {} good",
            mechanism(pair, Side::Far)?,
            arrived.right,
            arrived.refused,
            arrived.wrong_outside,
            arrived.vouched_for
        ))
    });
}

/// Super-packets that came out of the tunnel go out by the card again.
fn relayed(pair: &mut Pair, report: &mut Report) {
    for backend in BACKENDS {
        for hook in ["auto", "xdp"] {
            let name = format!("bare: {backend}: --datapath-hook={hook}: sent on by the card");
            report.case(pair, &name, |pair| {
                pair.start(&wanted(backend, hook, ONE_BUFFER))?;
                let count = relay(pair)?;
                ensure!(
                    count > 100 || (backend, hook) == ("udp", "auto"),
                    "{count} super-packets were sent on"
                );
                Ok(format!("{} MB whole, in {count} super-packets", FILE / 1_000_000))
            });
        }
    }
}

fn whole(pair: &mut Pair) -> Result<String> {
    pair.ping(&Ping { count: 5, ..Ping::default() })?;
    pair.transfer_both_ways()?;
    Ok(format!("{} MB whole both ways", FILE / 1_000_000))
}

/// How the program is attached that takes packets out of the tunnel.
fn mechanism(pair: &mut Pair, side: Side) -> Result<String> {
    let status: Value = pair.ask(side, &Order::Ctl("status".to_owned()))?;
    let programs = status["programs"].as_array().context("no programs")?;
    let decapsulates = |program: &&Value| {
        let name = program["program"].as_str().unwrap_or_default();
        program["attached"] == true && (name.contains("_xdp") || name.ends_with("_decap"))
    };
    let found: Vec<&str> =
        programs.iter().filter(decapsulates).filter_map(|program| program["mechanism"].as_str()).collect();
    match found.iter().find(|mechanism| mechanism.starts_with("xdp")).or(found.first()) {
        Some(mechanism) => Ok((*mechanism).to_owned()),
        None => bail!("nothing takes packets out of the tunnel: {status}"),
    }
}

/// What the far machine's flannelctl says of its card.
fn features(pair: &mut Pair) -> Result<Value> {
    let features: Value = pair.ask(Side::Far, &Order::Ctl("features".to_owned()))?;
    Ok(features["interface"].clone())
}

/// Packets that XDP has taken out of the tunnel on the far machine.
fn decapsulated(pair: &mut Pair) -> Result<u64> {
    let counters: Value = pair.ask(Side::Far, &Order::Ctl("counters --all".to_owned()))?;
    let counters = counters["counters"].as_array().context("no counters")?;
    let is_it = |counter: &&Value| counter["hook"] == "xdp" && counter["reason"] == "forwarded";
    counters.iter().find(is_it).and_then(|counter| counter["packets"].as_u64()).context("no such counter")
}
