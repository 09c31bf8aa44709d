//! A network of hosts with random events.

mod checks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use flannel_common::Mac;
use flannel_control::backend::{self, attributes};
use flannel_control::chance;
use flannel_model::backend::Kind;
use flannel_model::config::{BackendConfig, Configuration};
use flannel_model::device::Device;
use flannel_model::family::{Family, PerFamily};
use flannel_model::lease::{Lease, SubnetKey};
use flannel_model::object::Object;
use flannel_model::underlay::{Links, Underlay};
use ipnetwork::Ipv4Network;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::sleep;

use crate::host::{Host, Plan};
use crate::kernel::{Machine, Refusal, underlay};
use crate::registry::{Cluster, Saved};

/// After this long no earlier event may show any more: an etcd lease, a held mass deletion, a listing.
const QUIET: Duration = Duration::from_secs(240);
/// The most etcd leases of one daemon: of its lease, of its claim, and of requests that were refused or interrupted.
const MOST_TERMS: usize = 8;

/// What the operator wants of the backend.
struct Wish {
    kind: Kind,
    direct_routing: bool,
    mtu: Option<u32>,
    /// Network identifier and UDP port, with the vxlan backend.
    format: (u32, u16),
}

impl Wish {
    /// The network's configuration.
    fn text(&self) -> String {
        let Self { kind, direct_routing, mtu, format: (vni, port) } = *self;
        let mut backend = json!({ "Type": kind.name(), "DirectRouting": direct_routing });
        if let Some(mtu) = mtu {
            backend["MTU"] = mtu.into();
        }
        if kind == Kind::Vxlan {
            (backend["VNI"], backend["Port"]) = (vni.into(), port.into());
        }
        json!({ "Network": "10.5.0.0/16", "Backend": backend }).to_string()
    }

    #[expect(clippy::expect_used, reason = "the text is one of ours")]
    fn backend(&self) -> BackendConfig {
        Configuration::parse(self.text()).expect("a configuration").backend
    }
}

/// A network and everything that happens to it.
pub struct World {
    dice: StdRng,
    cluster: Cluster,
    plan: Plan,
    wish: Wish,
    hosts: Vec<Host>,
    saved: Option<Saved>,
    /// How often each host's underlay was given another address.
    moves: BTreeMap<usize, u8>,
    /// Subnets of hosts that only have a lease.
    foreign: BTreeSet<SubnetKey>,
    log: Vec<String>,
}

impl World {
    /// From 3 to 50 hosts, none of which has started.
    pub fn new(seed: u64) -> Self {
        chance::seed(seed);
        let mut dice = StdRng::seed_from_u64(seed);
        let direct_routing = dice.random();
        let kind = match dice.random_range(0..4) {
            0 => Kind::HostGw,
            1 => Kind::Udp,
            _ => Kind::Vxlan,
        };
        let wish = Wish { kind, direct_routing, mtu: None, format: (1, 8472) };
        #[expect(clippy::expect_used, reason = "a constant")]
        let network = Ipv4Network::new(Ipv4Addr::new(10, 5, 0, 0), 16).expect("a network");
        let plan = Plan { network, subnet_len: 24 };
        let cluster = Cluster::default();
        cluster.put_config(&wish.text());
        // Few hosts are the usual case, and quick: what a network costs grows with the square of its hosts.
        let count =
            if dice.random_ratio(1, 80) { dice.random_range(10..=50) } else { dice.random_range(3..10) };
        let hosts = (0..count).map(|number| {
            let machine = Machine::new(underlay(number, 0), dice.random());
            Host::new(number, machine, &cluster, plan.clone(), dice.random())
        });
        let hosts = hosts.collect();
        let (moves, foreign) = (BTreeMap::new(), BTreeSet::new());
        Self { dice, cluster, plan, wish, hosts, saved: None, moves, foreign, log: Vec::new() }
    }

    /// Runs this number of events, and checks what must hold afterwards.
    ///
    /// # Errors
    /// It is not so.
    pub async fn run(&mut self, steps: usize) -> Result<()> {
        tokio::spawn(self.cluster.clone().run());
        self.hosts.iter_mut().for_each(Host::start);
        for step in 0..steps {
            let what = self.happen().await?;
            tracing::info!(step, "{what}");
            self.log.push(format!("{step}: {what}"));
            let pause = self.dice.random_range(0..800);
            sleep(Duration::from_millis(pause)).await;
            self.check_always()?;
        }
        self.heal();
        sleep(QUIET).await;
        self.check()
    }

