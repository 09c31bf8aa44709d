//! ACS3-HMAC-SHA256, by which calls of Alibaba Cloud are signed: in headers, so that no URL has anything secret.
//! <https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature>

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

/// All that is not unreserved (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A call that is to be signed: a POST to `/` with its parameters in the query and no body.
pub(super) struct Call<'a> {
    /// The header `Host`.
    pub(super) host: &'a str,
    /// What is to be done.
    pub(super) action: &'a str,
    /// The version of the API.
    pub(super) version: &'a str,
    /// The parameters.
    pub(super) parameters: &'a [(&'a str, &'a str)],
    /// Now.
    pub(super) time: Timestamp,
    /// Never used twice.
    pub(super) nonce: &'a str,
    /// The token that belongs to a key of a role.
    pub(super) security_token: Option<&'a str>,
}

impl Call<'_> {
    /// The query.
    pub(super) fn query(&self) -> String {
        let mut parameters: Vec<String> = self
            .parameters
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        parameters.sort_unstable();
        parameters.join("&")
    }

    /// The headers, with the signature by this key among them.
    pub(super) fn headers(&self, key_id: &str, key_secret: &str) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("host", self.host.to_owned()),
            ("x-acs-action", self.action.to_owned()),
            ("x-acs-content-sha256", hex::encode(Sha256::digest(b""))),
            ("x-acs-date", self.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ];
        // Signed headers are in the order of their names.
        headers.extend(self.security_token.map(|token| ("x-acs-security-token", token.to_owned())));
        headers.push(("x-acs-signature-nonce", self.nonce.to_owned()));
        headers.push(("x-acs-version", self.version.to_owned()));
        let authorization = self.authorization(&headers, key_id, key_secret);
        headers.push(("authorization", authorization));
        headers
    }

    fn authorization(&self, headers: &[(&'static str, String)], key_id: &str, key_secret: &str) -> String {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let signed = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let body = hex::encode(Sha256::digest(b""));
        let canonical = format!("POST\n/\n{}\n{lines}\n{signed}\n{body}", self.query());
        let text = format!("ACS3-HMAC-SHA256\n{}", hex::encode(Sha256::digest(canonical)));
        let signature = keyed_hash(key_secret, &text);
        format!("ACS3-HMAC-SHA256 Credential={key_id},SignedHeaders={signed},Signature={signature}")
    }
}

fn keyed_hash(key: &str, text: &str) -> String {
    // A key may be of any length (RFC 2104).
    let Ok(mut hash) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    hash.update(text.as_bytes());
    hex::encode(hash.finalize().into_bytes())
}

fn escaped(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

#[cfg(test)]
mod tests {
    use super::Call;

    fn call<'a>(parameters: &'a [(&'a str, &'a str)], security_token: Option<&'a str>) -> Call<'a> {
        Call {
            host: "ecs.cn-shanghai.aliyuncs.com",
            action: "RunInstances",
            version: "2014-05-26",
            parameters,
            time: "2023-10-26T10:22:32Z".parse().unwrap(),
            nonce: "3156853299f313e23d1673dc12e1703d",
            security_token,
        }
    }

    /// The example of the description.
    #[test]
    fn the_published_example() {
        let image = "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd";
        let parameters = [("RegionId", "cn-shanghai"), ("ImageId", image)];
        let headers = call(&parameters, None).headers("YourAccessKeyId", "YourAccessKeySecret");
        let expected = "ACS3-HMAC-SHA256 Credential=YourAccessKeyId,\
                        SignedHeaders=host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version,\
                        Signature=06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0";
        assert_eq!(headers.last(), Some(&("authorization", expected.to_owned())));
    }

    #[test]
    fn a_roles_token_is_signed_too() {
        let headers = call(&[], Some("token")).headers("id", "secret");
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        assert!(names[..names.len() - 1].is_sorted(), "{names:?}");
        let (_, authorization) = headers.last().unwrap();
        assert!(authorization.contains(";x-acs-security-token;"), "{authorization}");
    }

    #[test]
    fn a_query_is_escaped_and_in_order() {
        let parameters = [("b", "10.5.1.0/24"), ("a", "x y*~")];
        assert_eq!(call(&parameters, None).query(), "a=x%20y%2A~&b=10.5.1.0%2F24");
    }
}
