//! The metadata service, second version.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, Path, State as Extracted};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, put};

use super::state::{Instance, Metadata, State};
use crate::cloud::Caller;

const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const ROLE: &str = "flannel";

type Shared = Arc<Mutex<State>>;

pub(super) fn service(state: Shared) -> Router {
    Router::new()
        .route("/latest/api/token", put(token))
        .route("/latest/meta-data/{*path}", get(read))
        .with_state(state)
}

fn lock(state: &Shared) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn token(Extracted(state): Extracted<Shared>, headers: HeaderMap) -> Response {
    let metadata = lock(&state).metadata;
    let longest = match metadata {
        Metadata::On(longest) => longest,
        Metadata::Forgetful => u32::MAX,
        Metadata::Off => return StatusCode::FORBIDDEN.into_response(),
        Metadata::Silent => return std::future::pending().await,
    };
    let asked: Option<u32> = headers.get(TTL).and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(asked) = asked.filter(|seconds| (1..=21_600).contains(seconds)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let seconds = asked.min(longest);
    let mut state = lock(&state);
    let token = format!("token-{}", state.tokens.len());
    state.tokens.insert(token.clone(), Instant::now() + Duration::from_secs(seconds.into()));
    // Clients that are told less would ask again in time: what is tried here is that they do when they are refused.
    ([(TTL, asked.to_string())], token).into_response()
}

async fn read(
    Extracted(state): Extracted<Shared>,
    ConnectInfo(caller): Caller,
    headers: HeaderMap,
    Path(path): Path<String>,
) -> Response {
    let metadata = lock(&state).metadata;
    match metadata {
        Metadata::On(_) | Metadata::Forgetful => {}
        Metadata::Off => return StatusCode::FORBIDDEN.into_response(),
        Metadata::Silent => return std::future::pending().await,
    }
    let mut state = lock(&state);
    let token = headers.get(TOKEN).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if state.tokens.get(token).is_none_or(|end| *end <= Instant::now()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if metadata == Metadata::Forgetful {
        state.tokens.clear();
        state.metadata = Metadata::On(u32::MAX);
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let IpAddr::V4(address) = caller.ip() else { return StatusCode::NOT_FOUND.into_response() };
    let answer = state.instances.get(&address).and_then(|instance| value(&state, address, instance, &path));
    answer.map_or_else(|| StatusCode::NOT_FOUND.into_response(), axum::response::IntoResponse::into_response)
}

fn value(state: &State, address: Ipv4Addr, instance: &Instance, path: &str) -> Option<String> {
    let of_interface = path.strip_prefix("network/interfaces/macs/");
    match of_interface.and_then(|rest| rest.strip_prefix(&format!("{}/", instance.mac))) {
        Some("local-ipv4s") => return Some(address.to_string()),
        Some("interface-id") => return Some(instance.interface.clone()),
        Some("subnet-id") => return Some(instance.subnet.clone()),
        Some("vpc-id") => return Some(instance.vpc.clone()),
        Some("vpc-ipv4-cidr-blocks") => return Some(state.range.to_string()),
        _ => {}
    }
    let is_of_role = instance.has_role && path.starts_with("iam/security-credentials");
    match path {
        "network/interfaces/macs/" => Some(format!("0e:00:00:00:00:01/\n{}/", instance.mac)),
        "placement/region" => Some("eu-central-1".to_owned()),
        "services/domain" => Some("amazonaws.com".to_owned()),
        "iam/security-credentials/" if is_of_role => Some(ROLE.to_owned()),
        "iam/security-credentials/flannel" if is_of_role => Some(
            r#"{"Code":"Success","AccessKeyId":"ASIAFLANNEL","SecretAccessKey":"canary-secret",
                "Token":"canary-token","Expiration":"2100-01-01T00:00:00Z"}"#
                .to_owned(),
        ),
        _ => None,
    }
}
