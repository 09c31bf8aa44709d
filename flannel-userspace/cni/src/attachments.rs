//! Which attachments a network has, as the runtime says it for GC.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::{CniError, code};
use crate::json::Fields;
use crate::request::Attachment;

/// The key of the specification, and the one that libcni writes beside it.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// The attachments that stay: those of either key.
///
/// # Errors
/// Nothing is said of them, or something that cannot be understood: then nothing must be removed.
pub fn valid(conf: &Fields) -> Result<BTreeSet<Attachment>, CniError> {
    let lists = said(conf);
    if lists.is_empty() {
        return Err(CniError::new(code::CONFIGURATION, format!("missing {}", KEYS[0])));
    }
    let unread = || CniError::new(code::CONFIGURATION, format!("{} is no list of attachments", KEYS[0]));
    let mut valid = BTreeSet::new();
    for (_, list) in lists {
        for said in list.as_array().ok_or_else(unread)? {
            valid.insert(attachment(said).ok_or_else(unread)?);
        }
    }
    Ok(valid)
}

/// What is said of them, as it is said.
pub fn said(conf: &Fields) -> Vec<(&'static str, &Value)> {
    KEYS.iter().filter_map(|key| Some((*key, conf.get(key)?))).collect()
}

fn attachment(said: &Value) -> Option<Attachment> {
    let said = Fields::from(said.as_object()?);
    let text = |key| said.text(key).ok().flatten().map(str::to_owned);
    Some(Attachment { container: text("containerID")?, interface: text("ifname")? })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::valid;

    fn read(text: &str) -> Result<usize, u32> {
        valid(&serde_json::from_str(text).unwrap()).map(|valid| valid.len()).map_err(|error| error.code)
    }

    #[rstest]
    #[case::none(r#"{"cni.dev/valid-attachments":[]}"#, Ok(0))]
    #[case::some(r#"{"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"},{"containerid":"b","ifname":"eth0"}]}"#, Ok(2))]
    #[case::either(
        r#"{"cni.dev/valid-attachments":[{"containerID":"a","ifname":"b"}],"cni.dev/attachments":[{"containerID":"a","ifname":"c"}]}"#,
        Ok(2)
    )]
    #[case::unsaid("{}", Err(7))]
    #[case::null(r#"{"cni.dev/valid-attachments":null}"#, Err(7))]
    #[case::object(r#"{"cni.dev/valid-attachments":{}}"#, Err(7))]
    #[case::half(r#"{"cni.dev/valid-attachments":[{"containerID":"a"}]}"#, Err(7))]
    #[case::other_type(r#"{"cni.dev/valid-attachments":["a"]}"#, Err(7))]
    fn lists(#[case] text: &str, #[case] expected: Result<usize, u32>) {
        assert_eq!(read(text), expected);
    }
}
