use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flannel_control::lease::{Last, LeaseOwner as _, Lost, Own};
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::lease::Attributes;
use flannel_observe::Conditions;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::NodeOwner;
use crate::nodes::{NodeName, OwnNode};
use crate::stage::{Request, Stage};

const SOON: Duration = Duration::from_secs(20);

/// The node `own`, as the server has it.
type Shown = Arc<Mutex<Value>>;

fn node(pod_cidr: &str) -> Shown {
    let spec = if pod_cidr.is_empty() { json!({}) } else { json!({ "podCIDR": pod_cidr }) };
    Arc::new(Mutex::new(json!({
        "metadata": { "name": "own", "uid": "first", "resourceVersion": "5", "annotations": {} },
        "spec": spec,
        "status": { "conditions": [] },
    })))
}

/// A server that shows the node, and takes patches as `take` has it.
async fn stage(node: &Shown, take: impl Fn(usize, &Request) -> u16 + Send + Sync + 'static) -> Stage {
    let (node, taken) = (node.clone(), Mutex::new(0));
    Stage::set(move |request| {
        let mut node = node.lock().unwrap();
        if !request.line.starts_with("PATCH") {
            return (200, node.to_string());
        }
        let mut taken = taken.lock().unwrap();
        *taken += 1;
        let code = take(*taken, request);
        if code != 200 {
            return (code, json!({ "kind": "Status", "code": code, "message": "not now" }).to_string());
        }
        let patch: Value = serde_json::from_str(&request.body).unwrap();
        for (name, value) in patch["metadata"]["annotations"].as_object().into_iter().flatten() {
            let annotations = node["metadata"]["annotations"].as_object_mut().unwrap();
            // As the API server does.
            match value {
                Value::Null => drop(annotations.remove(name)),
                value => drop(annotations.insert(name.clone(), value.clone())),
            }
        }
        if patch["status"]["conditions"].is_array() {
            node["status"] = patch["status"].clone();
        }
        (200, node.to_string())
    })
    .await
}

async fn owner(stage: &Stage) -> NodeOwner {
    NodeOwner {
        nodes: stage.nodes(NodeName::Given("own".to_owned())).await,
        networks: Subnets { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None },
        sets_condition: true,
        conditions: Conditions::default(),
    }
}

fn attributes() -> Attributes {
    let mut attributes = Attributes::new(Ipv4Addr::new(192, 168, 77, 11).into());
    attributes.backend_type = Some("host-gw".to_owned());
    attributes
}

fn patches(stage: &Stage) -> Vec<Request> {
    stage.asked().into_iter().filter(|request| request.line.starts_with("PATCH")).collect()
}

