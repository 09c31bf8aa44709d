//! TC3-HMAC-SHA256, by which calls of Tencent Cloud are signed. <https://www.tencentcloud.com/document/api/614/42761>

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// The headers that are signed, both of which every call has.
const SIGNED: &str = "content-type;host";

/// The type of every body.
pub(super) const CONTENT_TYPE: &str = "application/json; charset=utf-8";

/// A call that is to be signed: a POST of [`CONTENT_TYPE`] to `/`.
pub(super) struct Call<'a> {
    /// The service, such as `vpc`.
    pub(super) service: &'a str,
    /// The header `Host`.
    pub(super) host: &'a str,
    /// The body.
    pub(super) body: &'a [u8],
    /// The header `X-TC-Timestamp`, as a number.
    pub(super) time: Timestamp,
}

impl Call<'_> {
    /// The header `Authorization` with the signature by this key.
    pub(super) fn authorization(&self, key_id: &str, key_secret: &str) -> String {
        let date = self.time.strftime("%Y-%m-%d").to_string();
        let scope = format!("{date}/{}/tc3_request", self.service);
        let canonical = format!(
            "POST\n/\n\ncontent-type:{CONTENT_TYPE}\nhost:{}\n\n{SIGNED}\n{}",
            self.host,
            hex::encode(Sha256::digest(self.body))
        );
        let hashed = hex::encode(Sha256::digest(canonical));
        let text = format!("TC3-HMAC-SHA256\n{}\n{scope}\n{hashed}", self.time.as_second());
        let key = [date.as_str(), self.service, "tc3_request"]
            .iter()
            .fold(format!("TC3{key_secret}").into_bytes(), |key, part| keyed_hash(&key, part));
        let signature = hex::encode(keyed_hash(&key, &text));
        format!("TC3-HMAC-SHA256 Credential={key_id}/{scope}, SignedHeaders={SIGNED}, Signature={signature}")
    }
}

fn keyed_hash(key: &[u8], text: &str) -> Vec<u8> {
    // A key may be of any length (RFC 2104).
    let Ok(mut hash) = Hmac::<Sha256>::new_from_slice(key) else { return Vec::new() };
    hash.update(text.as_bytes());
    hash.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::Call;

    /// The example of the description.
    #[test]
    fn the_published_example() {
        let body =
            br#"{"Limit": 1, "Filters": [{"Values": ["\u672a\u547d\u540d"], "Name": "instance-name"}]}"#;
        let call = Call {
            service: "cvm",
            host: "cvm.tencentcloudapi.com",
            body,
            time: Timestamp::from_second(1_551_113_065).unwrap(),
        };
        let expected = "TC3-HMAC-SHA256 Credential=AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE/2019-02-25/cvm/tc3_request, \
                        SignedHeaders=content-type;host, \
                        Signature=72e494ea809ad7a8c8f7a4507b9bddcbaa8e581f516e8da2f66e2c5a96525168";
        let (id, secret) = ("AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE", "Gu5t9xGARNpq86cd98joQYCN3EXAMPLE");
        assert_eq!(call.authorization(id, secret), expected);
    }
}
