//! `flannelctl leases`: who holds which subnet, for how long, and which leases this host refuses.

use std::net::IpAddr;

use clap::Args;
use flannel_control::peers::PeerTable;
use flannel_model::lease::{self, Data, Lease, SubnetKey};
use flannel_net::Netlink;
use flannel_registry::LeaseStore as _;
use futures::{StreamExt as _, stream};
use ipnetwork::{IpNetwork, Ipv4Network};
use serde::Serialize;

use super::exit::Outcome;
use super::output::Report;
use super::page::{Page, Tone, cell, or_dash, toned};
use super::place::{Context, StateFile};
use super::registry::RegistryFlags;
use super::status::network;
use super::table::{Column, Key, Row, Sorting};
use super::units;
use super::wanted::{Known, Source};
use super::watch::Watch;

/// Concurrent requests to etcd.
const IN_FLIGHT: usize = 32;
/// Of so many leases etcd is asked when they end, and of this host's: it takes a request for each.
const MOST_ASKED: usize = 256;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    state_file: StateFile,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    sorting: Sorting<Entry>,
}

impl Arguments {
    pub(super) async fn run(&self, context: &Context<'_>) -> anyhow::Result<Outcome> {
        let look = async || {
            let mut leases = Leases::read(context, &self.state_file, &self.registry).await?;
            self.sorting.sort(&mut leases.leases);
            Ok(leases)
        };
        self.watch.show(self.sorting.printer(context.printer), look).await
    }
}

async fn judged(context: &Context<'_>, known: &Known) -> anyhow::Result<(Ipv4Network, PeerTable)> {
    let node = context.place.tables()?.node()?;
    let own = network(node.subnet, node.netmask)
        .ok_or_else(|| anyhow::anyhow!("the datapath names no subnet of this host"))?;
    let netlink = Netlink::open()?;
    let underlay = known.underlay(&netlink, &node).await?;
    Ok((own, known.table(&netlink, &node, &underlay, own).await?))
}

/// The leases.
#[derive(Debug, Serialize)]
pub(super) struct Leases {
    source: Source,
    /// How old the state file is.
    age_seconds: Option<u64>,
    leases: Vec<Entry>,
}

#[derive(Debug, Serialize)]
pub(super) struct Entry {
    /// Name of the key in etcd.
    key: String,
    /// How the node is called that has it, in Kubernetes and where that is known.
    node: Option<String>,
    /// One of each family at most, as with the next two.
    subnets: Vec<IpNetwork>,
    public_ips: Vec<IpAddr>,
    vtep_macs: Vec<String>,
    backend: Option<String>,
    /// `lease`; `reservation` if it never expires; `node` in Kubernetes; `None` if that is not known.
    kind: Option<&'static str>,
    /// Seconds until it expires, unless it is renewed.
    expires_seconds: Option<u64>,
    /// `ours`, `accepted`, `refused`, or `unknown` where this host has no datapath.
    state: &'static str,
    /// Why it is refused.
    reason: Option<String>,
}

impl Leases {
    /// Reads them.
    pub(super) async fn read(
        context: &Context<'_>,
        state_file: &StateFile,
        registry: &RegistryFlags,
    ) -> anyhow::Result<Self> {
        let known = Known::read(context, state_file, registry).await?;
        // Without a datapath there is nothing to check leases against.
        let (own, table) = match judged(context, &known).await {
            Ok((own, table)) => (Some(own), Some(table)),
            Err(_) => (known.remembered.as_ref().and_then(|remembered| remembered.own.subnets.v4), None),
        };
        Self::of(&known, own, table.as_ref()).await
    }

    async fn of(known: &Known, own: Option<Ipv4Network>, table: Option<&PeerTable>) -> anyhow::Result<Self> {
        let mut entries: Vec<Entry> = Vec::new();
        if let Some(remembered) = &known.remembered {
            let own = &remembered.own;
            entries.push(Entry {
                key: SubnetKey(own.subnets).to_string(),
                node: None,
                subnets: own.subnets.iter().collect(),
                public_ips: own.public.iter().collect(),
                vtep_macs: own.vtep_macs.values().map(ToString::to_string).collect(),
                backend: known.kind().lease_type().map(str::to_owned),
                kind: Some(if own.term.is_some() { "lease" } else { "reservation" }),
                expires_seconds: None,
                state: "ours",
                reason: None,
            });
        }
        let timed = stream::iter(known.leases.leases.iter().enumerate()).map(|(number, lease)| async move {
            let is_asked = number < MOST_ASKED || own.is_some() && own == lease.subnets.v4;
            (lease, if is_asked { expiration(known, lease).await } else { None })
        });
        let timed: Vec<(&Lease, Option<u64>)> = timed.buffered(IN_FLIGHT).collect().await;
        for (lease, expires) in timed {
            let node = known.names.of(lease.subnets.v4).map(str::to_owned);
            entries.push(Entry { node, ..Entry::of(known.source, lease, expires, own, table) });
        }
        entries.extend(known.leases.rejected.iter().map(|rejected| Entry {
            key: rejected.key.to_string(),
            node: None,
            subnets: rejected.key.subnets().iter().collect(),
            public_ips: Vec::new(),
            vtep_macs: Vec::new(),
            backend: None,
            kind: None,
            expires_seconds: None,
            state: "refused",
            reason: Some(rejected.reason.clone()),
        }));
        entries.sort_by(|a, b| a.subnets.cmp(&b.subnets));
        Ok(Self { source: known.source, age_seconds: known.age_seconds, leases: entries })
    }
}

