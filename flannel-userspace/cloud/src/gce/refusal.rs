//! Why a call of Google's was not carried out.

use serde::Deserialize;

use super::resources::OperationErrors;
use crate::Trouble;

/// The body of an answer that is an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    error: Description,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Description {
    message: String,
    errors: Vec<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
}

/// Of an error page that is no answer of the API's so much is shown.
const EXCERPT: usize = 200;

/// What an answer with this status, which is not of success, and body means; and the cloud's words.
pub(super) fn of_answer(status: u16, body: &[u8]) -> (Trouble, String) {
    let body = serde_json::from_slice::<Body>(body)
        .map_or_else(|_| Description { message: excerpt(body), errors: Vec::new() }, |body| body.error);
    let reason = body.errors.first().map_or("", |error| error.reason.as_str());
    let trouble = match (status, reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded") | (429, _) => Trouble::Throttled,
        (403, "quotaExceeded") => Trouble::Full,
        (401 | 403, _) => Trouble::Denied,
        (404, _) => Trouble::NotFound,
        // One that exists already, and one that is not as it was read.
        (409 | 412, _) => Trouble::Conflict,
        (400..=499, _) => Trouble::Refused,
        _ => Trouble::Unavailable,
    };
    (trouble, if body.message.is_empty() { format!("status {status}") } else { body.message })
}

/// What it means that an operation has ended with these errors; and the cloud's words.
pub(super) fn of_operation(errors: &OperationErrors) -> (Trouble, String) {
    let message = errors.errors.iter().map(|error| format!("{}: {}", error.code, error.message));
    let trouble = match errors.errors.first().map_or("", |error| error.code.as_str()) {
        "QUOTA_EXCEEDED" => Trouble::Full,
        "RATE_LIMIT_EXCEEDED" | "RESOURCE_OPERATION_RATE_EXCEEDED" => Trouble::Throttled,
        "RESOURCE_NOT_FOUND" => Trouble::NotFound,
        "RESOURCE_ALREADY_EXISTS"
        | "RESOURCE_NOT_READY"
        | "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"
        | "CONDITION_NOT_MET" => Trouble::Conflict,
        "PERMISSIONS_ERROR" | "FORBIDDEN" => Trouble::Denied,
        "INVALID_FIELD_VALUE" | "INVALID_USAGE" | "BAD_REQUEST" => Trouble::Refused,
        _ => Trouble::Unavailable,
    };
    (trouble, message.collect::<Vec<_>>().join("; "))
}

fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(EXCERPT).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{of_answer, of_operation};
    use crate::Trouble;
    use crate::gce::resources::Operation;

    #[rstest]
    #[case::missing(404, "notFound", Trouble::NotFound)]
    #[case::exists(409, "alreadyExists", Trouble::Conflict)]
    #[case::stale(412, "conditionNotMet", Trouble::Conflict)]
    #[case::rate(403, "rateLimitExceeded", Trouble::Throttled)]
    #[case::rate_of_user(403, "userRateLimitExceeded", Trouble::Throttled)]
    #[case::too_many(429, "", Trouble::Throttled)]
    #[case::quota(403, "quotaExceeded", Trouble::Full)]
    #[case::denied(403, "forbidden", Trouble::Denied)]
    #[case::token(401, "authError", Trouble::Denied)]
    #[case::fault(503, "backendError", Trouble::Unavailable)]
    #[case::invalid(400, "invalid", Trouble::Refused)]
    #[case::elsewhere(302, "", Trouble::Unavailable)]
    fn what_an_answer_means(#[case] status: u16, #[case] reason: &str, #[case] trouble: Trouble) {
        let reason = format!(r#"{{"message":"why","domain":"global","reason":"{reason}"}}"#);
        let body = format!(r#"{{"error":{{"code":{status},"message":"why","errors":[{reason}]}}}}"#);
        assert_eq!(of_answer(status, body.as_bytes()), (trouble, "why".to_owned()));
    }

    #[rstest]
    #[case::page(b"<html>\n<title>502</title>", "<html> <title>502</title>")]
    #[case::nothing(b"", "status 502")]
    #[case::no_text(b"\xff\x00", "\u{fffd} ")]
    fn a_page_of_somebody_between_is_shown_in_part(#[case] body: &[u8], #[case] message: &str) {
        assert_eq!(of_answer(502, body), (Trouble::Unavailable, message.to_owned()));
        assert_eq!(of_answer(502, &[b'x'; 10_000]).1.len(), 200);
    }

    #[rstest]
    #[case("QUOTA_EXCEEDED", Trouble::Full)]
    #[case("RESOURCE_ALREADY_EXISTS", Trouble::Conflict)]
    #[case("SOMETHING_NEW", Trouble::Unavailable)]
    fn what_an_operation_ended_with(#[case] code: &str, #[case] trouble: Trouble) {
        let errors = format!(r#"{{"errors":[{{"code":"{code}","message":"why"}}]}}"#);
        let text = format!(r#"{{"name":"o","status":"DONE","error":{errors}}}"#);
        let operation: Operation = serde_json::from_str(&text).unwrap();
        assert_eq!(of_operation(&operation.error.unwrap()), (trouble, format!("{code}: why")));
    }
}
