//! AWS Signature Version 4, for requests by POST to `/`: the form of the Query API.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};

use super::credentials::Credentials;
use crate::http::Request;

/// The type of the body.
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";
const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a signature is good for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    pub(super) time: Timestamp,
}

/// A request for `body` at the root of `url`, signed.
pub(super) fn signed(
    url: &str,
    body: String,
    credentials: &Credentials,
    scope: Scope<'_>,
) -> Result<Request<Bytes>, ::http::Error> {
    let url = format!("{url}/");
    let uri: ::http::Uri = url.parse()?;
    let host = uri.authority().map(ToString::to_string).unwrap_or_default();
    let (day, moment) = times(scope.time);
    let mut headers = vec![("content-type", FORM), ("host", host.as_str()), ("x-amz-date", moment.as_str())];
    if let Some(token) = &credentials.token {
        headers.push(("x-amz-security-token", token.expose()));
    }
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let canonical = canonical(uri.path(), &headers, &names, body.as_bytes());
    let place = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{moment}\n{place}\n{}", hash(canonical.as_bytes()));
    let key = signing_key(credentials.secret.expose(), &day, scope);
    let signature = hex::encode(mac(&key, &to_sign));
    let id = &credentials.id;
    let authorization =
        format!("{ALGORITHM} Credential={id}/{place}, SignedHeaders={names}, Signature={signature}");
    let request =
        headers.iter().fold(Request::post(uri), |request, (name, value)| request.header(*name, *value));
    request.header("authorization", authorization).body(Bytes::from(body))
}

fn canonical(path: &str, headers: &[(&str, &str)], names: &str, body: &[u8]) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    format!("POST\n{path}\n\n{headers}\n{names}\n{}", hash(body))
}

/// The day and the moment, as signatures have them.
fn times(time: Timestamp) -> (String, String) {
    let time = time.to_zoned(TimeZone::UTC);
    let day = format!("{:04}{:02}{:02}", time.year(), time.month(), time.day());
    let moment = format!("{day}T{:02}{:02}{:02}Z", time.hour(), time.minute(), time.second());
    (day, moment)
}

fn signing_key(secret: &str, day: &str, scope: Scope<'_>) -> Vec<u8> {
    [day, scope.region, scope.service, "aws4_request"]
        .iter()
        .fold(format!("AWS4{secret}").into_bytes(), |key, part| mac(&key, part))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use flannel_model::secret::Secret;
    use jiff::Timestamp;

    use super::{Scope, canonical, hash, mac, signed, signing_key};
    use crate::aws::credentials::Credentials;

    /// Keys and moment of Amazon's test suite for signatures.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn scope() -> Scope<'static> {
        let time: Timestamp = "2015-08-30T12:36:00Z".parse().unwrap();
        Scope { region: "us-east-1", service: "service", time }
    }

    fn signature(headers: &[(&str, &str)], names: &str, body: &[u8]) -> String {
        let canonical = canonical("/", headers, names, body);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n{}",
            hash(canonical.as_bytes())
        );
        hex::encode(mac(&signing_key(SECRET, "20150830", scope()), &to_sign))
    }

    /// `post-vanilla` of the suite.
    #[test]
    fn vector_without_a_body() {
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let signature = signature(&headers, "host;x-amz-date", b"");
        assert_eq!(signature, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
    }

    /// `post-x-www-form-urlencoded` of the suite.
    #[test]
    fn vector_of_a_form() {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("host", "example.amazonaws.com"),
            ("x-amz-date", "20150830T123600Z"),
        ];
        let signature = signature(&headers, "content-type;host;x-amz-date", b"Param1=value1");
        assert_eq!(signature, "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
    }

    #[test]
    fn a_request_carries_its_signature_and_no_secret() {
        let credentials = Credentials {
            id: "AKIDEXAMPLE".to_owned(),
            secret: Secret::new(SECRET),
            token: Some(Secret::new("session")),
            expires: None,
            from: "test",
        };
        let request = signed("http://127.0.0.1:5000", "Action=X".to_owned(), &credentials, scope()).unwrap();
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert!(
            authorization.starts_with(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature="
            ),
            "{authorization}"
        );
        assert_eq!(request.headers()["host"], "127.0.0.1:5000");
        assert!(!format!("{request:?}").contains(SECRET));
    }
}
