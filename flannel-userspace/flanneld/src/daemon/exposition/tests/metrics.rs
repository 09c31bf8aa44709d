use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flannel_common::Mac;
use flannel_control::Metrics;
use flannel_control::cloud_metrics::Repair;
use flannel_control::lease::LeaseState;
use flannel_control::peers::Refusal;
use flannel_control::reconcile::{PeerState, ResyncCause};
use flannel_model::lease::{Attributes, EtcdLeaseId, Lease, Revision};
use flannel_model::object::Object;
use flannel_observe::{Format, Vitals};
use flannel_registry::{EtcdOperation, KubernetesOperation, RegistryError, WatchError};
use ipnetwork::Ipv4Network;
use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::exposition;
use super::{no_files, value};

fn text(metrics: &Metrics) -> String {
    exposition(&Vitals::default(), metrics, None, no_files()).encode(Format::Prometheus).unwrap()
}

/// Moves one metric, and returns the series and its expected value.
pub(super) type Move = fn(&Metrics) -> Vec<(&'static str, f64)>;

const SECOND: Duration = Duration::from_secs(1);

/// Every metric of the daemon's own work.
pub(super) const MOVES: &[(&str, Move)] = &[
    ("peers", |metrics: &Metrics| {
        for (state, count) in PeerState::ALL.into_iter().zip(7..) {
            metrics.reconcile.set_peers(state, count);
        }
        vec![
            (r#"flannel_peers{state="programmed"}"#, 7.0),
            (r#"flannel_peers{state="failing"}"#, 8.0),
            (r#"flannel_peers{state="unreachable"}"#, 9.0),
            (r#"flannel_peers{state="held"}"#, 10.0),
            (r#"flannel_peers{state="refused"}"#, 11.0),
        ]
    }),
    ("rejected", |metrics: &Metrics| {
        metrics.leases.rejected(Refusal::NoHost(Ipv4Addr::LOCALHOST.into()).label());
        vec![(r#"flannel_lease_rejected_total{reason="no_host_address"}"#, 1.0)]
    }),
    ("conflicts", |metrics: &Metrics| {
        metrics.leases.conflict();
        vec![("flannel_lease_conflicts_total", 1.0)]
    }),
    ("configuration", |metrics: &Metrics| {
        metrics.configuration.serving("0123456789ab");
        metrics.configuration.serving("ba9876543210");
        metrics.configuration.set_stale(true);
        vec![(r#"flannel_config_info{hash="ba9876543210"}"#, 1.0), ("flannel_config_stale", 1.0)]
    }),
    ("cloud", |metrics: &Metrics| {
        metrics.cloud.called("CreateRoute");
        metrics.cloud.failed("CreateRoute", "throttled");
        metrics.cloud.repaired(Repair::Put);
        metrics.cloud.table("rtb-gone", 1, Some(1));
        metrics.cloud.forget_tables();
        metrics.cloud.table("rtb-1", 3, Some(500));
        metrics.cloud.settled(UNIX_EPOCH + SECOND);
        vec![
            (r#"flannel_cloud_api_calls_total{action="CreateRoute"}"#, 1.0),
            (r#"flannel_cloud_api_failures_total{action="CreateRoute",reason="throttled"}"#, 1.0),
            (r#"flannel_cloud_repairs_total{change="put"}"#, 1.0),
            (r#"flannel_cloud_routes{table="rtb-1"}"#, 3.0),
            (r#"flannel_cloud_routes_limit{table="rtb-1"}"#, 500.0),
            ("flannel_cloud_in_step_timestamp_seconds", 1.0),
        ]
    }),
    ("connected", |metrics: &Metrics| {
        metrics.etcd.set_connected(true);
        vec![("flannel_etcd_connected", 1.0)]
    }),
    ("away_again", |metrics: &Metrics| {
        metrics.etcd.set_connected(true);
        metrics.etcd.set_connected(false);
        vec![("flannel_etcd_connected", 0.0)]
    }),
    ("revision", |metrics: &Metrics| {
        metrics.etcd.applied(Revision::new(4711));
        vec![("flannel_etcd_applied_revision", 4711.0)]
    }),
    ("request", |metrics: &Metrics| {
        metrics.etcd.requested(EtcdOperation::List, &Ok(()), SECOND / 50);
        vec![
            (r#"flannel_etcd_requests_total{op="list",code="OK"}"#, 1.0),
            (r#"flannel_etcd_request_duration_seconds_sum{op="list"}"#, 0.02),
            (r#"flannel_etcd_request_duration_seconds_count{op="list"}"#, 1.0),
            (r#"flannel_etcd_request_duration_seconds_bucket{op="list",le="0.016"}"#, 0.0),
            (r#"flannel_etcd_request_duration_seconds_bucket{op="list",le="0.064"}"#, 1.0),
        ]
    }),
    ("kubernetes_request", |metrics: &Metrics| {
        metrics.kubernetes.requested(KubernetesOperation::List, "OK".to_owned(), SECOND / 50);
        metrics.kubernetes.requested(KubernetesOperation::Watch, "410".to_owned(), SECOND);
        vec![
            (r#"flannel_kubernetes_requests_total{op="list",code="OK"}"#, 1.0),
            (r#"flannel_kubernetes_requests_total{op="watch",code="410"}"#, 1.0),
            (r#"flannel_kubernetes_request_duration_seconds_sum{op="list"}"#, 0.02),
            (r#"flannel_kubernetes_request_duration_seconds_count{op="list"}"#, 1.0),
            (r#"flannel_kubernetes_request_duration_seconds_bucket{op="list",le="0.016"}"#, 0.0),
            (r#"flannel_kubernetes_request_duration_seconds_bucket{op="list",le="0.064"}"#, 1.0),
        ]
    }),
    ("refused_request", |metrics: &Metrics| {
        let error = request_error(tonic::Status::permission_denied("no"));
        metrics.etcd.requested(EtcdOperation::Write, &Err::<(), _>(error), SECOND);
        vec![(r#"flannel_etcd_requests_total{op="write",code="PermissionDenied"}"#, 1.0)]
    }),
    ("lost_request", |metrics: &Metrics| {
        let error = RegistryError::Timeout {
            operation: EtcdOperation::Watch.phrase(),
            endpoint: "http://127.0.0.1:2379".to_owned(),
            after: SECOND,
        };
        metrics.etcd.requested(EtcdOperation::Watch, &Err::<(), _>(error), SECOND);
        vec![(r#"flannel_etcd_requests_total{op="watch",code="Timeout"}"#, 1.0)]
    }),
    ("watch", |metrics: &Metrics| {
        metrics.etcd.watch_ended(&WatchError::Compacted { revision: Revision::new(7) });
        let endpoint = || "http://127.0.0.1:2379".to_owned();
        metrics.etcd.watch_ended(&WatchError::Broken { endpoint: endpoint(), error: None });
        metrics.etcd.watch_ended(&WatchError::Cancelled { endpoint: endpoint(), reason: String::new() });
        vec![
            (r#"flannel_etcd_watch_restarts_total{cause="compacted"}"#, 1.0),
            (r#"flannel_etcd_watch_restarts_total{cause="broken"}"#, 1.0),
            (r#"flannel_etcd_watch_restarts_total{cause="cancelled"}"#, 1.0),
        ]
    }),
    ("resync", |metrics: &Metrics| {
        for cause in ResyncCause::ALL {
            metrics.reconcile.resynced(cause);
        }
        metrics.reconcile.resynced(ResyncCause::Periodic);
        vec![
            (r#"flannel_resync_total{cause="start"}"#, 1.0),
            (r#"flannel_resync_total{cause="periodic"}"#, 2.0),
            (r#"flannel_resync_total{cause="host_changed"}"#, 1.0),
            (r#"flannel_resync_total{cause="compacted"}"#, 1.0),
            (r#"flannel_resync_total{cause="watch_ended"}"#, 1.0),
        ]
    }),
    ("correction", |metrics: &Metrics| {
        metrics.reconcile.corrected(SECOND / 4);
        vec![
            ("flannel_reconcile_duration_seconds_sum", 0.25),
            ("flannel_reconcile_duration_seconds_count", 1.0),
        ]
    }),
    ("repairs", |metrics: &Metrics| {
        for object in objects() {
            metrics.reconcile.repaired(&object);
        }
        vec![
            (r#"flannel_reconcile_repairs_total{object="neighbour"}"#, 1.0),
            (r#"flannel_reconcile_repairs_total{object="fdb"}"#, 1.0),
            (r#"flannel_reconcile_repairs_total{object="peer"}"#, 1.0),
            (r#"flannel_reconcile_repairs_total{object="route"}"#, 1.0),
        ]
    }),
    ("mass_deletion", |metrics: &Metrics| {
        metrics.reconcile.mass_delete_held();
        vec![("flannel_mass_delete_holds_total", 1.0)]
    }),
    ("propagation", |metrics: &Metrics| {
        metrics.reconcile.propagated(SECOND / 200);
        vec![
            (r#"flannel_propagation_seconds_bucket{le="0.0025"}"#, 0.0),
            (r#"flannel_propagation_seconds_bucket{le="0.005"}"#, 1.0),
            ("flannel_propagation_seconds_count", 1.0),
        ]
    }),
];

#[test]
fn moves() {
    for (name, move_it) in MOVES {
        let metrics = Metrics::default();
        let before = text(&metrics);
        let moved = move_it(&metrics);
        let after = text(&metrics);
        for (series, expected) in moved {
            assert_eq!(value(&after, series), Some(expected), "{name}: {series} in\n{after}");
            let was_there = value(&before, series);
            assert!(was_there != Some(expected) || expected == 0.0, "{name}: {series} was {expected} before");
        }
    }
}

#[test]
fn every_operation_has_a_series_of_its_own() {
    let metrics = Metrics::default();
    for operation in EtcdOperation::ALL {
        metrics.etcd.requested(operation, &Ok(()), SECOND);
    }
    let text = text(&metrics);
    for operation in EtcdOperation::ALL {
        let series = format!(r#"flannel_etcd_requests_total{{op="{}",code="OK"}}"#, operation.label());
        assert_eq!(value(&text, &series), Some(1.0), "{series} in\n{text}");
    }
}

fn request_error(status: tonic::Status) -> RegistryError {
    RegistryError::Request {
        operation: EtcdOperation::Write.phrase(),
        endpoint: "http://127.0.0.1:2379".to_owned(),
        error: etcd_client::Error::GRpcStatus(status),
    }
}

fn objects() -> [Object; 4] {
    let subnet = "10.5.2.0/24".parse().unwrap();
    let (ip, mac) = ([192, 168, 77, 12].into(), Mac([2, 0, 0, 0, 0, 2]));
    [
        Object::Neighbour { device: 1, ip, mac },
        Object::Fdb { device: 1, mac, vtep: ip, vni: None, port: None },
        Object::Peer { subnet, public_ip: ip, mac, direct: false, format: None },
        Object::Route { subnet, via: None, device: 1, onlink: false },
    ]
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn an_event_is_dated() {
    const SERIES: &str = "flannel_etcd_last_event_timestamp_seconds";
    let metrics = Metrics::default();
    assert_eq!(value(&text(&metrics), SERIES), None);
    metrics.etcd.events_arrived();
    let age = now() - value(&text(&metrics), SERIES).unwrap();
    assert!((0.0..10.0).contains(&age), "{age}");
}

#[tokio::test]
async fn the_end_of_the_lease_is_dated() {
    const SERIES: &str = "flannel_lease_expires_timestamp_seconds";
    let lease = Lease {
        subnets: Ipv4Network::new(Ipv4Addr::new(10, 5, 1, 0), 24).unwrap().into(),
        attributes: Attributes::new(Ipv4Addr::new(192, 168, 77, 11).into()),
        mod_revision: Revision::new(1),
        created: Revision::new(1),
        term: EtcdLeaseId::from_id(1),
    };
    let held = |expires| LeaseState { lease: lease.clone(), expires, renewal: expires };
    let (sender, receiver) = watch::channel(held(Some(Instant::now() + 3600 * SECOND)));
    let metrics = Metrics::default();
    assert_eq!(value(&text(&metrics), SERIES), None);
    let following = tokio::spawn(metrics.leases.clone().follow(receiver));
    tokio::task::yield_now().await;
    let left = value(&text(&metrics), SERIES).unwrap() - now();
    assert!((3590.0..3610.0).contains(&left), "{left}");

    // A reservation does not end.
    sender.send_replace(held(None));
    tokio::task::yield_now().await;
    assert_eq!(value(&text(&metrics), SERIES), None);
    drop(sender);
    following.await.unwrap();
}

#[test]
fn the_process_is_measured() {
    let sockets: Vec<UdpSocket> = (0..100).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let busy_until = std::time::Instant::now() + Duration::from_millis(50);
    while std::time::Instant::now() < busy_until {}
    let text = text(&Metrics::default());
    let value = |series| value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    drop(sockets);
    assert!(value("process_open_fds") >= 100.0);
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert_eq!(value("process_max_fds"), limit as f64);
    assert!(value("process_cpu_seconds_total") > 0.0);
    assert!(value("process_threads") >= 2.0);
    let resident = value("process_resident_memory_bytes");
    assert!(resident > 1e6 && resident < value("process_virtual_memory_bytes"));
    let age = now() - value("process_start_time_seconds");
    assert!((-1.0..24.0 * 3600.0).contains(&age), "{age}");
    assert_eq!(value(r#"flannel_scrape_errors_total{source="process"}"#), 0.0);
}