/// Waits until the server was asked what `is_asked` looks for.
async fn wait(stage: &Stage, mut is_asked: impl FnMut(&[Request]) -> bool) {
    let asked = async {
        while !is_asked(&stage.asked()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, asked).await.unwrap();
}

#[tokio::test]
async fn what_is_written_is_what_stock_flannel_writes() {
    let node = node("10.244.1.0/24");
    let stage = stage(&node, |_, _| 200).await;
    let (handle, keeping) = owner(&stage).await.acquire(attributes(), None).await.unwrap();
    assert_eq!(handle.state().borrow().lease.subnets.to_string(), "10.244.1.0/24");
    let patch = r#"{"metadata":{"annotations":{"flannel.alpha.coreos.com/backend-data":"null","flannel.alpha.coreos.com/backend-type":"host-gw","flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/public-ip":"192.168.77.11"}}}"#;
    let request = Request { line: "PATCH /api/v1/nodes/own/status".to_owned(), body: patch.to_owned() };
    assert_eq!(patches(&stage), [request]);
    let keeping = tokio::spawn(keeping);
    wait(&stage, |asked| asked.iter().filter(|request| request.line.starts_with("PATCH")).count() > 1).await;
    let condition = patches(&stage).pop().unwrap().body;
    let (before, after) = (
        r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","lastHeartbeatTime":"20"#,
        r#"Z","reason":"FlannelIsUp","message":"Flannel is running on this node"}]}}"#,
    );
    assert!(condition.starts_with(before) && condition.ends_with(after), "{condition}");
    keeping.abort();
}

#[tokio::test]
async fn the_condition_is_tried_until_it_holds() {
    let node = node("10.244.1.0/24");
    // The first one is of annotations.
    let stage = stage(&node, |number, _| if (2..4).contains(&number) { 409 } else { 200 }).await;
    let (_handle, keeping) = owner(&stage).await.acquire(attributes(), None).await.unwrap();
    let keeping = tokio::spawn(keeping);
    wait(&stage, |asked| asked.iter().filter(|request| request.body.contains("FlannelIsUp")).count() == 3)
        .await;
    assert_eq!(node.lock().unwrap()["status"]["conditions"][0]["status"], "False");
    keeping.abort();
}

#[tokio::test]
async fn a_missing_subnet_is_told_and_waited_for() {
    let node = node("");
    let stage = stage(&node, |_, _| 200).await;
    let owner = owner(&stage).await;
    let conditions = owner.conditions.clone();
    let _lease = conditions.add("subnet leased");
    let acquiring = tokio::spawn(async move { owner.acquire(attributes(), None).await.map(|_| ()) });
    wait(&stage, |asked| asked.iter().any(|request| request.body.contains("FlannelPodCIDRMissing"))).await;
    let event = stage.asked().into_iter().find(|request| request.line.starts_with("POST")).unwrap();
    assert_eq!(event.line, "POST /api/v1/namespaces/default/events");
    assert!(event.body.contains(r#"node \"own\" pod cidr not assigned"#), "{}", event.body);
    assert!(patches(&stage).is_empty(), "nothing is said of a node without a subnet");
    let summary = conditions.summary();
    assert!(
        summary.starts_with(
            "not ready yet, pending: subnet leased, for node \"own\" pod cidr not assigned: waiting"
        ),
        "{summary}"
    );
    node.lock().unwrap()["spec"]["podCIDRs"] = json!(["10.244.7.0/24"]);
    timeout(SOON, acquiring).await.unwrap().unwrap().unwrap();
    assert_eq!(conditions.summary(), "not ready yet, pending: subnet leased");
}

/// What the API server answers when the node is to be annotated: it is tried again, and told.
#[rstest]
#[case::denied(403, "(403): not now; grant the daemon's account")]
#[case::unknown(401, "(401): not now; is the token expired")]
#[case::conflict(409, "(409): not now")]
#[case::busy(429, "(429): not now")]
#[case::broken(500, "(500): not now")]
#[tokio::test]
async fn an_annotation_that_is_refused_is_told_and_tried_again(#[case] code: u16, #[case] text: &str) {
    let node = node("10.244.1.0/24");
    let open = Arc::new(AtomicBool::new(false));
    let gate = open.clone();
    let stage = stage(&node, move |_, _| if gate.load(Ordering::Relaxed) { 200 } else { code }).await;
    let owner = owner(&stage).await;
    let conditions = owner.conditions.clone();
    let _lease = conditions.add("subnet leased");
    let acquiring = tokio::spawn(async move { owner.acquire(attributes(), None).await.map(|_| ()) });
    wait(&stage, |asked| asked.iter().filter(|request| request.line.starts_with("PATCH")).count() == 2).await;
    assert!(conditions.summary().contains(text), "{}", conditions.summary());
    open.store(true, Ordering::Relaxed);
    timeout(SOON, acquiring).await.unwrap().unwrap().unwrap();
}

#[rstest]
#[case::outside(
    json!({ "podCIDR": "10.9.0.0/24" }),
    "failed to acquire lease: subnet \"10.244.0.0/16\" specified in the flannel net config doesn't contain \
     \"10.9.0.0/24\" PodCIDR of the \"own\" node"
)]
#[case::many(
    json!({ "podCIDRs": ["10.244.1.0/24", "10.244.2.0/24"] }),
    "failed to acquire lease: node \"own\" pod cidrs should be IPv4/IPv6 only or dualstack"
)]
#[case::junk(
    json!({ "podCIDR": "10.244.1.0" }),
    "failed to acquire lease: node \"own\" podCIDR is no network: 10.244.1.0"
)]
#[tokio::test]
async fn a_subnet_that_cannot_be_served_is_refused(#[case] spec: Value, #[case] text: &str) {
    let node = node("");
    node.lock().unwrap()["spec"] = spec;
    let stage = stage(&node, |_, _| 200).await;
    let error = owner(&stage).await.acquire(attributes(), None).await.err().unwrap().to_string();
    assert!(error.starts_with(text), "{error}");
    assert!(patches(&stage).is_empty());
}

