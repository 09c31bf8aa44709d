//! The metadata server, and the exchange of keys for tokens.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::json;

use super::state::State;
use crate::cloud::mood::{answer, json as json_answer};

pub(super) fn serve(state: &mut State, caller: IpAddr, head: &Parts, body: &[u8]) -> Response<Body> {
    if head.uri.path() == "/token" {
        return exchange(state, body);
    }
    if head.headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return answer(
            StatusCode::FORBIDDEN,
            "text/html",
            "Missing Metadata-Flavor:Google header.".to_owned(),
        );
    }
    let mut answer = find(state, caller, head);
    answer.headers_mut().insert("metadata-flavor", HeaderValue::from_static("Google"));
    answer
}

fn find(state: &mut State, caller: IpAddr, head: &Parts) -> Response<Body> {
    let IpAddr::V4(address) = caller else { return missing() };
    let Some(instance) = state.instances.get(&address) else { return missing() };
    let (_, number) = state.network_project();
    match head.uri.path().strip_prefix("/computeMetadata/v1/").unwrap_or_default() {
        "instance/" => json_answer(
            StatusCode::OK,
            &json!({
                "name": instance.name, "hostname": "a-name-of-its-own.example.com",
                "zone": "projects/12345/zones/europe-west1-b",
                "networkInterfaces": [{"ip": address, "network": format!("projects/{number}/networks/vpc")}],
            }),
        ),
        "project/project-id" => answer(StatusCode::OK, "application/text", "shop".to_owned()),
        "instance/service-accounts/default/token" => token(state),
        _ => missing(),
    }
}

/// A signed wish is taken if it is for the account; that it is signed well is for unit tests.
fn exchange(state: &mut State, body: &[u8]) -> Response<Body> {
    let body = String::from_utf8_lossy(body);
    if body.starts_with("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey") {
        token(state)
    } else {
        json_answer(
            StatusCode::BAD_REQUEST,
            &json!({"error": "invalid_grant", "error_description": "canary"}),
        )
    }
}

fn token(state: &mut State) -> Response<Body> {
    state.tokens_given += 1;
    let token = format!("ya29.canary-{}", state.tokens_given);
    state.tokens.insert(token.clone());
    let life = state.token_life;
    json_answer(StatusCode::OK, &json!({"access_token": token, "expires_in": life, "token_type": "Bearer"}))
}

fn missing() -> Response<Body> {
    answer(StatusCode::NOT_FOUND, "text/html", "<html>404</html>".to_owned())
}
