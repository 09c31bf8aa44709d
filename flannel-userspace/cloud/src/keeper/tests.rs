//! Many hosts and one cloud that counts, and what a table needs.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flannel_common::Mac;
use flannel_control::chance;
use flannel_control::cloud_metrics::CloudMetrics;
use flannel_control::lease::LeaseState;
use flannel_model::condition::CLOUD_ROUTES;
use flannel_model::family::Subnets;
use flannel_model::lease::Attributes;
use flannel_model::underlay::Underlay;
use flannel_observe::Conditions;
use flannel_registry::memory::Memory as Registry;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use ipnetwork::IpNetwork;
use rstest::rstest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::judge::{Need, need, removable, unreachable_ranges};
use super::{Keeper, Memory, Reports};
use crate::{CloudError, Forwarding, Host, Route, RouteTables, Table, Target, Trouble, View};

/// What EC2 documents: tokens at first, and how many come back each second.
const READS: (f64, f64) = (100.0, 20.0);
const CHANGES: (f64, f64) = (50.0, 5.0);

#[derive(Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

/// A cloud that throttles as EC2 does.
#[derive(Default)]
struct Cloud {
    routes: BTreeMap<IpNetwork, u32>,
    buckets: BTreeMap<&'static str, Bucket>,
    forwarding: BTreeMap<u32, bool>,
    calls: BTreeMap<&'static str, usize>,
    throttled: usize,
}

impl Cloud {
    fn call(&mut self, action: &'static str, (most, rate): (f64, f64)) -> Result<(), CloudError> {
        *self.calls.entry(action).or_default() += 1;
        let now = Instant::now();
        let bucket = self.buckets.entry(action).or_insert(Bucket { tokens: most, filled: now });
        bucket.tokens = (now - bucket.filled).as_secs_f64().mul_add(rate, bucket.tokens).min(most);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            self.throttled += 1;
            return Err(CloudError::new(Trouble::Throttled, action, "too many"));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

/// The cloud as one host sees it.
struct Seen {
    cloud: Arc<Mutex<Cloud>>,
    own: u32,
}

impl RouteTables for Seen {
    fn read<'a>(&'a mut self, _: &'a Host) -> BoxFuture<'a, Result<View, CloudError>> {
        async move {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.call("DescribeRouteTables", READS)?;
            cloud.call("DescribeNetworkInterfaces", READS)?;
            let may_forward = cloud.forwarding.get(&self.own).copied().unwrap_or(false);
            let target = |host: u32| {
                if host == self.own { Target::Own } else { Target::Host(format!("eni-{host}")) }
            };
            let routes =
                cloud.routes.iter().map(|(destination, host)| route(*destination, target(*host), false));
            let table = table(routes.collect());
            Ok(view(table, if may_forward { Forwarding::Allowed } else { Forwarding::Forbidden }))
        }
        .boxed()
    }

    fn put<'a>(
        &'a mut self,
        _: &'a Table,
        subnet: IpNetwork,
        _: Option<&'a Route>,
    ) -> BoxFuture<'a, Result<(), CloudError>> {
        async move {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.call("CreateRoute", CHANGES)?;
            cloud.routes.insert(subnet, self.own);
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a mut self, _: &'a Table, _: &'a Route) -> BoxFuture<'a, Result<(), CloudError>> {
        async { panic!("nothing is to be removed") }.boxed()
    }

    fn allow_forwarding(&mut self) -> BoxFuture<'_, Result<(), CloudError>> {
        async move {
            let mut cloud = self.cloud.lock().unwrap();
            cloud.call("ModifyNetworkInterfaceAttribute", CHANGES)?;
            cloud.forwarding.insert(self.own, true);
            Ok(())
        }
        .boxed()
    }
}

fn route(destination: IpNetwork, target: Target, is_dead: bool) -> Route {
    Route { destination, target, is_dead, is_flannels: true, id: None }
}

fn table(routes: Vec<Route>) -> Table {
    Table { id: "rtb-1".to_owned(), used: routes.len(), routes, limit: Some(2000) }
}

fn view(table: Table, forwarding: Forwarding) -> View {
    View {
        target: "eni-0".to_owned(),
        place: "vpc-1".to_owned(),
        ranges: vec!["172.31.0.0/16".parse().unwrap()],
        forwarding,
        tables: vec![table],
        trouble: None,
    }
}

fn underlay(host: u32) -> Underlay {
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(172, 31, 0, 0).to_bits() + host);
    Underlay {
        name: "eth0".to_owned(),
        index: 2,
        vrf: None,
        mtu: 9001,
        mac: Mac([2; 6]),
        addresses: address.into(),
        public: address.into(),
        networks: Vec::new(),
    }
}

/// Hosts that all begin now, whose subnets are leased; what tells whether each is ready.
fn begin(hosts: u32, cloud: &Arc<Mutex<Cloud>>) -> Vec<Conditions> {
    let registry = Registry::default();
    let leases: Vec<_> = (0..hosts)
        .map(|host| {
            let subnet = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + (host << 8));
            let attributes = Attributes {
                public: underlay(host).public,
                backend_type: None,
                backend_data: Default::default(),
            };
            registry.put(&format!("{subnet}/24"), &attributes, None)
        })
        .collect();
    let start = |(host, lease)| {
        let conditions = Conditions::default();
        let (reports, _) = Reports::new(conditions.add(CLOUD_ROUTES), &conditions, CloudMetrics::default());
        let keeper = Keeper {
            tables: Box::new(Seen { cloud: cloud.clone(), own: host }),
            leases: registry.clone(),
            networks: "10.0.0.0/8".parse::<IpNetwork>().unwrap().into(),
            cluster: "/coreos.com/network 10.5.0.0/16".to_owned(),
            lease: watch::channel(LeaseState { lease, expires: None, renewal: None }).1,
            underlay: watch::channel(underlay(host)).1,
            period: Duration::from_secs(300),
            reports,
            memory: Memory::default(),
        };
        tokio::spawn(keeper.run());
        conditions
    };
    (0..).zip(leases).map(start).collect()
}

