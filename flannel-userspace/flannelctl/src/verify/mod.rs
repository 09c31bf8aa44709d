//! `flannelctl verify`: whether maps and kernel are what the leases ask for.

mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use clap::Args;
use flannel_common::Vni;
use flannel_common::maps::Node;
use flannel_datapath::{PeerEntry, Tables};
use flannel_model::device::{Device, DeviceSpec};
use flannel_model::family::{Family, PerFamily, Subnets};
use flannel_model::object::Object;
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::VxlanFormat;
use flannel_net::device::segmenter::EXIT;
use flannel_net::{Netlink, Objects, hops, retain_ours};
use ipnetwork::{IpNetwork, Ipv4Network};
use serde::Serialize;

use super::exit::Outcome;
use super::hooks::hooks;
use super::objects::{self, Thing};
use super::output::Report;
use super::page::{Page, Tone, cell, toned};
use super::place::{Context, StateFile};
use super::registry::RegistryFlags;
use super::status::network;
use super::table::{Column, Key, Row, Sorting};
use super::units;
use super::wanted::{Known, Source};
use super::watch::Watch;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state_file: StateFile,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Difference>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let look = async || {
            let mut verification = Verification::read(context, &self.state_file, &self.registry).await?;
            self.sorting.sort(&mut verification.differences);
            Ok(verification)
        };
        self.watch.show(self.sorting.printer(context.printer), look).await
    }
}

impl Verification {
    /// Compares.
    pub(super) async fn read(
        context: &Context<'_>,
        state_file: &StateFile,
        registry: &RegistryFlags,
    ) -> anyhow::Result<Self> {
        let tables = context.place.tables()?;
        let known = Known::read(context, state_file, registry).await?;
        let node = tables.node()?;
        let mut found = Findings::new()?;
        found.compare(&known, &tables, &node).await?;
        found.compare_hooks(context, &node).await?;
        if let Some(subnet) = network(node.subnet, node.netmask) {
            found.compare_settings(&known, subnet).await?;
        }
        let Findings { checked, differences, not_compared, .. } = found;
        let equal = differences.is_empty();
        let (source, age_seconds) = (known.source, known.age_seconds);
        Ok(Self { equal, source, age_seconds, checked, not_compared, differences })
    }
}

/// What came of the comparison.
#[derive(Debug, Serialize)]
pub(super) struct Verification {
    equal: bool,
    /// The source of what is wanted.
    source: Source,
    age_seconds: Option<u64>,
    /// How many things were compared.
    checked: usize,
    /// What could not be compared, and why.
    not_compared: Vec<&'static str>,
    differences: Vec<Difference>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// `missing`, `unexpected` or `changed`.
    fault: &'static str,
    #[serde(flatten)]
    thing: Thing,
    /// What is there instead.
    found: Option<String>,
}

impl Difference {
    const fn new(fault: &'static str, thing: Thing) -> Self {
        Self { fault, thing, found: None }
    }

    fn changed(kind: &'static str, text: &dyn ToString, found: &dyn ToString) -> Self {
        let thing = Thing { kind, text: text.to_string() };
        Self { fault: "changed", thing, found: Some(found.to_string()) }
    }
}

fn vxlan_format((vni, port): (u32, u16)) -> Option<VxlanFormat> {
    Some(VxlanFormat { vni: Vni::new(vni)?, port })
}

struct Findings {
    netlink: Netlink,
    checked: usize,
    not_compared: Vec<&'static str>,
    differences: Vec<Difference>,
}

impl Findings {
    fn new() -> anyhow::Result<Self> {
        let netlink = Netlink::open()?;
        Ok(Self { netlink, checked: 0, not_compared: Vec::new(), differences: Vec::new() })
    }