    /// What happened, the last first.
    pub fn log(&self) -> impl Iterator<Item = &String> {
        self.log.iter().rev()
    }

    fn some_host(&mut self) -> usize {
        self.dice.random_range(0..self.hosts.len())
    }

    fn some_subnet(&mut self) -> SubnetKey {
        let third = self.dice.random_range(1..=255);
        #[expect(clippy::expect_used, reason = "24 is a length")]
        SubnetKey(Ipv4Network::new(Ipv4Addr::new(10, 5, third, 0), 24).expect("a subnet").into())
    }

    /// One random event.
    async fn happen(&mut self) -> Result<String> {
        let host = self.some_host();
        Ok(match self.dice.random_range(0..31) {
            0 => self.move_underlay(host),
            1 => {
                self.hosts[host].machine.set_underlay(None);
                format!("host {host} loses its address")
            }
            2 | 3 => self.return_underlay(host),
            4 => {
                self.hosts[host].machine.delete_device();
                format!("the device of host {host} is deleted")
            }
            5 => {
                self.hosts[host].machine.detach();
                format!("the programs of host {host} are detached")
            }
            6 | 7 => {
                let choice = self.dice.random_range(0..1000);
                let object = self.hosts[host].machine.remove_any(choice);
                format!("host {host} loses {object:?}")
            }
            8 => self.add_stale(host),
            9 | 10 => self.write_foreign(),
            11 => self.write_junk(host),
            12 => self.delete_lease(host),
            13 => self.take_lease(host),
            14 => {
                self.cluster.set_away(host, true);
                format!("host {host} cannot reach the registry")
            }
            15 | 16 => {
                (0..self.hosts.len()).for_each(|host| self.cluster.set_away(host, false));
                "every host can reach the registry".to_owned()
            }
            17 => {
                self.cluster.compact();
                "the history is compacted".to_owned()
            }
            18 => {
                self.cluster.break_watches();
                "every watch breaks".to_owned()
            }
            19 => {
                self.cluster.set_restless(true);
                sleep(Duration::from_secs(5)).await;
                self.cluster.set_restless(false);
                "watches ended at once for five seconds".to_owned()
            }
            20 => {
                let is_flaky = self.dice.random();
                self.cluster.set_flaky(is_flaky);
                format!("answers are lost: {is_flaky}")
            }
            21 => self.save_or_restore(),
            22 | 23 => {
                let refusal = [Refusal::None, Refusal::Some, Refusal::Devices, Refusal::Programs];
                let refusal = refusal[self.dice.random_range(0..refusal.len())];
                self.hosts[host].machine.set_refusal(refusal);
                format!("the kernel of host {host} refuses: {refusal:?}")
            }
            24 => {
                self.hosts[host].start();
                format!("the daemon of host {host} is killed and started")
            }
            25 => self.restart(host).await?,
            26 => {
                self.hosts[host].stop();
                format!("the daemon of host {host} is killed")
            }
            27 => self.overwrite(host).await?,
            28 => self.fail_a_task(host).await?,
            29 => self.reconfigure(),
            _ if self.dice.random_ratio(1, 2) => self.contend(host).await?,
            _ => self.stay_ill(host).await?,
        })
    }

    /// Somebody changes the network's configuration in what takes effect at once, or spoils it.
    fn reconfigure(&mut self) -> String {
        let text = match self.dice.random_range(0..6) {
            0 => "{".to_owned(),
            1 => {
                self.wish.mtu = [None, Some(1400), Some(1300)][self.dice.random_range(0..3)];
                self.wish.text()
            }
            // Also sooner than every host can follow, and back. Never a third one: that waits until every host has left
            // the first, and hosts that have come to different pairs meanwhile wait for one another.
            2 | 3 => {
                self.wish.format = [(1, 8472), (2, 4789)][self.dice.random_range(0..2)];
                self.wish.text()
            }
            _ => {
                self.wish.direct_routing = !self.wish.direct_routing;
                self.wish.text()
            }
        };
        self.cluster.put_config(&text);
        format!("the configuration is {text}")
    }

    fn move_underlay(&mut self, host: usize) -> String {
        let moves = self.moves.entry(host).or_default();
        *moves = (*moves + 1) % 100;
        let underlay = underlay(host, *moves);
        let address = underlay.addresses;
        self.hosts[host].machine.set_underlay(Some(underlay));
        format!("host {host} has the address {address}")
    }

