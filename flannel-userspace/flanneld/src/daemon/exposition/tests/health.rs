use std::io::ErrorKind;
use std::net::TcpListener;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_observe::{Endpoints, Format, Limit, ListenError, Liveness, Server, Vitals};
use rstest::rstest;

use super::{Answer, exposition, get, request, server};

#[test]
fn healthz_answers_as_stock_flannel() {
    let server = server(&Vitals::default());
    assert_eq!(get(&server, "/healthz"), Answer::text(200, "flanneld is running"));
}

#[test]
fn not_ready_until_the_last_condition_is_met() {
    let vitals = Vitals::default();
    let lease = vitals.conditions.add("lease acquired");
    let file = vitals.conditions.add("subnet file written");
    let server = server(&vitals);
    let pending = "flanneld is not ready yet\npending: lease acquired\npending: subnet file written";
    assert_eq!(get(&server, "/readyz"), Answer::text(503, pending));
    lease.meet();
    let pending = "flanneld is not ready yet\npending: subnet file written";
    assert_eq!(get(&server, "/readyz"), Answer::text(503, pending));
    file.meet();
    assert_eq!(get(&server, "/readyz"), Answer::text(200, "flanneld is ready"));
}

#[test]
fn not_ready_while_a_condition_fails() {
    let vitals = Vitals::default();
    let datapath = vitals.conditions.add("datapath in place");
    datapath.meet();
    let server = server(&vitals);
    assert_eq!(get(&server, "/readyz"), Answer::text(200, "flanneld is ready"));
    datapath.fail("the kernel refuses the program vxlan_encap".to_owned());
    let failing = "flanneld is not ready yet\npending: datapath in place\n\
                   failing: datapath in place: the kernel refuses the program vxlan_encap (for 0 s)";
    assert_eq!(get(&server, "/readyz"), Answer::text(503, failing));
    let json = get(&server, "/readyz?format=json");
    let failing = r#"[{"condition":"datapath in place","reason":"the kernel refuses the program vxlan_encap","seconds":0}]"#;
    assert!(json.body.contains(failing), "{}", json.body);
    datapath.meet();
    assert_eq!(get(&server, "/readyz"), Answer::text(200, "flanneld is ready"));
}

#[test]
fn ready_though_limited() {
    let vitals = Vitals::default();
    vitals.conditions.limit(Limit { without: "programs", reason: "eBPF cannot be had".to_owned() });
    let limited = "flanneld is ready\nlimited: without programs: eBPF cannot be had";
    assert_eq!(get(&server(&vitals), "/readyz"), Answer::text(200, limited));
}

