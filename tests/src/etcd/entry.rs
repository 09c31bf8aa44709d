//! Keys and values in etcd's JSON.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A key and its value, as etcd returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The whole key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The etcd lease it hangs on; zero for none.
    pub lease: i64,
    /// Revision of the last write.
    pub mod_revision: i64,
    /// Revision of the first write since it was last absent.
    pub create_revision: i64,
}

/// What an answer to `etcdctl get -w json` holds.
pub(super) fn entries(json: &str) -> Result<Vec<Entry>> {
    let answer: Value = serde_json::from_str(json)?;
    let entries = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|kv| entry(kv).with_context(|| format!("not understood: {kv}"))).collect()
}

fn entry(kv: &Value) -> Option<Entry> {
    Some(Entry {
        key: text(&kv["key"])?,
        value: text(&kv["value"]).unwrap_or_default(),
        lease: kv["lease"].as_i64().unwrap_or_default(),
        mod_revision: kv["mod_revision"].as_i64()?,
        create_revision: kv["create_revision"].as_i64()?,
    })
}

/// A text in base64, the form of bytes in etcd's JSON.
fn text(value: &Value) -> Option<String> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for digit in value.as_str()?.bytes().take_while(|digit| *digit != b'=') {
        bits = bits << 6 | sextet(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    String::from_utf8(bytes).ok()
}

fn sextet(digit: u8) -> Option<u32> {
    let value = match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}
