//! Files with credentials, as `GOOGLE_APPLICATION_CREDENTIALS` names them and `gcloud` writes them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Names the file; what it names must be there.
pub(super) const VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// Where `gcloud auth application-default login` writes it, below the home directory.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

/// Where a service account's key is exchanged for a token, if the file does not say.
const TOKEN_URI: &str = "https://oauth2.googleapis.com/token";

/// Credentials from a file.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum KeyFile {
    /// A service account's private key.
    ServiceAccount {
        /// The account.
        client_email: String,
        /// Its key's number.
        private_key_id: String,
        /// The key, PKCS #8 in PEM.
        private_key: String,
        /// Where it is exchanged for a token.
        #[serde(default = "token_uri")]
        token_uri: String,
    },
    /// Somebody who has logged in.
    AuthorizedUser {
        /// The program that was given the right to.
        client_id: String,
        /// Its secret.
        client_secret: String,
        /// What is exchanged for a token.
        refresh_token: String,
    },
}

fn token_uri() -> String {
    TOKEN_URI.to_owned()
}

/// Nothing secret.
impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount { client_email, .. } => write!(f, "service account {client_email}"),
            Self::AuthorizedUser { client_id, .. } => write!(f, "user of the client {client_id}"),
        }
    }
}

/// A file is no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyFileError {
    /// Its type is one of those that need more than a key.
    #[error(
        "credentials of the type {0} are not served: use the key of a service account, or the service account of \
         the instance by leaving {VARIABLE} unset"
    )]
    Type(String),
    /// It is something else, or a member is missing. Its text could be secret.
    #[error("it is no file with credentials: a member is missing or of the wrong type")]
    Form,
}

impl KeyFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// It has credentials of another type, or none.
    pub(super) fn parse(text: &str) -> Result<Self, KeyFileError> {
        #[derive(Deserialize)]
        struct Type {
            #[serde(rename = "type")]
            name: String,
        }
        let Type { name } = serde_json::from_str(text).map_err(|_| KeyFileError::Form)?;
        match name.as_str() {
            "service_account" | "authorized_user" => {
                serde_json::from_str(text).map_err(|_| KeyFileError::Form)
            }
            _ => Err(KeyFileError::Type(name.chars().take(40).collect())),
        }
    }

    /// Where a token is asked for.
    pub(super) fn token_uri(&self) -> &str {
        match self {
            Self::ServiceAccount { token_uri, .. } => token_uri,
            Self::AuthorizedUser { .. } => TOKEN_URI,
        }
    }
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A file that somebody named.
    Named(PathBuf),
    /// The well-known file, if it is there; else the metadata server.
    WellKnown(PathBuf),
    /// The metadata server.
    Metadata,
}

impl Source {
    /// The source by the value of [`VARIABLE`] and the home directory.
    pub(super) fn of(named: Option<&Path>, home: Option<&Path>) -> Self {
        match (named, home) {
            (Some(path), _) if !path.as_os_str().is_empty() => Self::Named(path.to_owned()),
            (_, Some(home)) if home.is_absolute() => Self::WellKnown(home.join(WELL_KNOWN)),
            _ => Self::Metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rstest::rstest;

    use super::{KeyFile, Source};

    const SERVICE_ACCOUNT: &str = r#"{"type":"service_account","project_id":"p","private_key_id":"k1",
        "private_key":"-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n",
        "client_email":"flannel@p.iam.gserviceaccount.com","client_id":"1","auth_uri":"x",
        "token_uri":"https://oauth2.example.com/token"}"#;
    const USER: &str =
        r#"{"type":"authorized_user","client_id":"c","client_secret":"SECRET","refresh_token":"SECRET"}"#;

    #[rstest]
    #[case::service_account(
        SERVICE_ACCOUNT,
        "service account flannel@p.iam.gserviceaccount.com",
        "https://oauth2.example.com/token"
    )]
    #[case::user(USER, "user of the client c", "https://oauth2.googleapis.com/token")]
    fn served(#[case] text: &str, #[case] shown: &str, #[case] uri: &str) {
        let file = KeyFile::parse(text).unwrap();
        assert_eq!((format!("{file:?}").as_str(), file.token_uri()), (shown, uri));
    }

    #[rstest]
    #[case::other_type(
        r#"{"type":"external_account","audience":"SECRET"}"#,
        "external_account are not served"
    )]
    #[case::member_missing(r#"{"type":"service_account","private_key":"SECRET"}"#, "a member is missing")]
    #[case::member_of_other_type(
        r#"{"type":"authorized_user","client_secret":["SECRET"]}"#,
        "a member is missing"
    )]
    #[case::no_type("{}", "a member is missing")]
    #[case::garbage("SECRET", "no file with credentials")]
    fn refused_without_what_is_secret(#[case] text: &str, #[case] message: &str) {
        let error = KeyFile::parse(text).unwrap_err().to_string();
        assert!(error.contains(message) && !error.contains("SECRET"), "{error}");
    }

    #[rstest]
    #[case::named(Some("/etc/key.json"), Some("/root"), Source::Named("/etc/key.json".into()))]
    #[case::empty(Some(""), None, Source::Metadata)]
    #[case::home(None, Some("/root"), Source::WellKnown("/root/.config/gcloud/application_default_credentials.json".into()))]
    #[case::neither(None, None, Source::Metadata)]
    fn sources_in_their_order(
        #[case] named: Option<&str>,
        #[case] home: Option<&str>,
        #[case] source: Source,
    ) {
        assert_eq!(Source::of(named.map(Path::new), home.map(Path::new)), source);
    }
}
