//! Tencent's cloud: a metadata server and the API of VPCs, which checks signatures.

mod signature;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::request::Parts;
use axum::http::{Request, Response, StatusCode};
use ipnetwork::Ipv4Network;
use serde_json::{Value, json};

use super::mood::{Mood, answer, json as json_answer};
use super::{Caller, Router, Server, Steering};
use crate::network::{Host, Network};

/// Where both services listen.
const ADDRESS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 77, 254), 8082);
/// Longest body of a request.
const LONGEST: usize = 1 << 20;
/// The key of the account.
pub const KEY: (&str, &str) = ("AKIDtest", "canary-of-tencent");
/// That of the role, and the token that belongs to it.
const ROLE_KEY: (&str, &str, &str) = ("AKIDrole", "canary-of-the-role", "canary-token");

/// Tencent's cloud.
#[derive(Debug)]
pub struct Tencent {
    state: Arc<Mutex<State>>,
    _server: Server,
}

/// What it knows.
#[derive(Debug)]
pub struct State {
    /// How the API answers.
    pub mood: Mood,
    /// The routes of the first table.
    pub routes: Vec<Route>,
    /// Most of them.
    pub quota: usize,
    /// Whether instances have a role.
    pub has_role: bool,
    /// What was asked of the API: the actions.
    pub calls: Vec<String>,
    names: BTreeMap<Ipv4Addr, String>,
    next_id: u64,
    router: Router,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its number.
    pub id: u64,
    /// Where to.
    pub destination: Ipv4Network,
    /// What it leads to, and of what kind that is.
    pub gateway: String,
    /// `NORMAL_CVM` is an instance.
    pub gateway_type: String,
    /// Whether it counts.
    pub enabled: bool,
}

