//! Keys in the files that Amazon's tools share: `~/.aws/credentials` and `~/.aws/config`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use flannel_model::secret::Secret;

use super::credentials::Credentials;
use super::environment::Profile;
use crate::{CloudError, Trouble};

/// The profile where none is chosen.
const DEFAULT: &str = "default";
/// Ways to keys that a profile may name and that take more than a file.
const NOT_SERVED: [&str; 6] =
    ["role_arn", "source_profile", "credential_source", "credential_process", "sso_session", "sso_start_url"];

type Section = BTreeMap<String, String>;

/// The keys of the chosen profile; nothing where none is chosen and there are none.
pub(super) fn credentials(profile: &Profile) -> Result<Option<Credentials>, CloudError> {
    let name = profile.name.as_deref().unwrap_or(DEFAULT);
    let mut found = section(profile.config.as_deref(), |header| {
        header
            .strip_prefix("profile")
            .map_or(header == DEFAULT && name == DEFAULT, |rest| rest.trim() == name)
    })?;
    found.extend(section(profile.credentials.as_deref(), |header| header == name)?);
    let key = |key: &str| found.get(key).filter(|value| !value.is_empty()).cloned();
    match (key("aws_access_key_id"), key("aws_secret_access_key")) {
        (Some(id), Some(secret)) => Ok(Some(Credentials {
            id,
            secret: Secret::new(secret),
            token: key("aws_session_token").map(Secret::new),
            expires: None,
            from: "a shared file",
        })),
        _ => match NOT_SERVED.iter().find(|way| found.contains_key(**way)) {
            Some(way) => Err(refused(format!(
                "the profile {name} has {way}, which is not served: give it aws_access_key_id and aws_secret_access_key, \
                 or use the role of the instance"
            ))),
            None if profile.name.is_some() => Err(refused(format!(
                "AWS_PROFILE is {name}, and no shared file has keys for a profile of that name"
            ))),
            None => Ok(None),
        },
    }
}

fn refused(message: String) -> CloudError {
    CloudError::new(Trouble::Denied, "credentials", message)
}

/// The first section of the file whose header `is_it`; empty where there is none.
fn section(path: Option<&Path>, is_it: impl Fn(&str) -> bool) -> Result<Section, CloudError> {
    let Some(path) = path else { return Ok(Section::new()) };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Section::new()),
        Err(error) => return Err(refused(format!("cannot read {}: {error}", path.display()))),
    };
    Ok(parse(&text, is_it))
}

fn parse(text: &str, is_it: impl Fn(&str) -> bool) -> Section {
    let mut section = Section::new();
    let mut is_in = false;
    for line in text.lines() {
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            is_in = is_it(header.trim());
        } else if is_in
            && !is_nested
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            section.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    section
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rstest::rstest;
    use tempfile::TempDir;

    use super::{Profile, credentials};

    const CREDENTIALS: &str = "\
# of nobody
[default]
aws_access_key_id = one
aws_secret_access_key=canary=
[other]
AWS_ACCESS_KEY_ID = two
aws_secret_access_key = canary
aws_session_token = three
[empty]
aws_access_key_id =
";
    const CONFIG: &str = "\
[profile role]
role_arn = arn:aws:iam::1:role/x
source_profile = default
[profile keys]
s3 =
  aws_access_key_id = nested
aws_access_key_id = four
aws_secret_access_key = canary
";

    fn found(name: Option<&str>) -> Result<Option<String>, String> {
        let files = TempDir::new().unwrap();
        let path = |name: &str, text: &str| {
            let path = files.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let profile = Profile {
            name: name.map(str::to_owned),
            credentials: path("credentials", CREDENTIALS),
            config: path("config", CONFIG),
        };
        let found = credentials(&profile).map_err(|error| error.to_string())?;
        assert!(!format!("{found:?}").contains("canary"));
        Ok(found.map(|found| found.id))
    }

    #[rstest]
    #[case::default(None, "one")]
    #[case::other(Some("other"), "two")]
    #[case::in_the_configuration(Some("keys"), "four")]
    fn keys_of_the_profile(#[case] name: Option<&str>, #[case] id: &str) {
        assert_eq!(found(name).unwrap().as_deref(), Some(id));
    }

    #[rstest]
    #[case::role("role", "the profile role has role_arn, which is not served")]
    #[case::absent("nobody", "AWS_PROFILE is nobody")]
    #[case::empty("empty", "AWS_PROFILE is empty")]
    fn what_has_no_keys_is_told(#[case] name: &str, #[case] reason: &str) {
        let error = found(Some(name)).unwrap_err();
        assert!(error.contains(reason) && !error.contains("canary"), "{error}");
    }

    #[test]
    fn no_file_is_no_error() {
        let nowhere = || Some("/nowhere/credentials".into());
        let profile = Profile { name: None, credentials: nowhere(), config: None };
        assert!(credentials(&profile).unwrap().is_none());
    }
}