/// In how many seconds it ends; nothing for a reservation, and where etcd does not say.
async fn expiration(known: &Known, lease: &Lease) -> Option<u64> {
    let left = known.registry.as_ref()?.time_to_live(lease.term?).await.ok()?;
    Some(left.unwrap_or_default().as_secs())
}

impl Entry {
    fn of(
        source: Source,
        lease: &Lease,
        expires_seconds: Option<u64>,
        own: Option<Ipv4Network>,
        table: Option<&PeerTable>,
    ) -> Self {
        let key = lease::Key::Subnet(lease.key());
        let refusal = table.and_then(|table| table.refused().find(|(refused, _)| **refused == key));
        let state = match (refusal, table) {
            _ if own.is_some() && own == lease.subnets.v4 => "ours",
            (Some(_), _) => "refused",
            (None, Some(_)) => "accepted",
            (None, None) => "unknown",
        };
        let kind = match (source, lease.term) {
            (Source::StateFile, _) => None,
            (Source::Kubernetes, _) => Some("node"),
            (Source::Etcd, Some(_)) => Some("lease"),
            (Source::Etcd, None) => Some("reservation"),
        };
        let mac = |data: &Data| data.value()["VtepMAC"].as_str().map(str::to_owned);
        Self {
            key: key.to_string(),
            node: None,
            subnets: lease.subnets.iter().collect(),
            public_ips: lease.attributes.public.iter().collect(),
            vtep_macs: lease.attributes.backend_data.values().filter_map(mac).collect(),
            backend: lease.attributes.backend_type.clone(),
            kind,
            expires_seconds,
            state,
            reason: refusal.filter(|_| state == "refused").map(|(_, refusal)| refusal.to_string()),
        }
    }

    /// When it ends, for people.
    fn expiration(&self) -> String {
        match (self.kind, self.expires_seconds) {
            (Some("reservation"), _) => "never".to_owned(),
            (_, Some(seconds)) => format!("in {}", units::duration(seconds)),
            _ => "-".to_owned(),
        }
    }
}

/// Both families in one word, as Kubernetes writes them.
fn joined(words: &[impl ToString]) -> Option<String> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    (!words.is_empty()).then(|| words.join(","))
}

impl Row for Entry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::words(
            "subnet",
            "SUBNET",
            |entry| cell(joined(&entry.subnets).unwrap_or_else(|| entry.key.clone())),
            |entry| Key::of(entry.subnets.first(), |subnet| Key::Subnet(*subnet)),
        ),
        Column::words(
            "public-ip",
            "PUBLIC IP",
            |entry| or_dash(joined(&entry.public_ips)),
            |entry| Key::of(entry.public_ips.first(), |address| Key::Address(*address)),
        ),
        Column::words(
            "backend",
            "BACKEND",
            |entry| or_dash(entry.backend.as_ref()),
            |entry| Key::of(entry.backend.as_ref(), Key::text),
        ),
        Column::words(
            "expires",
            "EXPIRES",
            |entry| cell(entry.expiration()),
            |entry| Key::of(entry.expires_seconds, Key::Seconds),
        ),
        Column::words(
            "node",
            "NODE",
            |entry: &Self| or_dash(entry.node.as_ref()),
            |entry: &Self| Key::of(entry.node.as_ref(), Key::text),
        )
        .where_there_is_one(),
        Column::words(
            "state",
            "STATE",
            |entry| {
                let tone = match entry.state {
                    "refused" => Tone::Bad,
                    "unknown" => Tone::Aside,
                    _ => Tone::Good,
                };
                toned(tone, entry.state)
            },
            |entry| Key::text(entry.state),
        ),
        Column::explanation(|entry| cell(entry.reason.as_deref().unwrap_or_default())),
    ];
}

