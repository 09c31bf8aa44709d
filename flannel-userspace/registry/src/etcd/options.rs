//! How to reach etcd, and the rule that asking for TLS never ends in plaintext.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use crate::RegistryError;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A ping after this long without a byte received. etcd takes pings that come faster for an attack.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A connection whose ping is not answered within this time is dead.
const PING_TIMEOUT: Duration = Duration::from_secs(4);

/// What some editors begin a file of UTF-8 with.
const MARK: &str = "\u{feff}";

/// How to reach etcd: the `--etcd-*` flags.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Client URLs, in the order in which they are tried. Without a scheme: https when a TLS file is given,
    /// else http.
    pub endpoints: Vec<String>,
    /// What every key begins with, like `/coreos.com/network`.
    pub prefix: String,
    /// Private key of the client certificate.
    pub key_file: Option<PathBuf>,
    /// Client certificate.
    pub cert_file: Option<PathBuf>,
    /// Certificates of the authorities that may have signed etcd's certificate; without it those the system
    /// trusts.
    pub ca_file: Option<PathBuf>,
    /// User of etcd's own access control.
    pub username: Option<String>,
    /// Password of that user.
    pub password: Option<Password>,
}

/// A password, or where it stands.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// As it is.
    Literal(String),
    /// The first line of a file, which is read again for each connection: it may have changed.
    File(PathBuf),
}

impl Password {
    /// The password as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or its first line is empty.
    pub fn read(&self) -> io::Result<String> {
        let path = match self {
            Self::Literal(password) => return Ok(password.clone()),
            Self::File(path) => path,
        };
        let text = std::fs::read_to_string(path)?;
        // Editors leave an end of line that is no part of the password, and some begin with a byte order mark.
        match text.trim_start_matches(MARK).lines().next() {
            Some(password) if !password.is_empty() => Ok(password.to_owned()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "its first line is empty")),
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("…"),
            Self::File(path) => write!(f, "in {}", path.display()),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("endpoints", &self.endpoints)
            .field("prefix", &self.prefix)
            .field("key_file", &self.key_file)
            .field("cert_file", &self.cert_file)
            .field("ca_file", &self.ca_file)
            .field("username", &self.username)
            .field("password", &self.password)
            .finish()
    }
}

impl Options {
    /// The files that are read for each connection.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let password = match &self.password {
            Some(Password::File(path)) => Some(path),
            Some(Password::Literal(_)) | None => None,
        };
        let tls = [&self.key_file, &self.cert_file, &self.ca_file].into_iter().flatten();
        tls.chain(password).map(PathBuf::as_path)
    }

    /// The endpoints as URLs.
    ///
    /// # Errors
    /// There is none; one is plaintext although TLS is asked for, by a file or by another endpoint; one has a user in it; a
    /// key is given without its certificate.
    pub(super) fn urls(&self) -> Result<Vec<String>, RegistryError> {
        if self.key_file.is_some() != self.cert_file.is_some() {
            return Err(RegistryError::HalfIdentity);
        }
        let urls: Vec<String> = self
            .endpoints
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty())
            .map(|text| self.url(text))
            .collect();
        if urls.is_empty() {
            return Err(RegistryError::NoEndpoint);
        }
        if let Some(url) = urls.iter().find(|url| has_user(url)) {
            return Err(RegistryError::UserInEndpoint { endpoint: without_user(url) });
        }
        if let Some(url) = urls.iter().find(|url| self.wants_tls() && !is_https(url)) {
            return Err(RegistryError::Plaintext { endpoint: url.clone() });
        }
        // On trouble the next endpoint is used, with the same password.
        match urls.iter().find(|url| !is_https(url)).filter(|_| urls.iter().any(|url| is_https(url))) {
            Some(url) => Err(RegistryError::MixedSchemes { endpoint: url.clone() }),
            None => Ok(urls),
        }
    }

    fn url(&self, endpoint: &str) -> String {
        match endpoint.split_once("://") {
            // The client compares schemes letter by letter.
            Some((scheme, rest)) => format!("{}://{rest}", scheme.to_ascii_lowercase()),
            None if self.wants_tls() => format!("https://{endpoint}"),
            None => format!("http://{endpoint}"),
        }
    }

    const fn wants_tls(&self) -> bool {
        self.key_file.is_some() || self.cert_file.is_some() || self.ca_file.is_some()
    }

    /// The user, and the present password.
    ///
    /// # Errors
    /// The password cannot be read.
    pub(super) async fn user(&self) -> Result<Option<(String, String)>, RegistryError> {
        let Some(username) = self.username.clone() else { return Ok(None) };
        let password = match &self.password {
            None => String::new(),
            Some(Password::Literal(password)) => password.clone(),
            Some(Password::File(path)) => {
                let file = Password::File(path.clone());
                // A disk that hangs must not hang the daemon.
                let read = tokio::task::spawn_blocking(move || file.read()).await;
                read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|source| {
                    RegistryError::ReadFile { what: "password", path: path.clone(), source }
                })?
            }
        };
        Ok(Some((username, password)))
    }

    /// How to connect to `url`. The TLS files are read again each time: they may have been renewed.
    ///
    /// # Errors
    /// A TLS file cannot be read.
    pub(super) async fn connect_options(&self, url: &str) -> Result<ConnectOptions, RegistryError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            // etcd takes pings on an idle connection for an attack, too; the watch keeps ours busy.
            .with_keep_alive_while_idle(false)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if is_https(url) {
            options = options.with_tls(self.tls().await?);
        }
        Ok(options)
    }

    async fn tls(&self) -> Result<TlsOptions, RegistryError> {
        let mut tls = TlsOptions::new().timeout(CONNECT_TIMEOUT);
        tls = match &self.ca_file {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read_pem(&CA, path).await?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.cert_file, &self.key_file) {
            let cert = read_pem(&CERTIFICATE, cert).await?;
            let key = read_pem(&KEY, key).await?;
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        Ok(tls)
    }
}

