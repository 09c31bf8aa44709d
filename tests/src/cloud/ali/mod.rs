//! Alibaba's cloud: a metadata server and the API of VPCs, which checks signatures, changes a table after it has answered, and
//! refuses another change meanwhile.

mod signature;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use ipnetwork::Ipv4Network;
use serde_json::{Value, json};

use super::mood::{Mood, answer, json as json_answer};
use super::{Caller, Router, Server, Steering};
use crate::network::{Host, Network};

/// Where both services listen.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 254), 8083);
/// The key of the account.
pub const KEY: (&str, &str) = ("LTAItest", "canary-of-ali");
/// That of the role, and the token that belongs to it.
const ROLE_KEY: (&str, &str, &str) = ("STS.role", "canary-of-the-role", "canary-token");

/// Alibaba's cloud.
#[derive(Debug)]
pub struct Ali {
    state: Arc<Mutex<State>>,
    _server: Server,
}

/// What it knows.
#[derive(Debug)]
pub struct State {
    /// How the API answers.
    pub mood: Mood,
    /// The entries of the router's first table.
    pub entries: Vec<Entry>,
    /// Most of them.
    pub quota: usize,
    /// So many changes are refused because another one is under way.
    pub conflicts: usize,
    /// Whether instances have a role.
    pub has_role: bool,
    /// What was asked of the API: the actions.
    pub calls: Vec<String>,
    instances: BTreeMap<Ipv4Addr, String>,
    router: Router,
}

/// A route entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where to.
    pub destination: Ipv4Network,
    /// The instance that it leads to.
    pub instance: String,
    /// How many times it is still read as `Pending`.
    pub pending_for: usize,
}

impl Ali {
    /// A cloud around `network`.
    ///
    /// # Errors
    /// Its services cannot be started.
    pub fn start(network: &Network) -> Result<Self> {
        let state = State {
            mood: Mood::Willing,
            entries: Vec::new(),
            quota: 200,
            conflicts: 0,
            has_role: false,
            calls: Vec::new(),
            instances: BTreeMap::new(),
            router: Router::of(network)?,
        };
        let state = Arc::new(Mutex::new(state));
        let serving = Arc::clone(&state);
        let service = axum::Router::new().fallback(move |caller: Caller, request: Request<Body>| {
            serve(Arc::clone(&serving), caller, request)
        });
        let server = Server::start(network.router(), ADDRESS, service)?;
        Ok(Self { state, _server: server })
    }

    /// Makes `host` an instance.
    pub fn add(&self, host: &Host) {
        self.state().instances.insert(host.address, Self::instance(host));
    }