#[test]
fn ready_though_another_configuration_is_served() {
    let vitals = Vitals::default();
    vitals.conditions.set_outdated(Some("Network from a to b".to_owned()));
    let server = server(&vitals);
    let outdated = "flanneld is ready\noutdated: Network from a to b";
    assert_eq!(get(&server, "/readyz"), Answer::text(200, outdated));
    assert!(get(&server, "/readyz?format=json").body.ends_with(r#""outdated":"Network from a to b"}"#));
    vitals.conditions.set_outdated(None);
    assert_eq!(get(&server, "/readyz"), Answer::text(200, "flanneld is ready"));
}

#[test]
fn ready_though_stale_while_etcd_is_away() {
    let vitals = Vitals::default();
    let away = Some("etcd is away; forwarding continues with the known peers");
    vitals.conditions.set_stale(away);
    let server = server(&vitals);
    let stale = "flanneld is ready\nstale: etcd is away; forwarding continues with the known peers";
    assert_eq!(get(&server, "/readyz"), Answer::text(200, stale));
    vitals.conditions.set_stale(None);
    assert_eq!(get(&server, "/readyz"), Answer::text(200, "flanneld is ready"));
    vitals.conditions.set_stale(away);
    assert_eq!(get(&server, "/readyz"), Answer::text(200, stale));
}

#[rstest]
#[case::by_query("/readyz?format=json", "")]
#[case::by_query_among_others("/readyz?verbose&format=json", "")]
#[case::by_header("/readyz", "Accept: text/html, application/json;q=0.9\r\n")]
#[case::by_header_in_capitals("/readyz", "ACCEPT: APPLICATION/JSON\r\n")]
#[case::by_one_of_two_headers("/readyz", "Accept: text/html\r\nAccept: application/json\r\n")]
fn readiness_as_json(#[case] path: &str, #[case] headers: &str) {
    let vitals = Vitals::default();
    let listing = vitals.conditions.add("first listing applied");
    let server = server(&vitals);
    let answer = |status, body: &str| Answer {
        status,
        content_type: "application/json".to_owned(),
        body: body.to_owned(),
    };
    let pending = r#"{"ready":false,"pending":["first listing applied"],"obstacle":null,"failing":[],"limits":[],"stale":false,"outdated":null}"#;
    assert_eq!(request(&server, "GET", path, headers), answer(503, pending));
    listing.meet();
    vitals.conditions.set_stale(Some("etcd is away; forwarding continues with the known peers"));
    let stale = r#"{"ready":true,"pending":[],"obstacle":null,"failing":[],"limits":[],"stale":true,"outdated":null}"#;
    assert_eq!(request(&server, "GET", path, headers), answer(200, stale));
}

#[test]
fn alive_while_every_heart_beats() {
    const LIMIT: Duration = Duration::from_secs(2);
    let vitals = Vitals { liveness: Liveness::with_limit(LIMIT), ..Vitals::default() };
    let server = server(&vitals);
    let heart = vitals.liveness.heart("event loop");
    assert_eq!(get(&server, "/livez"), Answer::text(200, "flanneld is alive"));
    // The daemon's runtime is blocked meanwhile, and the server answers.
    sleep(LIMIT);
    let Answer { status, body, .. } = get(&server, "/livez");
    let silence = body.strip_prefix("flanneld is stuck\nevent loop: no heartbeat for ").unwrap();
    let seconds: u64 = silence.strip_suffix(" s").unwrap().parse().unwrap();
    assert_eq!((status, seconds >= LIMIT.as_secs()), (503, true), "{body}");
    assert_eq!(get(&server, "/healthz").status, 200);
    heart.beat();
    assert_eq!(get(&server, "/livez"), Answer::text(200, "flanneld is alive"));
}

#[rstest]
#[case::prometheus("", Format::Prometheus)]
#[case::text("Accept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n", Format::Prometheus)]
#[case::openmetrics(
    "Accept: application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3\r\n",
    Format::OpenMetrics
)]
fn metrics_in_the_accepted_format(#[case] headers: &str, #[case] format: Format) {
    let answer = request(&server(&Vitals::default()), "GET", "/metrics", headers);
    assert_eq!((answer.status, answer.content_type.as_str()), (200, format.content_type()));
    assert_eq!(answer.body.ends_with("# EOF\n"), format == Format::OpenMetrics, "{}", answer.body);
    assert!(answer.body.contains("\nflannel_build_info{version="), "{}", answer.body);
}

#[test]
fn metrics_are_not_shown_to_everybody() {
    let vitals = Vitals::default();
    let endpoints = Endpoints { health: Some("0.0.0.0:0".parse().unwrap()), metrics: None };
    let server = Server::start(endpoints.listen().unwrap(), vitals.clone(), exposition(&vitals)).unwrap();
    let answer = get(&server, "/metrics");
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("--metrics-listen"), "{}", answer.body);
}

#[test]
fn other_paths_and_methods_are_refused() {
    let server = server(&Vitals::default());
    assert_eq!(get(&server, "/").status, 404);
    assert_eq!(get(&server, "/debug/pprof/").status, 404);
    assert_eq!(request(&server, "POST", "/healthz", "").status, 405);
    assert_eq!(request(&server, "HEAD", "/healthz", "").body, "");
}

#[test]
fn no_endpoint_is_no_server() {
    let vitals = Vitals::default();
    let server =
        Server::start(Endpoints::default().listen().unwrap(), vitals.clone(), exposition(&vitals)).unwrap();
    assert!(server.addresses().is_empty());
}

#[test]
fn a_server_that_is_dropped_gives_its_port_back() {
    let vitals = Vitals::default();
    let first = server(&vitals);
    let address = first.addresses()[0];
    let endpoints = Endpoints { health: Some(address), metrics: None };
    assert!(matches!(endpoints.listen(), Err(ListenError::Address { .. })));
    drop(first);
    // A program that another test is starting holds every socket until `execve`.
    let end = Instant::now() + Duration::from_secs(2);
    while let Err(error) = TcpListener::bind(address) {
        assert!(error.kind() == ErrorKind::AddrInUse && Instant::now() < end, "{error}");
        sleep(Duration::from_millis(10));
    }
}
