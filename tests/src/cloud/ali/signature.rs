//! ACS3-HMAC-SHA256 as the service computes it.

use axum::http::request::Parts;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

/// Whether the call is signed with this key. The query is canonical if the signature is.
pub(super) fn is_by(head: &Parts, (id, secret): (&str, &str)) -> bool {
    expected(head, id, secret).is_some_and(|expected| {
        head.headers.get("authorization").is_some_and(|given| given.as_bytes() == expected.as_bytes())
    })
}

fn expected(head: &Parts, id: &str, secret: &str) -> Option<String> {
    let given = head.headers.get("authorization")?.to_str().ok()?;
    let signed = given.split("SignedHeaders=").nth(1)?.split(',').next()?;
    // What must be signed for the call to be this one.
    let needed = ["host", "x-acs-action", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"];
    if needed.iter().any(|needed| !signed.split(';').any(|name| name == *needed)) {
        return None;
    }
    let mut lines = String::new();
    for name in signed.split(';') {
        lines.push_str(&format!("{name}:{}\n", head.headers.get(name)?.to_str().ok()?));
    }
    let hash = |text: &str| hex::encode(Sha256::digest(text));
    let query = head.uri.query().unwrap_or_default();
    let canonical = format!("{}\n/\n{query}\n{lines}\n{signed}\n{}", head.method, hash(""));
    let mut keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    keyed.update(format!("ACS3-HMAC-SHA256\n{}", hash(&canonical)).as_bytes());
    let signature = hex::encode(keyed.finalize().into_bytes());
    Some(format!("ACS3-HMAC-SHA256 Credential={id},SignedHeaders={signed},Signature={signature}"))
}
