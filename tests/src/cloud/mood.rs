//! How the API of a cloud feels today, and what was asked of it.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};

/// What an API does with calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It does as it is told.
    #[default]
    Willing,
    /// There were too many calls.
    Throttling,
    /// The caller may not.
    Denying,
    /// It has a fault.
    Failing,
    /// Somebody between answers with a page, as if that were a success.
    Babbling,
    /// It answers late.
    Slow(Duration),
    /// It never answers.
    Silent,
}

impl Mood {
    /// The answer that is none of the API's, where there is one.
    pub(super) fn page(self) -> Option<Response<Body>> {
        let (status, text) = match self {
            Self::Failing => (StatusCode::BAD_GATEWAY, "<html><title>502</title></html>"),
            Self::Babbling => (StatusCode::OK, "<html><title>Welcome</title></html>"),
            _ => return None,
        };
        Some(answer(status, "text/html", text.to_owned()))
    }

    /// Waits for as long as the API does.
    pub(super) async fn wait(self) {
        match self {
            Self::Slow(time) => tokio::time::sleep(time).await,
            Self::Silent => std::future::pending().await,
            _ => {}
        }
    }
}

/// An answer.
pub(super) fn answer(status: StatusCode, kind: &str, body: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(body));
    *answer.status_mut() = status;
    if let Ok(kind) = kind.parse() {
        answer.headers_mut().insert("content-type", kind);
    }
    answer
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", body.to_string())
}
