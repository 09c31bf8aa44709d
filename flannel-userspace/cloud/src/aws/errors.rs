//! What refusals of Amazon's services mean.

use super::answers::{self, Refusal};
use crate::http::StatusCode;
use crate::{CloudError, Trouble};

/// Most of what a service says that is repeated.
const LONGEST: usize = 300;
/// From here on it is for machines.
const ENCODED: &str = "Encoded authorization failure message";

/// The refusal in `body`.
pub(super) fn failure(action: &'static str, status: StatusCode, body: &[u8]) -> CloudError {
    let refusal: Option<Refusal> = answers::read(action, body).ok();
    let first = refusal.and_then(|refusal| {
        refusal.error.or_else(|| refusal.errors.and_then(|errors| errors.error.into_iter().next()))
    });
    let Some(first) = first else {
        let trouble = match status {
            StatusCode::TOO_MANY_REQUESTS => Trouble::Throttled,
            status if status.is_server_error() => Trouble::Unavailable,
            _ => Trouble::Garbage,
        };
        return CloudError::new(
            trouble,
            action,
            format!("the answer is {status} and no refusal of the service"),
        );
    };
    let trouble = trouble(&first.code, status);
    let message = format!("{}: {}", printable(&first.code), printable(&first.message));
    CloudError::new(trouble, action, message)
}

fn trouble(code: &str, status: StatusCode) -> Trouble {
    match code {
        "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "TooManyRequestsException"
        | "SlowDown"
        | "BandwidthLimitExceeded"
        | "EC2ThrottledException" => Trouble::Throttled,
        "UnauthorizedOperation"
        | "AccessDenied"
        | "AccessDeniedException"
        | "AuthFailure"
        | "Blocked"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidIdentityToken"
        | "IDPRejectedClaim"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "OptInRequired"
        | "PendingVerification"
        | "RequestExpired"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Trouble::Denied,
        "RouteAlreadyExists" | "InvalidRoute.NotFound" => Trouble::Conflict,
        "RouteLimitExceeded" => Trouble::Full,
        "InternalError"
        | "InternalFailure"
        | "Unavailable"
        | "ServiceUnavailable"
        | "IDPCommunicationError" => Trouble::Unavailable,
        code if code.ends_with(".NotFound") || code.ends_with(".Malformed") => Trouble::NotFound,
        _ if status.is_server_error() => Trouble::Unavailable,
        _ => Trouble::Refused,
    }
}

/// On one line, and not too long.
fn printable(text: &str) -> String {
    let text = text.split(ENCODED).next().unwrap_or_default().trim();
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::failure;
    use crate::Trouble;
    use crate::http::StatusCode;

    fn ec2(code: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><Response><Errors><Error><Code>{code}</Code><Message>no.\nEncoded authorization \
             failure message: AbC</Message></Error></Errors><RequestID>x</RequestID></Response>"
        )
    }

    #[rstest]
    #[case(503, "RequestLimitExceeded", Trouble::Throttled)]
    #[case(403, "UnauthorizedOperation", Trouble::Denied)]
    #[case(400, "RouteAlreadyExists", Trouble::Conflict)]
    #[case(400, "RouteLimitExceeded", Trouble::Full)]
    #[case(400, "InvalidRouteTableID.NotFound", Trouble::NotFound)]
    #[case(500, "Whatever", Trouble::Unavailable)]
    #[case(400, "InvalidParameterValue", Trouble::Refused)]
    fn codes_mean_something(#[case] status: u16, #[case] code: &str, #[case] trouble: Trouble) {
        let failure = failure("CreateRoute", StatusCode::from_u16(status).unwrap(), ec2(code).as_bytes());
        assert_eq!(failure.to_string(), format!("CreateRoute: {code}: no."));
        assert_eq!(failure.trouble, trouble);
    }

    #[test]
    fn sts_has_one_error() {
        let body = b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>x</Message></Error></ErrorResponse>";
        assert_eq!(failure("x", StatusCode::FORBIDDEN, body).trouble, Trouble::Denied);
    }

    #[rstest]
    #[case(200, Trouble::Garbage)]
    #[case(429, Trouble::Throttled)]
    #[case(502, Trouble::Unavailable)]
    fn what_is_no_refusal(#[case] status: u16, #[case] trouble: Trouble) {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(failure("x", status, b"<html>gateway</html>").trouble, trouble);
    }
}