    async fn compare(&mut self, known: &Known, tables: &Tables, node: &Node) -> anyhow::Result<()> {
        let underlay = match known.underlay(&self.netlink, node).await {
            Ok(underlay) => underlay,
            Err(error) => {
                self.missing("address", format!("{} dev {}", node.local_ip, objects::name(node.underlay)));
                self.differences.push(Difference::changed("underlay", &node.local_ip, &format!("{error:#}")));
                return Ok(());
            }
        };
        let Some(subnet) = network(node.subnet, node.netmask) else {
            self.missing("node", "the subnet of this host in NODE_INFO".to_owned());
            return Ok(());
        };
        self.compare_own(known, node, subnet, &underlay);
        let backend = known.backend_of(node);
        let spec = backend.device(&underlay, Family::V4);
        let device = match &spec {
            Some(spec) => self.netlink.find_device(spec).await?,
            None => None,
        };
        if let Some(spec) = &spec {
            let Some(device) = &device else {
                self.missing("device", spec.name());
                return Ok(());
            };
            self.compare_device(spec, device, node, subnet).await?;
        }
        let former_spec = backend.former_device(&underlay, Family::V4);
        let former = match &former_spec {
            Some(spec) => self.netlink.find_device(spec).await?,
            None => None,
        };
        if let Some(spec) = former_spec.filter(|_| former.is_none()) {
            self.missing("device", spec.name());
        }
        let devices = PerFamily { v4: device, v6: None };
        let links = Links { underlay, devices, former: PerFamily { v4: former, v6: None } };
        let underlay = &links.underlay;
        let mut table = known.table(&self.netlink, node, underlay, subnet).await?;
        if known.formats(node).is_some_and(|formats| formats.former.is_some()) {
            // What a lease leaves open, programs have found out.
            let format = |(address, entry): (Ipv4Addr, PeerEntry)| {
                let subnet = Ipv4Network::new(address, subnet.prefix()).ok()?.into();
                Some((subnet, vxlan_format(entry.format?)?))
            };
            table.hear(tables.peers()?.into_iter().filter_map(format));
        }
        let networks = known.config.networks();
        let mut wanted: BTreeSet<Object> =
            networks.iter().flat_map(|network| backend.standing(network, &links)).collect();
        let addresses: Vec<IpAddr> = table.peers().map(|peer| peer.public_ip).collect();
        let hops = if backend.depends_on_hop() {
            hops(&addresses, underlay).await?
        } else {
            vec![Hop::Routed; addresses.len()]
        };
        for (peer, hop) in table.peers().zip(hops) {
            match backend.objects(peer, hop, &links) {
                Ok(objects) => wanted.extend(objects),
                Err(unreachable) => {
                    let thing = Thing { kind: "peer", text: peer.subnet.to_string() };
                    let found = Some(unreachable.to_string());
                    self.differences.push(Difference { fault: "unreachable", thing, found });
                }
            }
        }
        let device = links.device_index(Family::V4);
        let actual = self.actual(device, tables, (&networks, subnet), &wanted).await?;
        self.checked += wanted.len();
        self.differences.extend(differences(&wanted, &actual));
        self.compare_sources(&actual, tables)?;
        Ok(())
    }

    /// What the programs know of this host, and what the leases say of it.
    fn compare_own(&mut self, known: &Known, node: &Node, subnet: Ipv4Network, underlay: &Underlay) {
        let leased = match (&known.remembered, known.source) {
            (Some(remembered), _) => Some((remembered.own.subnets, remembered.own.public)),
            (None, _) => {
                let own = known.leases.leases.iter().find(|lease| lease.subnets.v4 == Some(subnet));
                own.map(|lease| (lease.subnets, lease.attributes.public))
            }
        };
        match leased {
            None => self.missing("lease", format!("{subnet} of this host in etcd")),
            Some((leased, _)) if leased.v4 != Some(subnet) => {
                self.differences.push(Difference::changed(
                    "lease",
                    &leased,
                    &format!("NODE_INFO says {subnet}"),
                ));
            }
            Some((_, public)) => {
                self.equal("public address", public, underlay.public);
            }
        }
        self.equal("backend", known.kind().number(), node.backend);
        self.equal("underlay index", underlay.index, node.underlay);
    }