impl Tencent {
    /// A cloud around `network`.
    ///
    /// # Errors
    /// Its services cannot be started.
    pub fn start(network: &Network) -> Result<Self> {
        let state = State {
            mood: Mood::Willing,
            routes: Vec::new(),
            quota: 50,
            has_role: false,
            calls: Vec::new(),
            names: BTreeMap::new(),
            next_id: 100,
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
        self.state().names.insert(host.address, host.name.clone());
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a daemon finds in its environment; the key not among it.
    #[must_use]
    pub fn variables() -> Vec<(String, String)> {
        let variables = [
            ("TENCENT_METADATA_HOST", ADDRESS.to_string()),
            ("FLANNELD_TENCENT_VPC_ENDPOINT", format!("http://{ADDRESS}")),
        ];
        variables.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl State {
    /// Changes the routes as somebody else would.
    ///
    /// # Errors
    /// The router does not take it.
    pub fn change_routes(&mut self, change: impl FnOnce(&mut Vec<Route>)) -> Result<()> {
        change(&mut self.routes);
        self.steer()
    }

    fn steer(&mut self) -> Result<()> {
        let mut steering = Steering::default();
        for route in self.routes.iter().filter(|route| route.enabled && route.gateway_type == "NORMAL_CVM") {
            let target = route.gateway.parse().ok().filter(|address| self.names.contains_key(address));
            steering.routes.insert(route.destination, target);
        }
        self.router.steer(steering)
    }
}

async fn serve(state: Arc<Mutex<State>>, caller: Caller, request: Request<Body>) -> Response<Body> {
    let ConnectInfo(address) = caller;
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return answer(StatusCode::BAD_REQUEST, "text/plain", String::new());
    };
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = head.uri.path().strip_prefix("/latest/meta-data/") {
        return metadata(&lock(), address.ip(), path);
    }
    let mood = lock().mood;
    mood.wait().await;
    api(&mut lock(), &head, &body)
}

fn metadata(state: &State, caller: IpAddr, path: &str) -> Response<Body> {
    let is_known = matches!(caller, IpAddr::V4(address) if state.names.contains_key(&address));
    let (id, secret, token) = ROLE_KEY;
    let text = match path {
        _ if !is_known => None,
        "placement/region" => Some("ap-guangzhou".to_owned()),
        "mac" => Some("52:54:00:00:00:01".to_owned()),
        "network/interfaces/macs/52:54:00:00:00:01/vpc-id" => Some("vpc-1".to_owned()),
        "cam/security-credentials/" if state.has_role => Some("node".to_owned()),
        "cam/security-credentials/node" if state.has_role => Some(
            json!({"TmpSecretId": id, "TmpSecretKey": secret, "Token": token, "Code": "Success",
                   "ExpiredTime": 4_102_444_800_u64, "Expiration": "2100-01-01T00:00:00Z"})
            .to_string(),
        ),
        _ => None,
    };
    match text {
        Some(text) => answer(StatusCode::OK, "text/plain", text),
        None => answer(StatusCode::NOT_FOUND, "text/html", "<html>404</html>".to_owned()),
    }
}

/// Errors have the status of success.
fn api(state: &mut State, head: &Parts, body: &[u8]) -> Response<Body> {
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let action = header("x-tc-action").to_owned();
    state.calls.push(action.clone());
    if let Some(page) = state.mood.page() {
        return page;
    }
    let outcome = if is_signed(state, head, body) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        outcome(state, &action, &body)
    } else {
        Err(("AuthFailure.SignatureFailure", "The provided credentials could not be validated."))
    };
    let response = match outcome {
        Ok(mut value) => {
            value["RequestId"] = json!("r");
            value
        }
        Err((code, message)) => json!({"Error": {"Code": code, "Message": message}, "RequestId": "r"}),
    };
    json_answer(StatusCode::OK, &json!({"Response": response}))
}

fn is_signed(state: &State, head: &Parts, body: &[u8]) -> bool {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let by = |(id, secret): (&str, &str)| {
        let expected =
            signature::authorization(id, secret, header("host")?, header("x-tc-timestamp")?, body)?;
        (header("authorization")? == expected).then_some(())
    };
    let (id, secret, token) = ROLE_KEY;
    by(KEY).is_some() || state.has_role && header("x-tc-token") == Some(token) && by((id, secret)).is_some()
}

type Outcome = Result<Value, (&'static str, &'static str)>;

fn outcome(state: &mut State, action: &str, body: &Value) -> Outcome {
    match state.mood {
        Mood::Throttling => return Err(("RequestLimitExceeded", "Too many requests")),
        Mood::Denying => return Err(("UnauthorizedOperation", "no permission")),
        _ => {}
    }
    match action {
        "DescribeRouteTables" => {
            let routes: Vec<Value> = state.routes.iter().map(shown).collect();
            let table = json!({"RouteTableId": "rtb-1", "VpcId": "vpc-1", "Main": true, "RouteSet": routes});
            Ok(json!({"TotalCount": 1, "RouteTableSet": [table]}))
        }
        "DescribeVpcs" => {
            Ok(json!({"TotalCount": 1, "VpcSet": [{"VpcId": "vpc-1", "CidrBlock": "192.168.0.0/16"}]}))
        }
        "CreateRoutes" => create(state, &body["Routes"][0]),
        "DeleteRoutes" => {
            let (id, before) = (body["Routes"][0]["RouteId"].as_u64(), state.routes.len());
            state.routes.retain(|route| Some(route.id) != id);
            if state.routes.len() == before {
                return Err(("ResourceNotFound", "no such route"));
            }
            follow(state);
            Ok(json!({}))
        }
        _ => Err(("InvalidAction", "no such action")),
    }
}

fn create(state: &mut State, route: &Value) -> Outcome {
    let text = |key: &str| route[key].as_str().unwrap_or_default().to_owned();
    let destination =
        text("DestinationCidrBlock").parse().map_err(|_| ("InvalidParameterValue.Malformed", "range"))?;
    if state.routes.iter().any(|route| route.destination == destination) {
        return Err(("InvalidParameterValue.Duplicate", "there is one"));
    }
    if state.routes.len() >= state.quota {
        return Err(("LimitExceeded", "The number of routes exceeds the limit."));
    }
    state.next_id += 1;
    let route = Route {
        id: state.next_id,
        destination,
        gateway: text("GatewayId"),
        gateway_type: text("GatewayType"),
        enabled: route["Enabled"] == true,
    };
    state.routes.push(route);
    follow(state);
    Ok(json!({"TotalCount": 1}))
}

fn follow(state: &mut State) {
    if let Err(error) = state.steer() {
        eprintln!("the router of the cloud does not follow: {error:#}");
    }
}

fn shown(route: &Route) -> Value {
    json!({
        "RouteId": route.id, "DestinationCidrBlock": route.destination.to_string(), "RouteType": "USER",
        "GatewayType": route.gateway_type, "GatewayId": route.gateway, "Enabled": route.enabled,
    })
}