    /// The instance that `host` is.
    #[must_use]
    pub fn instance(host: &Host) -> String {
        format!("i-{}", host.name)
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a daemon finds in its environment; the key not among it.
    #[must_use]
    pub fn variables() -> Vec<(String, String)> {
        let variables =
            [("ALI_METADATA_HOST", ADDRESS.to_string()), ("ECS_ENDPOINT", format!("http://{ADDRESS}"))];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl State {
    /// Changes the entries as somebody else would.
    ///
    /// # Errors
    /// The router does not take it.
    pub fn change_entries(&mut self, change: impl FnOnce(&mut Vec<Entry>)) -> Result<()> {
        change(&mut self.entries);
        self.steer()
    }

    fn steer(&mut self) -> Result<()> {
        let mut steering = Steering::default();
        for entry in self.entries.iter().filter(|entry| entry.pending_for == 0) {
            let target = self.instances.iter().find(|(_, instance)| **instance == entry.instance);
            steering.routes.insert(entry.destination, target.map(|(address, _)| *address));
        }
        self.router.steer(steering)
    }
}

async fn serve(state: Arc<Mutex<State>>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let ConnectInfo(address) = caller;
    let (head, _) = request.into_parts();
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = head.uri.path().strip_prefix("/latest/meta-data/") {
        return metadata(&lock(), address.ip(), path);
    }
    let mood = lock().mood;
    mood.wait().await;
    api(&mut lock(), &head)
}

fn metadata(state: &State, caller: IpAddr, path: &str) -> Response<Body> {
    let IpAddr::V4(address) = caller else { return missing() };
    let Some(instance) = state.instances.get(&address) else { return missing() };
    let (id, secret, token) = ROLE_KEY;
    let text = match path {
        "region-id" => "cn-shanghai".to_owned(),
        "instance-id" => instance.clone(),
        "vpc-id" => "vpc-1".to_owned(),
        "ram/security-credentials/" if state.has_role => "node".to_owned(),
        "ram/security-credentials/node" if state.has_role => {
            json!({"AccessKeyId": id, "AccessKeySecret": secret, "SecurityToken": token, "Code": "Success",
                   "Expiration": "2100-01-01T00:00:00Z", "LastUpdated": "2026-01-01T00:00:00Z"})
            .to_string()
        }
        _ => return missing(),
    };
    answer(StatusCode::OK, "text/plain", text)
}

fn missing() -> Response<Body> {
    answer(StatusCode::NOT_FOUND, "text/html", "<html>404</html>".to_owned())
}

type Outcome = Result<Value, (StatusCode, &'static str, &'static str)>;

fn api(state: &mut State, head: &Parts) -> Response<Body> {
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let action = header("x-acs-action").to_owned();
    state.calls.push(action.clone());
    if let Some(page) = state.mood.page() {
        return page;
    }
    let outcome = match is_signed(state, head) {
        true => outcome(state, &action, &parameters(head)),
        false => Err((StatusCode::BAD_REQUEST, "SignatureDoesNotMatch", "The signature does not match.")),
    };
    match outcome {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err((status, code, message)) => {
            json_answer(status, &json!({"RequestId": "r", "HostId": "h", "Code": code, "Message": message}))
        }
    }
}

fn is_signed(state: &State, head: &Parts) -> bool {
    let (id, secret, token) = ROLE_KEY;
    let has_token = head.headers.get("x-acs-security-token").is_some_and(|value| value == token);
    signature::is_by(head, KEY) || state.has_role && has_token && signature::is_by(head, (id, secret))
}

/// A range is the only value with a character that is escaped.
fn parameters(head: &Parts) -> BTreeMap<String, String> {
    let pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.replace("%2F", "/"))).collect()
}

fn outcome(state: &mut State, action: &str, parameters: &BTreeMap<String, String>) -> Outcome {
    match state.mood {
        Mood::Throttling => return Err((StatusCode::BAD_REQUEST, "Throttling.User", "Request was denied")),
        Mood::Denying => return Err((StatusCode::FORBIDDEN, "Forbidden.RAM", "User not authorized")),
        _ => {}
    }
    match action {
        "DescribeVpcs" => {
            let vpc = json!({"VpcId": "vpc-1", "VRouterId": "vrt-1", "CidrBlock": "192.168.0.0/16"});
            Ok(json!({"Vpcs": {"Vpc": [vpc]}}))
        }
        "DescribeVRouters" => {
            let router = json!({"VRouterId": "vrt-1", "RouteTableIds": {"RouteTableId": ["vtb-1"]}});
            Ok(json!({"VRouters": {"VRouter": [router]}}))
        }
        "DescribeRouteTables" => {
            let answer = tables(state);
            for entry in &mut state.entries {
                entry.pending_for = entry.pending_for.saturating_sub(1);
            }
            follow(state);
            Ok(answer)
        }
        "CreateRouteEntry" | "DeleteRouteEntry" if state.conflicts > 0 => {
            state.conflicts -= 1;
            Err((StatusCode::BAD_REQUEST, "TaskConflict", "The operation is too frequent"))
        }
        "CreateRouteEntry" => create(state, parameters),
        "DeleteRouteEntry" => delete(state, parameters),
        _ => Err((StatusCode::NOT_FOUND, "InvalidAction.NotFound", "no such action")),
    }
}

fn tables(state: &State) -> Value {
    let system = json!({"DestinationCidrBlock": "100.64.0.0/10", "InstanceId": "", "Status": "Available", "Type": "System"});
    let custom = state.entries.iter().map(|entry| {
        json!({
            "DestinationCidrBlock": entry.destination.to_string(), "InstanceId": entry.instance, "RouteTableId": "vtb-1",
            "NextHopType": "Instance", "Type": "Custom",
            "Status": if entry.pending_for == 0 { "Available" } else { "Pending" },
        })
    });
    let entries: Vec<Value> = std::iter::once(system).chain(custom).collect();
    json!({"RouteTables": {"RouteTable": [{"RouteTableId": "vtb-1", "RouteEntrys": {"RouteEntry": entries}}]}})
}

fn create(state: &mut State, parameters: &BTreeMap<String, String>) -> Outcome {
    let text = |key: &str| parameters.get(key).cloned().unwrap_or_default();
    let destination = text("DestinationCidrBlock")
        .parse()
        .map_err(|_| (StatusCode::BAD_REQUEST, "InvalidCIDRBlock.Malformed", "range"))?;
    if state.entries.iter().any(|entry| entry.destination == destination) {
        return Err((StatusCode::BAD_REQUEST, "RouterEntryConflict.Duplicated", "there is one"));
    }
    if state.entries.len() >= state.quota {
        return Err((
            StatusCode::BAD_REQUEST,
            "QuotaExceeded",
            "Route entry quota exceeded in this route table.",
        ));
    }
    state.entries.push(Entry { destination, instance: text("NextHopId"), pending_for: 2 });
    Ok(json!({"RequestId": "r"}))
}

fn delete(state: &mut State, parameters: &BTreeMap<String, String>) -> Outcome {
    let (destination, instance) = (parameters.get("DestinationCidrBlock"), parameters.get("NextHopId"));
    let before = state.entries.len();
    state.entries.retain(|entry| {
        Some(&entry.destination.to_string()) != destination || Some(&entry.instance) != instance
    });
    if state.entries.len() == before {
        return Err((StatusCode::NOT_FOUND, "InvalidRouteEntry.NotFound", "no such entry"));
    }
    follow(state);
    Ok(json!({"RequestId": "r"}))
}

fn follow(state: &mut State) {
    if let Err(error) = state.steer() {
        eprintln!("the router of the cloud does not follow: {error:#}");
    }
}
