//! The versions of the protocol.

use serde_json::{Value, json};

use crate::error::{CniError, code};

/// All versions that are spoken, from the first to the last.
pub const SUPPORTED: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// What a configuration without a version speaks.
pub const UNSAID: &str = "0.1.0";

/// The answer to VERSION.
pub fn supported() -> Value {
    json!({"cniVersion": SUPPORTED[SUPPORTED.len() - 1], "supportedVersions": SUPPORTED})
}

/// Whether `command`, which came with the version `since`, may be asked for by a configuration of this version.
///
/// # Errors
/// The version is not spoken, or too old.
pub fn check(version: &str, command: &str, since: &str) -> Result<(), CniError> {
    let place = |wanted: &str| SUPPORTED.iter().position(|known| *known == wanted);
    let Some(spoken) = place(version) else {
        let details = format!("config is {version:?}, plugin supports {SUPPORTED:?}").replace(", \"", " \"");
        return Err(CniError::with_details(code::INCOMPATIBLE_VERSION, "incompatible CNI versions", details));
    };
    if Some(spoken) < place(since) {
        let msg = format!("config version does not allow {command}");
        return Err(CniError::new(code::INCOMPATIBLE_VERSION, msg));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::check;

    #[rstest]
    #[case("0.1.0", "ADD", "0.1.0", None)]
    #[case("1.1.0", "GC", "1.1.0", None)]
    #[case("0.4.0", "CHECK", "0.4.0", None)]
    #[case("0.3.1", "CHECK", "0.4.0", Some("config version does not allow CHECK"))]
    #[case("1.0.0", "STATUS", "1.1.0", Some("config version does not allow STATUS"))]
    #[case("1.2.0", "ADD", "0.1.0", Some("incompatible CNI versions"))]
    #[case("", "ADD", "0.1.0", Some("incompatible CNI versions"))]
    fn which_commands(
        #[case] version: &str,
        #[case] command: &str,
        #[case] since: &str,
        #[case] refusal: Option<&str>,
    ) {
        let error = check(version, command, since).err();
        assert_eq!(error.as_ref().map(|error| error.msg.as_str()), refusal);
        assert!(error.is_none_or(|error| error.code == 1));
    }

    #[test]
    fn the_refusal_names_what_is_spoken() {
        let details = check("2.0.0", "ADD", "0.1.0").unwrap_err().details;
        assert_eq!(
            details,
            "config is \"2.0.0\", plugin supports [\"0.1.0\" \"0.2.0\" \"0.3.0\" \"0.3.1\" \"0.4.0\" \"1.0.0\" \"1.1.0\"]"
        );
    }
}
