use std::sync::atomic::{AtomicUsize, Ordering};

use flannel_model::lease::{Event, Revision};
use flannel_registry::{LeaseSource as _, RegistryError, Watch as _, WatchError};
use rstest::rstest;
use serde_json::{Value, json};

use crate::nodes::{NodeName, Nodes};
use crate::stage::{Answer, Request, Stage};

fn own() -> NodeName {
    NodeName::Given("own".to_owned())
}

fn node(name: &str, version: u32, public_ip: &str) -> Value {
    json!({
        "metadata": {
            "name": name,
            "uid": format!("uid-of-{name}"),
            "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "host-gw",
                "flannel.alpha.coreos.com/public-ip": public_ip,
            },
        },
    })
}

fn with_subnet(mut node: Value, subnet: &str) -> Value {
    node["spec"] = json!({ "podCIDR": subnet });
    node
}

fn page(nodes: &[Value], version: u32, next: &str) -> Answer {
    let page =
        json!({ "metadata": { "resourceVersion": version.to_string(), "continue": next }, "items": nodes });
    (200, page.to_string())
}

fn status(code: u16, message: &str) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "message": message })
}

fn refusal(code: u16, message: &str) -> Answer {
    (code, status(code, message).to_string())
}

fn events(events: &[(&str, Value)]) -> Answer {
    let line = |(kind, object): &(&str, Value)| format!("{}\n", json!({ "type": kind, "object": object }));
    (200, events.iter().map(line).collect())
}

fn is_watch(request: &Request) -> bool {
    request.line.contains("watch=true")
}

/// Lists, and follows from there until the watch ends.
async fn follow(nodes: &Nodes) -> (Vec<Event>, WatchError) {
    let revision = nodes.list().await.unwrap().revision;
    let mut watch = nodes.watch(revision).await.unwrap();
    let mut all = Vec::new();
    loop {
        match watch.next().await {
            Ok(events) => all.extend(events),
            Err(error) => return (all, error),
        }
    }
}

#[tokio::test]
async fn nodes_are_listed_page_by_page() {
    let stage = Stage::set(|request| {
        let (first, second) = (
            with_subnet(node("a", 5, "192.168.77.11"), "10.244.1.0/24"),
            with_subnet(node("b", 6, "192.168.77.12"), "10.244.2.0/24"),
        );
        if request.line.contains("continue=more") {
            page(&[second], 9, "")
        } else {
            page(&[first], 9, "more")
        }
    })
    .await;
    let snapshot = stage.nodes(own()).await.list().await.unwrap();
    assert_eq!((snapshot.leases.len(), snapshot.revision), (2, Revision::new(9)));
    assert!(stage.asked().iter().all(|request| request.line.contains("limit=")));
}

#[tokio::test]
async fn a_listing_that_the_server_has_forgotten_begins_again() {
    let asked = AtomicUsize::new(0);
    let stage = Stage::set(move |request| {
        let a = with_subnet(node("a", 5, "192.168.77.11"), "10.244.1.0/24");
        match (asked.fetch_add(1, Ordering::Relaxed), request.line.contains("continue=")) {
            (0, _) => page(&[a], 9, "more"),
            (_, true) => refusal(410, "The provided continue parameter is too old"),
            _ => page(&[a], 12, ""),
        }
    })
    .await;
    let snapshot = stage.nodes(own()).await.list().await.unwrap();
    assert_eq!((snapshot.leases.len(), snapshot.revision), (1, Revision::new(12)));
}

#[rstest]
#[case::denied(
    refusal(403, "nodes is forbidden"),
    "(403): nodes is forbidden; grant the daemon's account, by a ClusterRole"
)]
#[case::unknown(refusal(401, "Unauthorized"), "(401): Unauthorized; is the token expired")]
#[case::busy(refusal(429, "too many requests"), "(429): too many requests")]
#[case::broken(refusal(500, "etcdserver: no leader"), "(500): etcdserver: no leader")]
#[case::html((200, "<html>".to_owned()), "did not list the nodes as an API server does: expected value")]
#[case::cut((200, r#"{"metadata":{"resource"#.to_owned()), "did not list the nodes as an API server does: EOF")]
#[case::other((200, "[]".to_owned()), "did not list the nodes as an API server does")]
#[case::no_number(page(&[], 9, "").map_version("abc"), "its resourceVersion \"abc\" is no number")]
#[tokio::test]
async fn what_is_no_listing_is_an_absence(#[case] answer: Answer, #[case] text: &str) {
    let stage = Stage::set(move |_| answer.clone()).await;
    let error = stage.nodes(own()).await.list().await.unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
    assert!(error.is_absence(), "nothing is known of the nodes");
}

