//! TC3-HMAC-SHA256 as the service computes it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// The header that this call should have; nothing if its time is none.
pub(super) fn authorization(id: &str, secret: &str, host: &str, time: &str, body: &[u8]) -> Option<String> {
    let date = Timestamp::from_second(time.parse().ok()?).ok()?.strftime("%Y-%m-%d").to_string();
    let hash = |data: &[u8]| hex::encode(Sha256::digest(data));
    let canonical = format!(
        "POST\n/\n\ncontent-type:application/json; charset=utf-8\nhost:{host}\n\ncontent-type;host\n{}",
        hash(body)
    );
    let scope = format!("{date}/vpc/tc3_request");
    let text = format!("TC3-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.as_bytes()));
    let day = keyed(format!("TC3{secret}").as_bytes(), &date)?;
    let key = keyed(&keyed(&day, "vpc")?, "tc3_request")?;
    let signature = hex::encode(keyed(&key, &text)?);
    Some(format!(
        "TC3-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders=content-type;host, Signature={signature}"
    ))
}

fn keyed(key: &[u8], text: &str) -> Option<Vec<u8>> {
    let mut hash = Hmac::<Sha256>::new_from_slice(key).ok()?;
    hash.update(text.as_bytes());
    Some(hash.finalize().into_bytes().to_vec())
}