const HOSTS: u32 = 1000;

#[tokio::test(start_paused = true)]
async fn a_thousand_new_hosts_stay_below_what_ec2_allows() {
    chance::seed(7);
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    let hosts = begin(HOSTS, &cloud);
    sleep(Duration::from_secs(3600)).await;
    let cloud = cloud.lock().unwrap();
    println!("{:?}, {} throttled", cloud.calls, cloud.throttled);
    assert_eq!(cloud.throttled, 0, "{:?}", cloud.calls);
    assert!(hosts.iter().all(|conditions| conditions.pending().is_empty()));
    assert_eq!((cloud.routes.len(), cloud.calls["CreateRoute"]), (1000, 1000));
    // A look at the start, one to confirm, and then one each five minutes.
    assert!((12_000..16_000).contains(&cloud.calls["DescribeRouteTables"]), "{:?}", cloud.calls);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_hosts_that_start_again_are_ready_within_a_minute() {
    chance::seed(7);
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    for host in 0..HOSTS {
        let mut cloud = cloud.lock().unwrap();
        let subnet = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + (host << 8));
        cloud.routes.insert(IpNetwork::new(subnet.into(), 24).unwrap(), host);
        cloud.forwarding.insert(host, true);
    }
    let hosts = begin(HOSTS, &cloud);
    sleep(Duration::from_secs(60)).await;
    assert!(hosts.iter().all(|conditions| conditions.pending().is_empty()));
    let cloud = cloud.lock().unwrap();
    assert_eq!((cloud.throttled, cloud.calls["DescribeRouteTables"]), (0, 1000));
    assert!(!cloud.calls.contains_key("CreateRoute"));
}

#[tokio::test(start_paused = true)]
async fn a_few_hosts_are_ready_at_once() {
    let cloud = Arc::new(Mutex::new(Cloud::default()));
    let hosts = begin(3, &cloud);
    sleep(Duration::from_secs(1)).await;
    assert!(hosts.iter().all(|conditions| conditions.pending().is_empty()));
}

fn subnet(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

#[rstest]
#[case::absent("10.5.2.0/24", Target::Own, false, Ok("put"))]
#[case::own("10.5.1.0/24", Target::Own, false, Ok("nothing"))]
#[case::own_that_is_dead("10.5.1.0/24", Target::Own, true, Ok("replace"))]
#[case::another_hosts("10.5.1.0/24", Target::Host("eni-2".to_owned()), false, Ok("replace"))]
#[case::a_dead_hosts("10.5.1.0/24", Target::Host("eni-2".to_owned()), true, Ok("replace"))]
#[case::a_gateways("10.5.1.0/24", Target::Other("tgw-1".to_owned()), false, Err("to tgw-1, which flanneld has not made"))]
#[case::of_ipv6("fd05:1::/64", Target::Own, false, Ok("put"))]
fn what_a_table_needs(
    #[case] present: &str,
    #[case] target: Target,
    #[case] is_dead: bool,
    #[case] expected: Result<&str, &str>,
) {
    let table = table(vec![route(subnet(present), target, is_dead)]);
    match (need(&table, subnet("10.5.1.0/24")), expected) {
        (Ok(need), Ok(name)) => {
            let is = match need {
                Need::Nothing => "nothing",
                Need::Put => "put",
                Need::Replace(_) => "replace",
            };
            assert_eq!(is, name);
        }
        (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{error}"),
        (other, _) => panic!("{other:?}"),
    }
}

#[test]
fn only_what_flannel_made_for_hosts_that_are_gone_is_removable() {
    let gone = || Target::Host("eni-9".to_owned());
    let mut of_somebody = route(subnet("10.5.9.0/24"), gone(), true);
    of_somebody.is_flannels = false;
    let routes = vec![
        route(subnet("10.5.1.0/24"), Target::Own, false),
        route(subnet("10.5.2.0/24"), gone(), true),
        route(subnet("10.5.3.0/24"), gone(), false),
        route(subnet("10.5.4.0/24"), Target::Own, false),
        route(subnet("10.5.5.0/25"), gone(), true),
        route(subnet("10.6.2.0/24"), gone(), true),
        route(subnet("10.5.6.0/24"), Target::Other("igw-1".to_owned()), true),
        route(subnet("fd05:2::/64"), gone(), true),
        of_somebody,
    ];
    let view = view(table(routes), Forwarding::Allowed);
    let (networks, own): (Subnets, Subnets) = (subnet("10.5.0.0/16").into(), subnet("10.5.1.0/24").into());
    let found: Vec<String> =
        removable(&view, &networks, &own).map(|(_, route)| route.destination.to_string()).collect();
    assert_eq!(found, ["10.5.2.0/24", "10.5.4.0/24"]);
}

#[rstest]
#[case::inside("172.31.128.0/20", false)]
#[case::around("172.16.0.0/12", false)]
#[case::beside("10.5.0.0/16", true)]
fn networks_of_the_cloud_itself_are_refused(#[case] network: &str, #[case] is_served: bool) {
    let view = view(table(Vec::new()), Forwarding::Allowed);
    let checked = unreachable_ranges(&view, &subnet(network).into());
    assert_eq!(checked.is_ok(), is_served, "{checked:?}");
}