trait MapVersion {
    fn map_version(self, version: &str) -> Self;
}

impl MapVersion for Answer {
    fn map_version(self, version: &str) -> Self {
        (self.0, self.1.replace("\"9\"", &format!("\"{version}\"")))
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let access = crate::Access { url: Some("http://127.0.0.1:1".to_owned()), kubeconfig: None };
    let prefix = "flannel.alpha.coreos.com".parse().unwrap();
    let nodes = Nodes::open(access, prefix, own(), Default::default()).await.unwrap();
    let error = nodes.list().await.unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("the API server http://127.0.0.1:1 did not list the nodes: "), "{text}");
    assert!(text.contains("onnection refused") && error.is_absence(), "{text}");
}

/// As where the authority of its certificate, the token or the address was replaced.
#[tokio::test]
async fn the_files_are_read_again_after_a_failure() {
    let former = Stage::set(|_| refusal(401, "Unauthorized")).await;
    let present = Stage::set(|_| page(&[], 9, "")).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |stage: &Stage| {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{ "name": "x", "cluster": { "server": stage.url() } }],
            "contexts": [{ "name": "x", "context": { "cluster": "x", "user": "x" } }],
            "users": [{ "name": "x", "user": {} }],
        });
        std::fs::write(file.path(), kubeconfig.to_string()).unwrap();
    };
    write(&former);
    let access = crate::Access { url: None, kubeconfig: Some(file.path().to_owned()) };
    let prefix = "flannel.alpha.coreos.com".parse().unwrap();
    let nodes = Nodes::open(access, prefix, own(), Default::default()).await.unwrap();
    assert!(nodes.list().await.unwrap_err().is_absence());
    // Half written: what is known goes on.
    std::fs::write(file.path(), "{").unwrap();
    assert!(nodes.list().await.unwrap_err().to_string().contains("(401)"));
    write(&present);
    nodes.list().await.unwrap();
    assert_eq!(former.asked().len(), 2);
}

#[tokio::test]
async fn a_store_that_was_restored_is_noticed() {
    let asked = AtomicUsize::new(0);
    let stage =
        Stage::set(move |_| page(&[], if asked.fetch_add(1, Ordering::Relaxed) == 0 { 900 } else { 90 }, ""))
            .await;
    let nodes = stage.nodes(own()).await;
    assert!(!nodes.list().await.unwrap().history_reset);
    assert!(nodes.list().await.unwrap().history_reset);
}

#[tokio::test]
async fn nodes_are_followed_by_their_metadata() {
    let stage = Stage::set(|request| {
        let known = || node("known", 5, "192.168.77.11");
        if is_watch(request) {
            return events(&[
                ("MODIFIED", node("known", 10, "192.168.77.11")),
                ("MODIFIED", node("known", 11, "192.168.77.99")),
                ("ADDED", node("new", 12, "192.168.77.12")),
                ("ADDED", node("gone", 13, "192.168.77.13")),
                ("ADDED", node("again", 14, "192.168.77.14")),
                ("DELETED", node("known", 15, "192.168.77.99")),
                (
                    "BOOKMARK",
                    json!({ "kind": "Node", "apiVersion": "v1", "metadata": { "resourceVersion": "20" } }),
                ),
                ("ERROR", status(410, "too old resource version")),
            ]);
        }
        match request.line.as_str() {
            "GET /api/v1/nodes/new" => {
                (200, with_subnet(node("new", 12, "192.168.77.12"), "10.244.2.0/24").to_string())
            }
            "GET /api/v1/nodes/gone" => refusal(404, "nodes \"gone\" not found"),
            "GET /api/v1/nodes/again" => {
                let mut other = with_subnet(node("again", 19, "192.168.77.14"), "10.244.4.0/24");
                other["metadata"]["uid"] = json!("another");
                (200, other.to_string())
            }
            _ => page(&[with_subnet(known(), "10.244.1.0/24")], 9, ""),
        }
    })
    .await;
    let nodes = stage.nodes(own()).await;
    let (events, error) = follow(&nodes).await;
    let told: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Put(lease) => {
                format!("+{}@{} {}", lease.key(), lease.attributes.public, lease.mod_revision)
            }
            other => format!("-{} {}", other.key(), other.mod_revision()),
        })
        .collect();
    assert_eq!(
        told,
        ["+10.244.1.0-24@192.168.77.99 11", "+10.244.2.0-24@192.168.77.12 12", "-10.244.1.0-24 15"],
        "the first one was a heartbeat, and of two nodes nothing is known any more"
    );
    assert!(matches!(error, WatchError::Expired(_)) && error.loses_history(), "{error}");
    let asked = stage.asked();
    let watched = asked.iter().find(|request| is_watch(request)).unwrap();
    for part in ["resourceVersion=9", "allowWatchBookmarks=true", "timeoutSeconds="] {
        assert!(watched.line.contains(part), "{watched:?}");
    }
    assert!(!watched.line.contains("sendInitialEvents"), "{watched:?}");
    let gets = |name: &str| asked.iter().filter(|request| request.line.contains(name)).count();
    assert_eq!((gets("nodes/known"), gets("nodes/new")), (0, 1), "a subnet is asked for once");
}