    async fn compare_device(
        &mut self,
        spec: &DeviceSpec,
        device: &Device,
        node: &Node,
        subnet: Ipv4Network,
    ) -> anyhow::Result<()> {
        self.equal("device index", device.index, node.device);
        self.equal("device address", device.mac, node.device_mac);
        if let Some(segmenter) = device.segmenter {
            self.equal("segmenter index", segmenter.entrance, node.segmenter);
            self.checked += 1;
            for (end, difference) in self.netlink.segmenter_differences(spec.mtu()).await? {
                self.differences.push(Difference::changed("segmenter", &end, &difference));
            }
            if segmenter.exit == 0 {
                self.missing("segmenter", EXIT.to_owned());
            }
        }
        self.checked += 1;
        if let Some(link) = self.netlink.link_by_index(device.index).await? {
            for difference in flannel_net::device::differences(&link, spec) {
                self.differences.push(Difference::changed("device", &device.name, &difference));
            }
        }
        self.checked += 1;
        let wanted = IpNetwork::from(IpAddr::from(subnet.network()));
        let addresses = self.netlink.addresses(Family::V4).await?;
        if !addresses.iter().any(|address| address.link == device.index && address.network == wanted) {
            self.missing("address", format!("{wanted} dev {}", device.name));
        }
        Ok(())
    }

    /// Everything of ours in the kernel's tables and in the map of peers, and what is `wanted`, whatever it looks like
    /// beside the rest.
    async fn actual(
        &self,
        device: Option<u32>,
        tables: &Tables,
        (networks, subnet): (&Subnets, Ipv4Network),
        wanted: &BTreeSet<Object>,
    ) -> anyhow::Result<BTreeSet<Object>> {
        let mut listed = Objects::new(self.netlink.clone(), PerFamily::only_v4(device)).list().await?;
        let mut actual: BTreeSet<Object> =
            listed.iter().filter(|object| wanted.contains(*object)).cloned().collect();
        retain_ours(&mut listed, device, networks, &subnet.into());
        actual.extend(listed);
        for (address, entry) in tables.peers()? {
            let PeerEntry { public_ip, vtep_mac: mac, direct, format } = entry;
            let format = format.and_then(vxlan_format);
            actual.insert(Object::Peer {
                subnet: IpNetwork::new(address.into(), subnet.prefix())?,
                public_ip: public_ip.into(),
                mac,
                direct,
                format,
            });
        }
        Ok(actual)
    }

    /// Every peer's address must be a known source, and no other may be.
    fn compare_sources(&mut self, actual: &BTreeSet<Object>, tables: &Tables) -> anyhow::Result<()> {
        let mut wanted = BTreeMap::<Ipv4Addr, u32>::new();
        for object in actual {
            if let Object::Peer { public_ip: IpAddr::V4(public_ip), .. } = object {
                *wanted.entry(*public_ip).or_default() += 1;
            }
        }
        let found = tables.sources()?;
        self.checked += wanted.len();
        for (address, subnets) in &wanted {
            match found.get(address) {
                None => self.missing("source", address.to_string()),
                Some(found) if found != subnets => {
                    let text = format!("{address} with {subnets} subnets");
                    self.differences.push(Difference::changed("source", &text, found));
                }
                Some(_) => {}
            }
        }
        for address in found.keys().filter(|address| !wanted.contains_key(address)) {
            let thing = Thing { kind: "source", text: address.to_string() };
            self.differences.push(Difference::new("unexpected", thing));
        }
        Ok(())
    }

    async fn compare_hooks(&mut self, context: &Context<'_>, node: &Node) -> anyhow::Result<()> {
        for hook in hooks(&self.netlink, &context.place.pin_dir(), node).await? {
            self.checked += 1;
            if !hook.attached {
                self.missing("program", format!("{} at {}", hook.program, hook.interface.text()));
            }
        }
        Ok(())
    }

    fn missing(&mut self, kind: &'static str, text: String) {
        self.differences.push(Difference::new("missing", Thing { kind, text }));
    }

    fn equal<T: Copy + PartialEq + ToString>(&mut self, kind: &'static str, wanted: T, found: T) {
        self.checked += 1;
        if wanted != found {
            self.differences.push(Difference::changed(kind, &wanted, &found));
        }
    }
}

/// What `actual` lacks of `wanted`, has in another form, or has in addition.
fn differences(wanted: &BTreeSet<Object>, actual: &BTreeSet<Object>) -> Vec<Difference> {
    let in_place_of = |object: &Object, objects: &BTreeSet<Object>| {
        let (first, last) = object.place();
        objects.range(first..=last).next().cloned()
    };
    let missing = wanted.difference(actual).map(|object| match in_place_of(object, actual) {
        Some(found) => {
            let found = Some(Thing::from(&found).text);
            Difference { found, ..Difference::new("changed", Thing::from(object)) }
        }
        None => Difference::new("missing", Thing::from(object)),
    });
    let unexpected = actual
        .difference(wanted)
        .filter(|object| in_place_of(object, wanted).is_none())
        .map(|object| Difference::new("unexpected", Thing::from(object)));
    missing.chain(unexpected).collect()
}

