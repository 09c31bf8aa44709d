//! Tokens of OAuth 2.0: what is sent for one, and what comes back.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};

use super::key_file::KeyFile;

/// All that flanneld needs to do.
const SCOPE: &str = "https://www.googleapis.com/auth/compute";
/// For how long a signed wish for a token is good: the longest that is taken.
const LIFE: Duration = Duration::from_secs(3600);
/// So long before it expires a token is replaced: a call must not begin with one that expires on its way.
const MARGIN: Duration = Duration::from_secs(60);

/// A token, as the answer has it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Token {
    access_token: String,
    expires_in: u64,
}

/// Nothing secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token for {} s", self.expires_in)
    }
}

impl Token {
    /// The value of the header `Authorization` of requests with it.
    pub(super) fn authorization(&self) -> String {
        format!("Bearer {}", self.access_token)
    }

    /// For how long it is to be used.
    pub(super) const fn use_for(&self) -> Duration {
        Duration::from_secs(self.expires_in).saturating_sub(MARGIN)
    }
}

/// A private key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PrivateKeyError {
    /// It is not PEM with the label PRIVATE KEY.
    #[error("the private_key is not PKCS #8 in PEM (BEGIN PRIVATE KEY)")]
    Pem,
    /// It is no RSA key that can sign.
    #[error("the private_key is not an RSA key of 2048 to 4096 bits")]
    Key,
}

/// The body of the request for a token, of the type `application/x-www-form-urlencoded`; `now` in seconds since 1970.
///
/// # Errors
/// The private key cannot be used.
pub(super) fn form(file: &KeyFile, now: u64) -> Result<String, PrivateKeyError> {
    match file {
        KeyFile::ServiceAccount { client_email, private_key_id, private_key, token_uri } => {
            let claims = Claims {
                iss: client_email,
                scope: SCOPE,
                aud: token_uri,
                iat: now,
                exp: now + LIFE.as_secs(),
            };
            let assertion = assertion(&claims, private_key_id, private_key)?;
            // A base64url text needs no escaping.
            Ok(format!(
                "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}"
            ))
        }
        KeyFile::AuthorizedUser { client_id, client_secret, refresh_token } => Ok(format!(
            "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
            escaped(client_id),
            escaped(client_secret),
            escaped(refresh_token),
        )),
    }
}

/// Claims of a JSON Web Token (RFC 7519) that is exchanged for a token (RFC 7523).
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: u64,
    exp: u64,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

/// The claims, signed by RS256 (RFC 7518, 3.3).
fn assertion(claims: &Claims<'_>, key_id: &str, private_key: &str) -> Result<String, PrivateKeyError> {
    let header = Header { alg: "RS256", typ: "JWT", kid: key_id };
    let signed = format!("{}.{}", encoded(&header), encoded(claims));
    let key = RsaKeyPair::from_pkcs8(&der(private_key)?).map_err(|_| PrivateKeyError::Key)?;
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .map_err(|_| PrivateKeyError::Key)?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encoded(part: &impl Serialize) -> String {
    // Texts and numbers always have a form in JSON.
    URL_SAFE_NO_PAD.encode(serde_json::to_string(part).unwrap_or_default())
}

/// What is in a PEM text (RFC 7468) of that label.
fn der(pem: &str) -> Result<Vec<u8>, PrivateKeyError> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----").ok_or(PrivateKeyError::Pem)?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----").ok_or(PrivateKeyError::Pem)?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).map_err(|_| PrivateKeyError::Pem)
}

fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
    use rstest::rstest;

    use super::{PrivateKeyError, Token, der, form};
    use crate::gce::key_file::KeyFile;

    /// Of `openssl genpkey -algorithm RSA`, for this test alone.
    const KEY: &str = include_str!("test_key.pem");

    fn service_account(private_key: &str) -> KeyFile {
        KeyFile::ServiceAccount {
            client_email: "flannel@p.iam.gserviceaccount.com".to_owned(),
            private_key_id: "k1".to_owned(),
            private_key: private_key.to_owned(),
            token_uri: "https://oauth2.example.com/token".to_owned(),
        }
    }

    #[test]
    fn a_service_account_signs_what_it_asks_for() {
        let form = form(&service_account(KEY), 1_700_000_000).unwrap();
        let assertion = form
            .strip_prefix("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=")
            .unwrap();
        let (signed, signature) = assertion.rsplit_once('.').unwrap();
        let key = RsaKeyPair::from_pkcs8(&der(KEY).unwrap()).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let parts: Vec<String> = signed
            .split('.')
            .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
            .collect();
        assert_eq!(parts[0], r#"{"alg":"RS256","typ":"JWT","kid":"k1"}"#);
        assert_eq!(
            parts[1],
            r#"{"iss":"flannel@p.iam.gserviceaccount.com","scope":"https://www.googleapis.com/auth/compute","aud":"https://oauth2.example.com/token","iat":1700000000,"exp":1700003600}"#
        );
    }

    #[rstest]
    #[case::not_pem("SECRET", PrivateKeyError::Pem)]
    #[case::other_label(
        "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----",
        PrivateKeyError::Pem
    )]
    #[case::not_base64("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", PrivateKeyError::Pem)]
    #[case::no_key("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", PrivateKeyError::Key)]
    fn a_key_that_is_none_is_refused(#[case] key: &str, #[case] error: PrivateKeyError) {
        assert_eq!(form(&service_account(key), 0), Err(error));
    }

    #[test]
    fn a_user_refreshes() {
        let user = KeyFile::AuthorizedUser {
            client_id: "c".to_owned(),
            client_secret: "a+b".to_owned(),
            refresh_token: "1//x".to_owned(),
        };
        let expected = "grant_type=refresh_token&client_id=c&client_secret=a%2Bb&refresh_token=1%2F%2Fx";
        assert_eq!(form(&user, 0).as_deref(), Ok(expected));
    }

    #[test]
    fn a_token_is_not_used_to_its_end_and_not_shown() {
        let answer = r#"{"access_token":"ya29.SECRET","expires_in":3599,"token_type":"Bearer"}"#;
        let token: Token = serde_json::from_str(answer).unwrap();
        assert_eq!(
            (token.authorization().as_str(), token.use_for()),
            ("Bearer ya29.SECRET", Duration::from_secs(3539))
        );
        assert_eq!(format!("{token:?}"), "token for 3599 s");
    }
}
