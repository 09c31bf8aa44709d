//! Acquiring leases, without any network.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use flannel_control::lease::{AcquireConfig, AcquireError, OwnLease, Pool, acquire};
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::lease::Attributes;
use flannel_registry::etcd::{Etcd as Registry, Options};
use flannel_tests::etcd::Etcd;
use flannel_tests::wait;
use ipnetwork::Ipv4Network;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rstest::rstest;
use tokio::task::JoinSet;

const PREFIX: &str = "/coreos.com/network";
const TTL: Duration = Duration::from_secs(86_400);
/// For so long hosts that start at once may take to get their leases.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many hosts share one connection to etcd.
const HOSTS_PER_CONNECTION: usize = 20;

/// A host that wants a lease.
#[derive(Clone, Copy)]
struct Applicant {
    public_ip: Ipv4Addr,
    /// The first and the last subnet to choose from, by their numbers.
    pool: (u16, u16),
    previous: Option<u16>,
}

impl Applicant {
    fn new(number: u16) -> Self {
        let public_ip = Ipv4Addr::from_bits(0xc0a8_4d00 + u32::from(number));
        Self { public_ip, pool: (1, 255), previous: None }
    }

    async fn acquire(self, etcd: &Etcd) -> Result<OwnLease, AcquireError> {
        self.acquire_by(&registry(etcd)).await
    }

    async fn acquire_by(self, registry: &Registry) -> Result<OwnLease, AcquireError> {
        let pool = Pool::new(subnet(self.pool.0).into(), subnet(self.pool.1).into(), 24).unwrap();
        let config = AcquireConfig {
            former_term: None,
            pools: PerFamily::only_v4(pool),
            attributes: Attributes::new(self.public_ip.into()),
            previous: Subnets {
                v4: self.previous.map(|number| Ipv4Network::new(subnet(number), 24).unwrap()),
                v6: None,
            },
            ttl: TTL,
        };
        let mut rng = StdRng::seed_from_u64(self.public_ip.to_bits().into());
        acquire(registry, &config, &mut rng).await
    }
}

fn registry(etcd: &Etcd) -> Registry {
    let options = Options { endpoints: vec![etcd.url()], prefix: PREFIX.to_owned(), ..Options::default() };
    Registry::new(options).unwrap()
}

/// First address of the subnet of that number: 10.5.1.0 of the first, 10.6.0.0 of the 256th.
fn subnet(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a05_0000 + (u32::from(number) << 8))
}