impl Report for Leases {
    fn show(&self, page: &mut Page) {
        page.line(format!("from {}", self.source.text(self.age_seconds).trim_end_matches(',')));
        page.table(&self.leases);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use flannel_model::family::PerFamily;
    use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision};
    use ipnetwork::{IpNetwork, Ipv4Network};
    use serde_json::json;

    use super::{Entry, Leases, Source};
    use crate::output::Report as _;

    fn lease(subnet: &str, term: i64) -> Lease {
        Lease {
            subnets: subnet.parse::<Ipv4Network>().unwrap().into(),
            attributes: Attributes {
                public: Ipv4Addr::new(192, 168, 77, 12).into(),
                backend_type: Some("vxlan".to_owned()),
                backend_data: PerFamily::only_v4((&json!({"VNI": 1, "VtepMAC": "02:00:00:00:00:02"})).into()),
            },
            mod_revision: Revision::new(1),
            created: Revision::new(1),
            term: EtcdLeaseId::from_id(term),
        }
    }

    fn leases() -> Leases {
        let own = Some("10.5.1.0/24".parse().unwrap());
        let entry = |lease: &Lease, left| Entry::of(Source::Etcd, lease, left, own, None);
        let mut refused = entry(&lease("10.5.3.0/24", 0), None);
        (refused.state, refused.reason) =
            ("refused", Some("PublicIP 0.0.0.0 is no host's address".to_owned()));
        Leases {
            source: Source::Etcd,
            age_seconds: None,
            leases: vec![
                entry(&lease("10.5.1.0/24", 7), Some(86_000)),
                entry(&lease("10.5.2.0/24", 0), None),
                refused,
            ],
        }
    }

    #[test]
    fn table() {
        assert_eq!(
            leases().text(),
            "from etcd
 SUBNET       PUBLIC IP      BACKEND  EXPIRES  STATE
 10.5.1.0/24  192.168.77.12  vxlan    in 23 h  ours
 10.5.2.0/24  192.168.77.12  vxlan    never    unknown
 10.5.3.0/24  192.168.77.12  vxlan    never    refused  PublicIP 0.0.0.0 is no host's address
"
        );
    }

    #[test]
    fn both_families_of_a_lease_are_shown() {
        let mut both = lease("10.5.4.0/24", 7);
        both.subnets.v6 = Some("fd00:5:4::/64".parse().unwrap());
        both.attributes.public.v6 = Some("2001:db8::12".parse().unwrap());
        both.attributes.backend_data.v6 = Some((&json!({"VNI": 1, "VtepMAC": "02:00:00:00:00:06"})).into());
        let mut alone = lease("10.5.4.0/24", 7);
        alone.subnets = "fd00:5:5::/64".parse::<IpNetwork>().unwrap().into();
        alone.attributes.public = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x13]).into();
        alone.attributes.backend_data = PerFamily::NONE;
        let entry = |lease: &Lease| Entry::of(Source::Etcd, lease, Some(60), None, None);
        let leases =
            Leases { source: Source::Etcd, age_seconds: None, leases: vec![entry(&both), entry(&alone)] };
        assert_eq!(
            leases.text(),
            "from etcd
 SUBNET                     PUBLIC IP                   BACKEND  EXPIRES  STATE
 10.5.4.0/24,fd00:5:4::/64  192.168.77.12,2001:db8::12  vxlan    in 60 s  unknown
 fd00:5:5::/64              2001:db8::13                vxlan    in 60 s  unknown
"
        );
        let value = serde_json::to_value(&leases).unwrap();
        let [first, second] = [0, 1].map(|lease| &value["leases"][lease]);
        assert_eq!(first["subnets"], json!(["10.5.4.0/24", "fd00:5:4::/64"]));
        assert_eq!(first["vtep_macs"], json!(["02:00:00:00:00:02", "02:00:00:00:00:06"]));
        assert_eq!(second["public_ips"], json!(["2001:db8::13"]));
        assert_eq!(second["vtep_macs"], json!([]));
    }

    #[test]
    fn json_of_a_lease() {
        let value = serde_json::to_value(leases()).unwrap();
        assert_eq!((&value["source"], &value["age_seconds"]), (&json!("etcd"), &json!(null)));
        assert_eq!(
            value["leases"][0],
            json!({
                "key": "10.5.1.0-24", "node": null, "subnets": ["10.5.1.0/24"], "public_ips": ["192.168.77.12"],
                "vtep_macs": ["02:00:00:00:00:02"], "backend": "vxlan", "kind": "lease", "expires_seconds": 86000, "state": "ours",
                "reason": null,
            })
        );
    }
}
