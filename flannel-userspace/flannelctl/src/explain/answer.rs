//! The answer: what would happen to the packet.

use std::net::Ipv4Addr;

use flannel_common::maps::Peer;
use flannel_common::{Hook, Reason, Verdict};
use serde::Serialize;

use super::packet::Outer;
use crate::exit::Outcome;
use crate::output::Report;
use crate::page::{Page, Tone, cell, toned};
use crate::remedy;

/// What would happen to the packet.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    /// `out` of this host, `in`to it, or `local`.
    pub(super) direction: &'static str,
    /// The route by which this host sends it on.
    pub(super) route: Option<String>,
    /// The entry of PEERS that decides.
    pub(super) entry: Option<Entry>,
    /// `vxlan`, `udp` or `none`.
    pub(super) encapsulation: &'static str,
    /// Whether it goes through the segmenter first, for a peer that has not shown lately that it takes packets whole.
    pub(super) segmented: bool,
    pub(super) outer: Option<Outer>,
    /// The route of the outer packet.
    pub(super) outer_route: Option<String>,
    pub(super) mtu: Option<Mtu>,
    /// The program that decides, if one does.
    pub(super) program: Option<&'static str>,
    pub(super) program_attached: Option<bool>,
    pub(super) hook: Option<&'static str>,
    pub(super) verdict: Option<&'static str>,
    pub(super) reason: Option<&'static str>,
    /// What that means.
    pub(super) help: String,
    /// What to do about it, where it is dropped.
    pub(super) remedy: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub(super) struct Entry {
    subnet: Ipv4Addr,
    public_ip: Ipv4Addr,
    vtep_mac: String,
    path: &'static str,
}

impl From<(Ipv4Addr, Peer)> for Entry {
    fn from((subnet, entry): (Ipv4Addr, Peer)) -> Self {
        let path = if entry.direct != 0 { "direct" } else { "tunnel" };
        Self { subnet, public_ip: entry.public_ip.into(), vtep_mac: entry.vtep_mac.to_string(), path }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Mtu {
    /// Largest packet of the device it leaves by, in bytes.
    pub(super) device: u32,
    /// Bytes of the packet.
    pub(super) packet: u16,
    pub(super) fits: bool,
}

impl Explanation {
    pub(super) fn judge(&mut self, hook: Hook, reason: Reason) {
        self.hook = Some(hook.label());
        self.verdict = Some(reason.verdict().label());
        self.reason = Some(reason.label());
        self.help = reason.help().to_owned();
        self.remedy = remedy::of(reason).filter(|_| reason.verdict() == Verdict::Drop);
    }
}

impl Report for Explanation {
    fn show(&self, page: &mut Page) {
        let mut pairs =
            vec![("packet", cell(format!("{} → {}, {}", self.source, self.destination, self.way())))];
        pairs.extend(self.route.as_ref().map(|route| ("route", cell(route))));
        if let Some(Entry { subnet, public_ip, vtep_mac, path }) = &self.entry {
            pairs.push(("entry", cell(format!("{subnet} at {public_ip}, VTEP {vtep_mac}, by {path}"))));
        }
        let segmented = if self.segmented { ", by the segmenter" } else { "" };
        pairs.push(("tunnel", cell(format!("{}{segmented}", self.encapsulation))));
        if let Some(outer) = &self.outer {
            let vni = outer.vni.map(|vni| format!(", VNI {vni}")).unwrap_or_default();
            let mac = outer.vtep_mac.as_ref().map(|mac| format!(", VTEP {mac}")).unwrap_or_default();
            let Outer { source, destination, port, bytes, .. } = outer;
            pairs.push((
                "outer",
                cell(format!("{source} → {destination} UDP port {port}{vni}{mac}, {bytes} bytes")),
            ));
        }
        if let Some(route) = &self.outer_route {
            pairs.push(("underlay", cell(route)));
        }
        if let Some(Mtu { device, packet, fits }) = &self.mtu {
            let fits =
                if *fits { "fits" } else { "is too long: it is fragmented, or answered with this MTU" };
            pairs.push(("MTU", cell(format!("{device}; a packet of {packet} bytes {fits}"))));
        }
        if let (Some(hook), Some(verdict), Some(reason)) = (self.hook, self.verdict, self.reason) {
            let tone = if verdict == Verdict::Drop.label() { Tone::Bad } else { Tone::Good };
            pairs.push(("verdict", toned(tone, format!("{verdict} at {hook}: {reason}"))));
        }
        page.pairs(pairs);
        page.line(&self.help);
        if let Some(remedy) = self.remedy {
            page.line(remedy);
        }
        if let (Some(program), Some(false)) = (self.program, self.program_attached) {
            page.toned_line(
                Tone::Bad,
                &format!(
                    "But {program} is not attached now, so that it decides nothing: see `flannelctl verify`."
                ),
            );
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.program_attached != Some(false))
    }
}

impl Explanation {
    fn way(&self) -> &'static str {
        match self.direction {
            "in" => "into this host",
            "out" => "out of this host",
            _ => "within this host",
        }
    }
}

#[cfg(test)]
mod tests {
    use flannel_common::{Hook, Reason};