fn key(third: u8) -> String {
    format!("{PREFIX}/subnets/10.5.{third}.0-24")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[rstest]
#[case::two_of_two(2, 2)]
#[case::twenty(20, 255)]
#[case::sixty_of_sixty(60, 60)]
#[case::five_hundred_of_five_hundred(500, 500)]
fn hosts_that_start_at_once_get_distinct_subnets(#[case] hosts: u16, #[case] subnets: u16) {
    let etcd = Etcd::on_loopback(&format!("at-once-{hosts}")).unwrap();
    let (since, subnets): (Instant, BTreeSet<Subnets>) = block_on(async {
        let numbers: Vec<u16> = (1..=hosts).collect();
        let connections = numbers.chunks(HOSTS_PER_CONNECTION).map(|numbers| (registry(&etcd), numbers));
        let mut applicants = JoinSet::new();
        for (registry, numbers) in connections {
            for number in numbers {
                let (applicant, registry) = (Applicant::new(*number), registry.clone());
                let applicant = Applicant { pool: (1, subnets), ..applicant };
                applicants.spawn(async move { applicant.acquire_by(&registry).await });
            }
        }
        let since = Instant::now();
        let acquired = applicants.join_all().await;
        (since, acquired.into_iter().map(|own| own.unwrap().lease.subnets).collect())
    });
    let took = since.elapsed();
    println!("{hosts} hosts have their leases after {} ms", took.as_millis());
    assert!(took < wait::stretched(PATIENCE), "{took:?}");
    assert_eq!(subnets.len(), usize::from(hosts));
    assert_eq!(etcd.list(&format!("{PREFIX}/subnets/")).unwrap().len(), usize::from(hosts));
}

#[test]
fn lease_lasts_a_day_and_is_reused_by_its_host() {
    let etcd = Etcd::on_loopback("reused").unwrap();
    block_on(async {
        let first = Applicant::new(11).acquire(&etcd).await.unwrap();
        let again = Applicant::new(11).acquire(&etcd).await.unwrap();
        assert_eq!((first.lease.subnets, first.reused, again.reused), (again.lease.subnets, false, true));
        let other = Applicant::new(12).acquire(&etcd).await.unwrap();
        assert_ne!(other.lease.subnets, first.lease.subnets);
        let term = again.lease.term.unwrap();
        let told = etcd.ctl(&["lease", "timetolive", &format!("{:x}", term.id())]).unwrap();
        assert!(told.contains("granted with TTL(86400s)"), "{told}");
    });
}

#[test]
fn previous_subnet_is_taken_if_nobody_else_has_it() {
    let etcd = Etcd::on_loopback("previous").unwrap();
    block_on(async {
        let own = Applicant { previous: Some(77), ..Applicant::new(11) }.acquire(&etcd).await.unwrap();
        assert_eq!(own.lease.subnets.to_string(), "10.5.77.0/24");
        let own = Applicant { previous: Some(77), ..Applicant::new(12) }.acquire(&etcd).await.unwrap();
        assert_ne!(own.lease.subnets.to_string(), "10.5.77.0/24");
        let outside = Applicant { previous: Some(77), pool: (1, 9), ..Applicant::new(13) };
        assert!(
            outside.acquire(&etcd).await.unwrap().lease.subnets.v4.unwrap().ip()
                < Ipv4Addr::new(10, 5, 10, 0)
        );
    });
}

#[test]
fn exhausted_range_is_told_and_nobody_else_suffers() {
    let etcd = Etcd::on_loopback("exhausted").unwrap();
    block_on(async {
        for number in 1..=4 {
            Applicant { pool: (1, 4), ..Applicant::new(number) }.acquire(&etcd).await.unwrap();
        }
        let before = etcd.list(PREFIX).unwrap();
        let error = Applicant { pool: (1, 4), ..Applicant::new(5) }.acquire(&etcd).await.unwrap_err();
        assert!(matches!(error, AcquireError::OutOfSubnets(_)), "{error}");
        assert!(error.to_string().starts_with("out of subnets"), "{error}");
        assert_eq!(etcd.list(PREFIX).unwrap(), before);
    });
}

#[test]
fn subnets_that_overlap_a_lease_or_a_foreign_key_are_not_chosen() {
    let etcd = Etcd::on_loopback("overlap").unwrap();
    etcd.put(&format!("{PREFIX}/subnets/10.5.0.0-22"), r#"{"PublicIP":"192.0.2.1"}"#).unwrap();
    etcd.put(&key(5), "no lease at all").unwrap();
    block_on(async {
        let own = Applicant { pool: (1, 6), ..Applicant::new(1) }.acquire(&etcd).await.unwrap();
        let other = Applicant { pool: (1, 6), ..Applicant::new(2) }.acquire(&etcd).await.unwrap();
        let subnets = BTreeSet::from([own.lease.subnets.to_string(), other.lease.subnets.to_string()]);
        assert_eq!(subnets, BTreeSet::from(["10.5.4.0/24".to_owned(), "10.5.6.0/24".to_owned()]));
    });
}

#[test]
fn reservation_stays_one() {
    let etcd = Etcd::on_loopback("reservation").unwrap();
    etcd.put(&key(42), r#"{"PublicIP":"192.168.77.11"}"#).unwrap();
    block_on(async {
        let own = Applicant::new(11).acquire(&etcd).await.unwrap();
        assert_eq!((own.lease.subnets.to_string().as_str(), own.lease.term), ("10.5.42.0/24", None));
    });
    let entry = etcd.get(&key(42)).unwrap();
    assert_eq!((entry.lease, entry.value.as_str()), (0, r#"{"PublicIP":"192.168.77.11","PublicIPv6":null}"#));
}
