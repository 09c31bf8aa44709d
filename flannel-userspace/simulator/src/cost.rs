//! What a change of one lease costs a host with many peers. It must not cost more because something fails: where every
//! event has all peers looked at, one route that cannot be put has a host fall behind a busy registry.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_common::Mac;
use flannel_model::family::PerFamily;
use flannel_model::lease::{Attributes, SubnetKey};
use flannel_model::object::Object;
use ipnetwork::Ipv4Network;
use nix::time::{ClockId, clock_gettime};
use tokio::time::sleep;

use crate::host::{Host, Plan};
use crate::kernel::{Machine, underlay};
use crate::registry::Cluster;

/// How many peers the host has.
const PEERS: u32 = 10_000;
/// How many leases change in one round.
const EVENTS: u32 = 200;
/// Pause between two changes. A round is over before everything is compared again.
const PAUSE: Duration = Duration::from_millis(3);
/// How often each is measured; the machine may do much else.
const ROUNDS: usize = 3;
/// How many times as much an event may cost. A look at all peers is ten times as much and more.
const MOST: f64 = 4.0;

/// Measures it.
///
/// # Errors
/// An event costs more because one object cannot be put.
pub async fn check() -> Result<()> {
    let cluster = Cluster::default();
    for number in 0..PEERS {
        cluster.put(key(number)?, &lease(number, 0));
    }
    cluster.put_config(r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#);
    let plan = Plan { network: "10.0.0.0/8".parse()?, subnet_len: 24 };
    let machine = Machine::new(underlay(0, 0), 1);
    let mut host = Host::new(0, machine.clone(), &cluster, plan, 1);
    host.start();
    sleep(Duration::from_secs(30)).await;
    let well = cheapest_round(&cluster).await?;
    let is_route = |object: &Object| matches!(object, Object::Route { .. });
    let route = machine.objects().into_iter().rfind(is_route).context("there are no routes")?;
    machine.refuse(route.clone());
    machine.remove(&route);
    sleep(Duration::from_secs(15)).await;
    let failing = cheapest_round(&cluster).await?;
    let times = failing.as_secs_f64() / well.as_secs_f64();
    tracing::info!(?well, ?failing, times, "{EVENTS} changes of {PEERS} leases");
    ensure!(
        times < MOST,
        "{EVENTS} changes of {PEERS} leases take {well:?}, and {failing:?} while one route cannot be put"
    );
    Ok(())
}

/// The time of this thread that changes of some leases take.
async fn cheapest_round(cluster: &Cluster) -> Result<Duration> {
    let mut cheapest = Duration::MAX;
    for round in 1..=ROUNDS {
        let since = cpu_time()?;
        for number in 0..EVENTS {
            cluster.put(key(number)?, &lease(number, u8::try_from(round)?));
            sleep(PAUSE).await;
        }
        cheapest = cheapest.min(cpu_time()? - since);
    }
    Ok(cheapest)
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn key(number: u32) -> Result<SubnetKey> {
    let first = Ipv4Addr::new(10, 1, 0, 0).to_bits();
    Ok(SubnetKey(Ipv4Network::new(Ipv4Addr::from_bits(first + (number << 8)), 24)?.into()))
}

/// What a host says of itself that has moved so many times.
fn lease(number: u32, moves: u8) -> Attributes {
    let [_, _, high, low] = number.to_be_bytes();
    let mac = Mac([2, moves, 0, 0, high, low]).to_string();
    Attributes {
        public: Ipv4Addr::new(172, 16 + moves, high, low.max(1)).into(),
        backend_type: Some("vxlan".to_owned()),
        backend_data: PerFamily::only_v4((&serde_json::json!({ "VNI": 1, "VtepMAC": mac })).into()),
    }
}