    fn return_underlay(&self, host: usize) -> String {
        if self.hosts[host].machine.underlay().is_none() {
            let moves = self.moves.get(&host).copied().unwrap_or_default();
            self.hosts[host].machine.set_underlay(Some(underlay(host, moves)));
        }
        format!("host {host} has an address")
    }

    fn add_stale(&mut self, host: usize) -> String {
        let key = self.some_subnet();
        let links = self.hosts[host].machine.links();
        for subnet in key.0.iter() {
            if let Some(device) = links.as_ref().and_then(|links| links.device_index(subnet.into())) {
                let route = Object::Route { subnet, via: Some(subnet.network()), device, onlink: true };
                self.hosts[host].machine.add(route);
            }
        }
        format!("host {host} has a route to {key} that nobody wants")
    }

    /// A host of another make comes, or goes.
    fn write_foreign(&mut self) -> String {
        let subnet = self.some_subnet();
        if self.foreign.remove(&subnet) {
            self.cluster.remove(subnet);
            return format!("the foreign host of {subnet} goes");
        }
        if self.cluster.lease(subnet).is_some() || self.is_someones(subnet) {
            return format!("{subnet} is taken");
        }
        self.foreign.insert(subnet);
        self.cluster.put(subnet, &self.foreign_lease(subnet));
        format!("a foreign host has {subnet}")
    }

    fn is_someones(&self, subnet: SubnetKey) -> bool {
        self.hosts.iter().any(|host| host.status().key == Some(subnet))
    }

    fn foreign_lease(&self, key: SubnetKey) -> flannel_model::lease::Attributes {
        let backend = backend::of(&self.wish.backend());
        let third = key.0.v4.map_or(0, |subnet| subnet.network().octets()[2]);
        let address = Ipv4Addr::new(172, 16, third, 1).into();
        let underlay = Underlay { addresses: address, public: address, ..underlay(0, 0) };
        let mac = Mac([2, 1, 0, 0, 0, third]);
        let device = backend.device(&underlay, Family::V4).map(|spec| Device {
            name: spec.name(),
            index: 1,
            mac,
            mtu: spec.mtu(),
            segmenter: None,
        });
        attributes(
            &*backend,
            &Links { underlay, devices: PerFamily { v4: device, v6: None }, former: PerFamily::NONE },
        )
    }

    fn write_junk(&mut self, host: usize) -> String {
        let own = self.hosts[host].status().key.filter(|_| self.dice.random());
        let subnet = own.unwrap_or_else(|| self.some_subnet());
        self.foreign.remove(&subnet);
        self.cluster.put_junk(subnet);
        format!("junk is written to {subnet}")
    }

    fn delete_lease(&self, host: usize) -> String {
        match self.hosts[host].status().key {
            Some(subnet) => {
                self.cluster.remove(subnet);
                format!("the lease of host {host} is deleted")
            }
            None => format!("host {host} has no lease"),
        }
    }

    /// A foreign host takes the subnet of one of ours.
    fn take_lease(&mut self, host: usize) -> String {
        match self.hosts[host].status().key {
            Some(subnet) if self.dice.random_ratio(1, 4) => {
                self.foreign.insert(subnet);
                self.cluster.put(subnet, &self.foreign_lease(subnet));
                format!("a foreign host takes {subnet} from host {host}")
            }
            _ => format!("host {host} keeps what it has"),
        }
    }

    fn save_or_restore(&mut self) -> String {
        match self.saved.take() {
            Some(saved) => {
                self.cluster.restore(saved);
                // Those that came since are gone, and those that went are back.
                let leases = self.cluster.snapshot().leases;
                let foreign = leases.iter().filter(|lease| {
                    lease.attributes.public.v4.is_some_and(|address| address.octets()[0] == 172)
                });
                self.foreign = foreign.map(Lease::key).collect();
                "the registry is restored".to_owned()
            }
            None => {
                self.saved = Some(self.cluster.save());
                "the registry is saved".to_owned()
            }
        }
    }

    /// A daemon that is started again takes over what is there: nothing that is wanted is removed.
    async fn restart(&mut self, host: usize) -> Result<String> {
        let machine = self.hosts[host].machine.clone();
        let is_clear = self.each_host_has_its_lease();
        machine.take_removed();
        self.hosts[host].start();
        sleep(Duration::from_secs(3)).await;
        let objects = machine.objects();
        let lost = machine.take_removed().into_iter().find(|object| objects.contains(object));
        let is_clear = is_clear && self.each_host_has_its_lease();
        ensure!(lost.is_none() || !is_clear, "host {host} removed {lost:?} at its start and put it back");
        Ok(format!("the daemon of host {host} is killed and started, and takes over"))
    }

