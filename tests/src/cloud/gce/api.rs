//! The Compute Engine API.

use std::net::Ipv4Addr;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use ipnetwork::Ipv4Network;
use serde_json::{Value, json};

use super::state::{Change, Operation, Route, State};
use crate::cloud::mood::{Mood, json as json_answer};

/// Routes on one page.
const PAGE: usize = 2;
const URL: &str = "https://www.googleapis.com/compute/v1/";

/// An answer, or one that is an error: status, reason and message.
type Outcome = Result<Value, (StatusCode, &'static str, String)>;

pub(super) fn serve(state: &mut State, head: &Parts, body: &[u8]) -> Response<Body> {
    state.calls.push(format!("{} {}", head.method, head.uri.path()));
    if let Some(page) = state.mood.page() {
        return page;
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match outcome(state, head, &body) {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err((status, reason, message)) => {
            let errors = json!([{"message": message, "domain": "global", "reason": reason}]);
            json_answer(
                status,
                &json!({"error": {"code": status.as_u16(), "message": message, "errors": errors}}),
            )
        }
    }
}

fn outcome(state: &mut State, head: &Parts, body: &Value) -> Outcome {
    let bearer =
        head.headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    if !bearer.is_some_and(|token| state.tokens.contains(token)) {
        return Err((StatusCode::UNAUTHORIZED, "authError", "Invalid Credentials".to_owned()));
    }
    match state.mood {
        Mood::Throttling => {
            return Err((StatusCode::FORBIDDEN, "rateLimitExceeded", "Rate Limit Exceeded".to_owned()));
        }
        Mood::Denying => {
            let message = "Required 'compute.routes.list' permission for 'projects/shop'";
            return Err((StatusCode::FORBIDDEN, "forbidden", message.to_owned()));
        }
        _ => {}
    }
    let path = head.uri.path().strip_prefix("/compute/v1/projects/").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').collect();
    let network_project = <[&str; 2]>::from(state.network_project());
    match (head.method.as_str(), &parts[..]) {
        ("GET", [project]) if network_project.contains(project) => {
            Ok(json!({"quotas": [{"metric": "ROUTES", "limit": state.quota, "usage": state.routes.len()}]}))
        }
        ("GET", [project, "global", "networks", "vpc"]) if network_project.contains(project) => {
            Ok(json!({"name": "vpc", "selfLink": format!("{URL}{}", state.network_path())}))
        }
        ("GET", ["shop", "zones", "europe-west1-b", "instances", name]) => instance(state, name),
        ("PATCH", ["shop", "zones", "europe-west1-b", "instances", name, "updateNetworkInterface"]) => {
            change_aliases(state, name, body)
        }
        ("GET", [project, "global", "routes"]) if network_project.contains(project) => {
            Ok(list(state, head.uri.query().unwrap_or_default()))
        }
        ("POST", [project, "global", "routes"]) if network_project.contains(project) => insert(state, body),
        ("DELETE", [project, "global", "routes", id]) if network_project.contains(project) => {
            delete(state, id)
        }
        ("POST", [_, "global", "operations", name, "wait"])
        | ("POST", [_, "zones", _, "operations", name, "wait"]) => wait(state, name),
        _ => Err((StatusCode::NOT_FOUND, "notFound", format!("The resource '{path}' was not found"))),
    }
}

fn instance(state: &State, name: &str) -> Outcome {
    let found = state.instances.iter().find(|(_, instance)| instance.name == name);
    let (address, instance) =
        found.ok_or_else(|| (StatusCode::NOT_FOUND, "notFound", format!("no instance {name}")))?;
    let aliases: Vec<Value> =
        instance.aliases.iter().map(|range| json!({"ipCidrRange": range.to_string()})).collect();
    Ok(json!({
        "name": name, "canIpForward": instance.can_ip_forward,
        "selfLink": format!("{URL}projects/shop/zones/europe-west1-b/instances/{name}"),
        "networkInterfaces": [{
            "name": "nic0", "networkIP": address, "fingerprint": format!("f{}", instance.fingerprint),
            "aliasIpRanges": aliases,
        }],
    }))
}

fn change_aliases(state: &mut State, name: &str, body: &Value) -> Outcome {
    let found = state.instances.iter().find(|(_, instance)| instance.name == name);
    let (address, instance) =
        found.ok_or_else(|| (StatusCode::NOT_FOUND, "notFound", format!("no instance {name}")))?;
    if body["fingerprint"] != format!("f{}", instance.fingerprint) {
        return Err((
            StatusCode::PRECONDITION_FAILED,
            "conditionNotMet",
            "Supplied fingerprint is stale".to_owned(),
        ));
    }
    let ranges = body["aliasIpRanges"].as_array().cloned().unwrap_or_default();
    let aliases = ranges.iter().filter_map(|range| range["ipCidrRange"].as_str()?.parse().ok()).collect();
    let change = Change::Aliases(*address, aliases);
    Ok(begin(state, change))
}

fn list(state: &mut State, query: &str) -> Value {
    let offset: usize = query
        .split('&')
        .find_map(|part| part.strip_prefix("pageToken=page"))
        .and_then(|offset| offset.parse().ok())
        .unwrap_or_default();
    let network = format!("{URL}{}", state.network_path());
    let subnetworks = state.subnetworks.iter().map(|range| {
        json!({"id": "1", "name": "default-route-1", "destRange": range.to_string(), "network": network,
               "nextHopNetwork": network, "priority": 0})
    });
    let made = state.routes.iter().filter(|route| route.hidden_for == 0).map(|route| shown(state, route));
    let all: Vec<Value> = subnetworks.chain(made).collect();
    let items: Vec<Value> = all.iter().skip(offset).take(PAGE).cloned().collect();
    let next = (offset + PAGE < all.len()).then(|| format!("page{}", offset + PAGE));
    if next.is_none() {
        for route in &mut state.routes {
            route.hidden_for = route.hidden_for.saturating_sub(1);
        }
    }
    json!({"kind": "compute#routeList", "items": items, "nextPageToken": next})
}

fn shown(state: &State, route: &Route) -> Value {
    let warnings = match state.target(route) {
        Some(_) => json!([]),
        None => json!([{"code": "NEXT_HOP_NOT_RUNNING", "message": "The next hop is not running."}]),
    };
    json!({
        "id": route.id.to_string(), "name": route.name, "destRange": route.dest_range.to_string(),
        "network": format!("{URL}{}", route.network), "priority": 1000,
        "nextHopIp": route.next_hop_ip, "warnings": warnings,
        "nextHopInstance": route.next_hop_instance.as_ref().map(|path| format!("{URL}{path}")),
    })
}

fn insert(state: &mut State, body: &Value) -> Outcome {
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let invalid =
        |what: &str| (StatusCode::BAD_REQUEST, "invalid", format!("Invalid value for field '{what}'"));
    let name = text("name");
    let dest_range: Ipv4Network = text("destRange").parse().map_err(|_| invalid("destRange"))?;
    let next_hop_ip: Ipv4Addr = text("nextHopIp").parse().map_err(|_| invalid("nextHopIp"))?;
    if text("network") != state.network_path() {
        return Err(invalid("network"));
    }
    if state.subnetworks.iter().any(|range| dest_range.is_subnet_of(*range)) {
        return Err(invalid("destRange"));
    }
    if state.routes.iter().any(|route| route.name == name) {
        return Err((StatusCode::CONFLICT, "alreadyExists", format!("The resource '{name}' already exists")));
    }
    if state.routes.len() >= state.quota {
        let message = format!("Quota 'ROUTES' exceeded. Limit: {}.0 globally.", state.quota);
        return Err((StatusCode::FORBIDDEN, "quotaExceeded", message));
    }
    let route = Route {
        id: state.id(),
        name,
        dest_range,
        network: state.network_path(),
        next_hop_ip: Some(next_hop_ip),
        next_hop_instance: None,
        hidden_for: state.hides_new_for,
    };
    Ok(begin(state, Change::Insert(route)))
}

fn delete(state: &mut State, id: &str) -> Outcome {
    let found = state.routes.iter().find(|route| route.id.to_string() == id || route.name == id);
    let id = found.ok_or_else(|| (StatusCode::NOT_FOUND, "notFound", format!("no route {id}")))?.id;
    Ok(begin(state, Change::Delete(id)))
}

fn begin(state: &mut State, change: Change) -> Value {
    let name = format!("operation-{}", state.id());
    let error = state.operation_error.filter(|_| matches!(change, Change::Insert(_)));
    state.operations.insert(name.clone(), Operation { steps: 2, change, error });
    json!({"kind": "compute#operation", "name": name, "status": "PENDING", "progress": 0})
}

fn wait(state: &mut State, name: &str) -> Outcome {
    let operation = state
        .operations
        .get_mut(name)
        .ok_or_else(|| (StatusCode::NOT_FOUND, "notFound", format!("no operation {name}")))?;
    operation.steps = operation.steps.saturating_sub(1);
    if operation.steps > 0 {
        return Ok(json!({"name": name, "status": "RUNNING", "progress": 50}));
    }
    let Some(operation) = state.operations.remove(name) else { return Ok(Value::Null) };
    match operation.error {
        Some(code) => {
            let errors = json!([{"code": code, "message": "what the operation ended with"}]);
            Ok(json!({"name": name, "status": "DONE", "error": {"errors": errors}}))
        }
        None => {
            state.apply(operation.change);
            Ok(json!({"name": name, "status": "DONE", "progress": 100}))
        }
    }
}