#[tokio::test]
async fn the_last_lease_goes_on_while_the_server_is_away() {
    let stage = Stage::set(|_| (503, String::new())).await;
    let own = Own {
        public: Ipv4Addr::new(192, 168, 77, 11).into(),
        subnets: Subnets { v4: Some("10.244.1.0/24".parse().unwrap()), v6: None },
        term: None,
        expires: None,
        vtep_macs: PerFamily::NONE,
    };
    let last = Last { own: &own, patience: Duration::ZERO };
    let acquired = owner(&stage).await.acquire(attributes(), Some(last));
    let (handle, _keeping) = timeout(SOON, acquired).await.unwrap().unwrap();
    assert_eq!(handle.state().borrow().lease.subnets, own.subnets);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_not_waited_for_for_long() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let access = crate::Access { url: Some(url), kubeconfig: None };
    let (prefix, name) = ("flannel.alpha.coreos.com".parse().unwrap(), NodeName::Given("own".to_owned()));
    let nodes = crate::Nodes::open(access, prefix, name, Default::default()).await.unwrap();
    let networks = Subnets { v4: Some("10.244.0.0/16".parse().unwrap()), v6: None };
    let own = Own {
        public: Ipv4Addr::new(192, 168, 77, 11).into(),
        subnets: Subnets { v4: Some("10.244.1.0/24".parse().unwrap()), v6: None },
        term: None,
        expires: None,
        vtep_macs: PerFamily::NONE,
    };
    let last = Last { own: &own, patience: Duration::from_secs(2) };
    let owner = NodeOwner { nodes, networks, sets_condition: true, conditions: Conditions::default() };
    // A request alone may take half a minute.
    let acquired = timeout(SOON, owner.acquire(attributes(), Some(last)));
    assert_eq!(acquired.await.unwrap().unwrap().0.state().borrow().lease.subnets, own.subnets);
}

#[tokio::test]
async fn overwrites_are_followed_and_damage_is_mended() {
    let node = node("10.244.1.0/24");
    let stage = stage(&node, |_, _| 200).await;
    let owner = owner(&stage).await;
    let nodes = owner.nodes.clone();
    let (handle, keeping) = owner.acquire(attributes(), None).await.unwrap();
    let keeping = tokio::spawn(keeping);
    let see = || {
        let shown = node.lock().unwrap()["metadata"].clone();
        let annotations = serde_json::from_value(shown["annotations"].clone()).unwrap();
        nodes.see_own(OwnNode::Present { uid: "first".to_owned(), annotations });
    };
    let announces = |address: &str| {
        let (shown, address) = (node.clone(), address.to_owned());
        async move {
            let announced = async {
                while shown.lock().unwrap()["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"]
                    != address
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            timeout(SOON, announced).await.unwrap();
        }
    };
    let annotate = |name: &str, value: Value| {
        node.lock().unwrap()["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")] = value;
    };
    annotate("public-ip-overwrite", json!("203.0.113.9"));
    see();
    announces("203.0.113.9").await;
    timeout(
        SOON,
        handle
            .state()
            .wait_for(|state| state.lease.attributes.public == Ipv4Addr::new(203, 0, 113, 9).into()),
    )
    .await
    .unwrap()
    .unwrap();
    annotate("public-ip-overwrite", json!("junk"));
    see();
    announces("192.168.77.11").await;
    annotate("public-ip", json!("192.168.77.66"));
    see();
    announces("192.168.77.11").await;
    keeping.abort();
}

#[tokio::test]
async fn another_subnet_ends_the_lease() {
    let node = node("10.244.1.0/24");
    let stage = stage(&node, |_, _| 200).await;
    let owner = owner(&stage).await;
    let nodes = owner.nodes.clone();
    let (_handle, keeping) = owner.acquire(attributes(), None).await.unwrap();
    let keeping = tokio::spawn(keeping);
    {
        let mut node = node.lock().unwrap();
        node["metadata"]["uid"] = json!("second");
        node["metadata"]["annotations"] = json!({});
        node["spec"] = json!({ "podCIDR": "10.244.9.0/24" });
    }
    nodes.see_own(OwnNode::Present { uid: "second".to_owned(), annotations: [].into() });
    let lost = timeout(SOON, keeping).await.unwrap().unwrap();
    let Lost::Reassigned { subnets, now } = &lost else { panic!("{lost}") };
    assert_eq!(
        (subnets.to_string(), now.to_string()),
        ("10.244.1.0/24".to_owned(), "10.244.9.0/24".to_owned())
    );
}

#[tokio::test]
async fn a_withdrawn_lease_is_said_no_more() {
    let node = node("10.244.1.0/24");
    let stage = stage(&node, |_, _| 200).await;
    let (handle, keeping) = owner(&stage).await.acquire(attributes(), None).await.unwrap();
    let keeping = tokio::spawn(keeping);
    timeout(SOON, handle.withdraw()).await.unwrap().unwrap();
    assert!(
        node.lock().unwrap()["metadata"]["annotations"]["flannel.alpha.coreos.com/kube-subnet-manager"]
            .is_null()
    );
    keeping.abort();
}