    use super::{Entry, Explanation, Mtu, Outer};
    use crate::output::Report as _;

    fn explanation(reason: Reason) -> Explanation {
        let mut explanation = Explanation {
            source: [10, 5, 1, 2].into(),
            destination: [10, 5, 2, 3].into(),
            direction: "out",
            route: Some("10.5.2.3 via 10.5.2.0 dev flannel.1".to_owned()),
            entry: Some(Entry {
                subnet: [10, 5, 2, 0].into(),
                public_ip: [192, 168, 77, 12].into(),
                vtep_mac: "02:00:00:00:00:02".to_owned(),
                path: "tunnel",
            }),
            encapsulation: "vxlan",
            segmented: false,
            outer: Some(Outer {
                source: [192, 168, 77, 11].into(),
                destination: [192, 168, 77, 12].into(),
                port: 8472,
                vni: Some(1),
                vtep_mac: Some("02:00:00:00:00:02".to_owned()),
                bytes: 134,
            }),
            outer_route: Some("192.168.77.12 dev eth0".to_owned()),
            mtu: Some(Mtu { device: 1450, packet: 84, fits: true }),
            program: Some("vxlan_encap"),
            program_attached: Some(true),
            hook: None,
            verdict: None,
            reason: None,
            help: String::new(),
            remedy: None,
        };
        explanation.judge(Hook::Encap, reason);
        explanation
    }

    #[test]
    fn table() {
        assert_eq!(
            explanation(Reason::Forwarded).text(),
            " packet    10.5.1.2 → 10.5.2.3, out of this host
 route     10.5.2.3 via 10.5.2.0 dev flannel.1
 entry     10.5.2.0 at 192.168.77.12, VTEP 02:00:00:00:00:02, by tunnel
 tunnel    vxlan
 outer     192.168.77.11 → 192.168.77.12 UDP port 8472, VNI 1, VTEP 02:00:00:00:00:02, 134 bytes
 underlay  192.168.77.12 dev eth0
 MTU       1450; a packet of 84 bytes fits
 verdict   forward at encap: forwarded
The packet was forwarded by the program.
"
        );
        let lost = Explanation { program_attached: Some(false), ..explanation(Reason::NoPeer) };
        assert!(lost.text().contains("flannelctl leases"), "{}", lost.text());
        assert!(lost.text().ends_with("see `flannelctl verify`.\n"), "{}", lost.text());
    }

    #[test]
    fn json() {
        let value = serde_json::to_value(explanation(Reason::Forwarded)).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "destination",
                "direction",
                "encapsulation",
                "entry",
                "help",
                "hook",
                "mtu",
                "outer",
                "outer_route",
                "program",
                "program_attached",
                "reason",
                "remedy",
                "route",
                "segmented",
                "source",
                "verdict"
            ]
        );
        assert_eq!(value["outer"]["destination"], "192.168.77.12");
    }
}