impl Row for Difference {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words(
            "fault",
            "FAULT",
            |difference| {
                let tone = if difference.fault == "unexpected" { Tone::Warning } else { Tone::Bad };
                toned(tone, difference.fault)
            },
            |difference| Key::text(difference.fault),
        ),
        Column::words(
            "kind",
            "KIND",
            |difference| cell(difference.thing.kind),
            |difference| Key::text(difference.thing.kind),
        ),
        Column::words(
            "wanted",
            "WANTED",
            |difference| cell(&difference.thing.text),
            |difference| Key::text(&difference.thing.text),
        ),
        Column::explanation(|difference| {
            cell(difference.found.as_ref().map(|found| format!("found {found}")).unwrap_or_default())
        }),
    ];
}

impl Report for Verification {
    fn show(&self, page: &mut Page) {
        let source = self.source.text(self.age_seconds);
        for what in &self.not_compared {
            page.toned_line(Tone::Warning, &format!("not compared: {what}"));
        }
        if self.equal {
            let text =
                format!("{} as {source} asks for", units::count(self.checked, "thing is", "things are"));
            page.toned_line(Tone::Good, &text);
            return;
        }
        page.table(&self.differences);
        page.toned_line(
            Tone::Bad,
            &format!(
                "{} from what {source} asks for; a running flanneld corrects them within ten \
                 seconds, see its log where it does not",
                units::count(self.differences.len(), "difference", "differences")
            ),
        );
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.equal)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use flannel_common::Mac;
    use flannel_model::object::Object;
    use serde_json::json;

    use super::{Outcome, Source, Verification, differences};
    use crate::output::Report as _;

    fn neighbour(last: u8, mac: u8) -> Object {
        Object::Neighbour { device: 1, ip: [10, 5, last, 0].into(), mac: Mac([2, 0, 0, 0, 0, mac]) }
    }

    fn verification(wanted: &[Object], actual: &[Object]) -> Verification {
        let set = |objects: &[Object]| objects.iter().cloned().collect::<BTreeSet<_>>();
        let differences = differences(&set(wanted), &set(actual));
        Verification {
            equal: differences.is_empty(),
            source: Source::StateFile,
            age_seconds: Some(12),
            checked: wanted.len(),
            not_compared: Vec::new(),
            differences,
        }
    }

    #[test]
    fn each_kind_of_fault() {
        let verification =
            verification(&[neighbour(1, 1), neighbour(2, 2)], &[neighbour(2, 9), neighbour(3, 3)]);
        assert_eq!(verification.outcome(), Outcome::Otherwise);
        assert_eq!(
            verification.text(),
            " FAULT       KIND       WANTED
 missing     neighbour  10.5.1.0 dev lo lladdr 02:00:00:00:00:01
 changed     neighbour  10.5.2.0 dev lo lladdr 02:00:00:00:00:02  found 10.5.2.0 dev lo lladdr 02:00:00:00:00:09
 unexpected  neighbour  10.5.3.0 dev lo lladdr 02:00:00:00:00:03
3 differences from what the state file, written 12 s ago, asks for; a running flanneld corrects them within ten seconds, see its log where it does not
"
        );
        assert_eq!(
            serde_json::to_value(&verification).unwrap()["differences"][1],
            json!({
                "fault": "changed", "kind": "neighbour", "text": "10.5.2.0 dev lo lladdr 02:00:00:00:00:02",
                "found": "10.5.2.0 dev lo lladdr 02:00:00:00:00:09",
            })
        );
    }

    #[test]
    fn nothing_to_tell() {
        let verification = verification(&[neighbour(1, 1)], &[neighbour(1, 1)]);
        assert_eq!(verification.outcome(), Outcome::AsItShouldBe);
        assert_eq!(verification.text(), "1 thing is as the state file, written 12 s ago, asks for\n");
        assert_eq!(
            serde_json::to_value(&verification).unwrap(),
            json!({"equal": true, "source": "state_file", "age_seconds": 12, "checked": 1, "not_compared": [],
                "differences": []})
        );
    }
}