    /// Whether the registry is as everybody wants it: which of two leases of one host is accepted depends on which was
    /// known first, and what vanishes from it is rightly removed.
    fn each_host_has_its_lease(&self) -> bool {
        let leases = self.cluster.snapshot().leases;
        let addresses: BTreeSet<Option<IpAddr>> =
            leases.iter().map(|lease| lease.attributes.public.first()).collect();
        let is_leased = |host: &Host| {
            let lease = host.status().key.and_then(|subnet| self.cluster.lease(subnet));
            let underlay = host.machine.underlay();
            let address = underlay.and_then(|underlay| underlay.public.first());
            lease.is_some_and(|lease| lease.attributes.public.first() == address)
        };
        addresses.len() == leases.len() && self.hosts.iter().all(is_leased)
    }

    /// Somebody writes over a host's lease again and again.
    async fn overwrite(&mut self, host: usize) -> Result<String> {
        for _ in 0..20 {
            if let Some(subnet) = self.hosts[host].status().key.filter(|_| self.hosts[host].runs()) {
                self.cluster.put_junk(subnet);
            }
            sleep(Duration::from_millis(600)).await;
        }
        let terms = self.cluster.terms(host).unwrap_or_default();
        ensure!(terms <= MOST_TERMS, "{terms} terms of host {host} have not ended");
        Ok(format!("the lease of host {host} was overwritten twenty times"))
    }

    /// A task of the daemon fails: then the daemon must end, for whatever starts it to start it again.
    async fn fail_a_task(&mut self, host: usize) -> Result<String> {
        let is_serving =
            |host: &Host| host.status().conditions.is_some_and(|conditions| conditions.pending().is_empty());
        if !is_serving(&self.hosts[host]) {
            return Ok(format!("host {host} is not served"));
        }
        let starts = self.hosts[host].status().starts;
        self.hosts[host].fail_a_task();
        sleep(Duration::from_secs(5)).await;
        ensure!(
            self.hosts[host].status().starts > starts,
            "a task of host {host} failed, and nobody noticed"
        );
        Ok(format!("a task of host {host} failed"))
    }

    /// Somebody else removes an object as fast as it is put back.
    async fn contend(&mut self, host: usize) -> Result<String> {
        let machine = self.hosts[host].machine.clone();
        let choice = self.dice.random_range(0..1000);
        let Some(object) = machine.remove_any(choice) else {
            return Ok(format!("host {host} has no object"));
        };
        let puts = machine.puts();
        for _ in 0..500 {
            sleep(Duration::from_millis(10)).await;
            machine.remove(&object);
        }
        let puts = machine.puts() - puts;
        ensure!(
            puts <= 400,
            "host {host} put {puts} objects in five seconds in which somebody removed {object:?}"
        );
        Ok(format!("somebody removed {object:?} of host {host} again and again"))
    }

    /// A host that cannot forward for long must say so, and must not when it can again.
    async fn stay_ill(&mut self, host: usize) -> Result<String> {
        if self.wish.kind == Kind::HostGw {
            return Ok("no device to miss".to_owned());
        }
        let is_ready =
            |host: &Host| host.status().conditions.map(|conditions| conditions.pending().is_empty());
        self.hosts[host].machine.set_refusal(Refusal::Devices);
        self.hosts[host].machine.delete_device();
        let starts = self.hosts[host].status().starts;
        sleep(Duration::from_secs(20)).await;
        let is_same = self.hosts[host].status().starts == starts;
        if is_same && is_ready(&self.hosts[host]) == Some(true) {
            bail!("host {host} has had no device for twenty seconds, and says that it is ready");
        }
        self.hosts[host].machine.set_refusal(Refusal::None);
        Ok(format!("host {host} had no device for twenty seconds"))
    }

    /// Nothing happens any more, and everything works.
    fn heal(&mut self) {
        self.cluster.set_flaky(false);
        self.cluster.remove_junk();
        self.cluster.put_config(&self.wish.text());
        // Those of another make go over when they are restarted.
        for subnet in &self.foreign {
            if self.cluster.lease(*subnet).is_some() {
                self.cluster.put(*subnet, &self.foreign_lease(*subnet));
            }
        }
        for host in 0..self.hosts.len() {
            self.cluster.set_away(host, false);
            self.return_underlay(host);
            self.hosts[host].machine.set_refusal(Refusal::None);
            if !self.hosts[host].runs() {
                self.hosts[host].start();
            }
        }
    }
}