#[rstest]
#[case::ends_at_once((200, String::new()), "ended the watch of the nodes at once")]
#[case::garbage((200, "<html>\n".to_owned()), "did not let this host watch the nodes as an API server does")]
#[case::error_event(events(&[("ERROR", status(500, "boom"))]), "(500): boom")]
#[tokio::test]
async fn a_watch_that_breaks_is_to_be_resumed(#[case] answer: Answer, #[case] text: &str) {
    let stage =
        Stage::set(move |request| if is_watch(request) { answer.clone() } else { page(&[], 9, "") }).await;
    let nodes = stage.nodes(own()).await;
    let revision = nodes.list().await.unwrap().revision;
    let mut watch = nodes.watch(revision).await.unwrap();
    let error = watch.next().await.unwrap_err();
    assert!(error.to_string().contains(text), "{error}");
    assert!(!error.loses_history() && watch.revision() == revision, "it goes on from there");
}

#[rstest]
#[case::denied(403, true)]
#[case::busy(429, true)]
#[case::broken(500, true)]
#[case::forgotten(410, false)]
#[case::not_understood(400, false)]
#[tokio::test]
async fn a_watch_that_is_refused_is_tried_again_or_nodes_are_listed(
    #[case] code: u16,
    #[case] is_absence: bool,
) {
    let stage =
        Stage::set(move |request| if is_watch(request) { refusal(code, "no") } else { page(&[], 9, "") })
            .await;
    let error: RegistryError = stage.nodes(own()).await.watch(Revision::new(9)).await.err().unwrap();
    assert!(
        error.to_string().contains(&format!("did not let this host watch the nodes ({code})")),
        "{error}"
    );
    assert_eq!(error.is_absence(), is_absence);
}

#[rstest]
#[case::runs_nowhere((200, json!({ "spec": {} }).to_string()), "node name not present in pod spec 'kube-flannel/ds-1'", true)]
#[case::no_pod(
    refusal(404, "pods \"ds-1\" not found"),
    "error retrieving pod spec for 'kube-flannel/ds-1': ",
    true
)]
#[case::denied(
    refusal(403, "pods is forbidden"),
    "error retrieving pod spec for 'kube-flannel/ds-1': ",
    true
)]
#[case::busy(refusal(503, "starting"), "error retrieving pod spec for 'kube-flannel/ds-1': ", false)]
#[tokio::test]
async fn the_pod_names_the_node(#[case] answer: Answer, #[case] text: &str, #[case] is_final: bool) {
    let name = NodeName::OfPod { namespace: "kube-flannel".to_owned(), pod: "ds-1".to_owned() };
    let stage = Stage::set(move |_| answer.clone()).await;
    let error = stage.nodes(name.clone()).await.name().await.map(str::to_owned).unwrap_err();
    assert!(error.to_string().starts_with(text), "{error}");
    assert_eq!(error.is_final(), is_final);
    let stage = Stage::set(|_| (200, json!({ "spec": { "nodeName": "worker-1" } }).to_string())).await;
    assert_eq!(stage.nodes(name).await.name().await.unwrap(), "worker-1");
}