/// What is before an `@` in the authority of a URL (RFC 3986, 3.2.1).
fn user_of(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, _) = rest.get(..end)?.rsplit_once('@')?;
    Some((scheme, user, rest.get(user.len() + 1..)?))
}

fn has_user(url: &str) -> bool {
    user_of(url).is_some()
}

/// The URL as it may be logged.
fn without_user(url: &str) -> String {
    user_of(url).map_or_else(|| url.to_owned(), |(scheme, _, rest)| format!("{scheme}://{rest}"))
}

fn is_https(url: &str) -> bool {
    url.starts_with("https://")
}

/// What a PEM file is to hold.
struct Content {
    what: &'static str,
    /// What its blocks may be called, the usual one first.
    labels: &'static [&'static str],
    /// The program of openssl that makes one.
    command: &'static str,
}

const CA: Content = Content { what: "certificate authority", labels: &["CERTIFICATE"], command: "x509" };
const CERTIFICATE: Content = Content { what: "client certificate", ..CA };
const KEY: Content = Content {
    what: "client key",
    labels: &["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"],
    command: "pkey",
};

/// Reads a PEM file and makes sure that it has a block of that content: the TLS library would take an empty list of
/// authorities without a word.
async fn read_pem(content: &Content, path: &Path) -> Result<Vec<u8>, RegistryError> {
    let Content { what, labels, command } = *content;
    let pem = tokio::fs::read(path).await.map_err(|source| RegistryError::ReadFile {
        what,
        path: path.to_owned(),
        source,
    })?;
    // The library takes the mark for the beginning of a line of text.
    let pem = pem.strip_prefix(MARK.as_bytes()).map_or(pem.clone(), <[u8]>::to_vec);
    let text = String::from_utf8_lossy(&pem);
    let has = |label: &str| text.lines().any(|line| line.trim_end() == format!("-----BEGIN {label}-----"));
    let is_encrypted = has("ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED");
    if labels.contains(&"PRIVATE KEY") && is_encrypted {
        return Err(RegistryError::EncryptedKey { path: path.to_owned() });
    }
    if labels.iter().any(|label| has(label)) {
        return Ok(pem);
    }
    Err(RegistryError::NotPem { what, label: labels[0], command, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Options, Password};
    use crate::RegistryError;

    fn options(endpoints: &str, tls: &[&str]) -> Options {
        let file = |name: &str| tls.contains(&name).then(|| format!("/nowhere/{name}.pem").into());
        Options {
            endpoints: endpoints.split(',').map(str::to_owned).collect(),
            prefix: "/coreos.com/network".to_owned(),
            key_file: file("key"),
            cert_file: file("cert"),
            ca_file: file("ca"),
            ..Options::default()
        }
    }

    #[rstest]
    #[case::stock_default("http://127.0.0.1:4001,http://127.0.0.1:2379", &[], "http://127.0.0.1:4001 http://127.0.0.1:2379")]
    #[case::no_scheme("127.0.0.1:2379", &[], "http://127.0.0.1:2379")]
    #[case::no_scheme_tls("127.0.0.1:2379", &["ca"], "https://127.0.0.1:2379")]
    #[case::upper_case("HTTPS://etcd:2379", &["key", "cert"], "https://etcd:2379")]
    #[case::blanks(" http://a:1 ,, http://b:2", &[], "http://a:1 http://b:2")]
    fn urls_of_endpoints(#[case] endpoints: &str, #[case] tls: &[&str], #[case] urls: &str) {
        assert_eq!(options(endpoints, tls).urls().unwrap().join(" "), urls);
    }

    #[rstest]
    #[case::ca_only("http://127.0.0.1:2379", &["ca"])]
    #[case::identity("https://a:1,http://b:2", &["key", "cert"])]
    #[case::upper_case("HTTP://127.0.0.1:2379", &["ca"])]
    #[case::other_scheme("unix:///run/etcd", &["ca"])]
    fn tls_never_ends_in_plaintext(#[case] endpoints: &str, #[case] tls: &[&str]) {
        assert!(matches!(options(endpoints, tls).urls(), Err(RegistryError::Plaintext { .. })));
    }

    #[rstest]
    #[case::first("https://a:1,http://b:2", "http://b:2")]
    #[case::last("http://a:1,https://b:2", "http://a:1")]
    #[case::no_scheme("https://a:1,b:2", "http://b:2")]
    fn failover_never_ends_in_plaintext(#[case] endpoints: &str, #[case] plain: &str) {
        let error = options(endpoints, &[]).urls().unwrap_err();
        assert!(matches!(&error, RegistryError::MixedSchemes { endpoint } if endpoint == plain), "{error}");
    }

    #[rstest]
    #[case::user_and_password("http://root:canary@127.0.0.1:2379/x", "http://127.0.0.1:2379/x")]
    #[case::an_at_in_the_password("https://root:can@ary@etcd:2379", "https://etcd:2379")]
    #[case::user_alone("root@etcd:2379", "http://etcd:2379")]
    fn users_in_endpoints_are_refused_and_not_told(#[case] endpoint: &str, #[case] told: &str) {
        let error = options(endpoint, &[]).urls().unwrap_err().to_string();
        assert!(error.contains(told) && error.contains("--etcd-username"), "{error}");
        assert!(!error.contains("canary") && !error.contains("root"), "{error}");
    }

    #[rstest]
    #[case::none("", &[], "no etcd endpoint")]
    #[case::key_without_certificate("https://a:1", &["key"], "belong together")]
    #[case::certificate_without_key("https://a:1", &["cert", "ca"], "belong together")]
    fn unusable_options(#[case] endpoints: &str, #[case] tls: &[&str], #[case] message: &str) {
        let error = options(endpoints, tls).urls().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[tokio::test]
    async fn missing_and_empty_files_are_named() {
        let mut options = options("https://a:1", &["ca"]);
        let error = options.connect_options("https://a:1").await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        options.ca_file = Some(empty.path().to_owned());
        let error = options.connect_options("https://a:1").await.unwrap_err();
        assert!(matches!(error, RegistryError::NotPem { .. }), "{error}");
    }

    #[tokio::test]
    async fn files_of_other_editors_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "\u{feff}canary\r\n").unwrap();
        assert_eq!(Password::File(file.path().to_owned()).read().unwrap(), "canary");
        let pem = "-----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\n";
        std::fs::write(file.path(), format!("\u{feff}{pem}")).unwrap();
        let read = super::read_pem(&super::CA, file.path()).await.unwrap();
        assert_eq!(read, pem.as_bytes());
    }

    #[rstest]
    #[case::encrypted("ENCRYPTED PRIVATE KEY", "is encrypted", "openssl pkey -in")]
    #[case::certificate("CERTIFICATE", "BEGIN PRIVATE KEY", "openssl pkey -in")]
    #[tokio::test]
    async fn keys_that_are_none(#[case] label: &str, #[case] flaw: &str, #[case] remedy: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("-----BEGIN {label}-----\nAAAA\n")).unwrap();
        let error = super::read_pem(&super::KEY, file.path()).await.unwrap_err().to_string();
        assert!(error.contains(flaw) && error.contains(remedy), "{error}");
    }

    #[tokio::test]
    async fn an_authority_that_the_library_would_leave_out_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n").unwrap();
        let error = super::read_pem(&super::CA, file.path()).await.unwrap_err().to_string();
        assert!(error.contains("openssl x509 -in"), "{error}");
    }

    #[test]
    fn what_lets_a_file_be_read_is_named() {
        let failed = |kind: std::io::ErrorKind| {
            let error =
                RegistryError::ReadFile { what: "client key", path: "/k".into(), source: kind.into() };
            error.to_string()
        };
        assert!(failed(std::io::ErrorKind::PermissionDenied).contains("grant CAP_DAC_READ_SEARCH"));
        assert_eq!(failed(std::io::ErrorKind::NotFound), "cannot read /k, the client key for etcd");
    }

    #[test]
    fn debug_output_hides_the_password() {
        let options =
            Options { password: Some(Password::Literal("canary".to_owned())), ..Options::default() };
        assert!(!format!("{options:?}").contains("canary"));
    }
}
