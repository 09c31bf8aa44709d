//! What the environment says of Amazon's services, by the variables that every SDK of theirs obeys.

use std::env;
use std::path::PathBuf;

use flannel_model::secret::Secret;

use crate::http::Uri;
use crate::{CloudError, Trouble};

/// Where metadata of instances are.
const IMDS_V4: &str = "http://169.254.169.254";
const IMDS_V6: &str = "http://[fd00:ec2::254]";

/// The variables that matter.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    pub(super) region: Option<String>,
    /// Endpoint of EC2, if another than the region's.
    pub(super) ec2: Option<String>,
    /// Endpoint of STS, if another than the region's.
    pub(super) sts: Option<String>,
    /// Endpoint of the metadata; none where they are not to be used.
    pub(super) imds: Option<String>,
    pub(super) keys: Option<Keys>,
    pub(super) profile: Profile,
    pub(super) web_identity: Option<WebIdentity>,
    pub(super) container: Option<Container>,
}

/// Keys in the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) token: Option<Secret>,
}

/// Where shared files are, and what is chosen in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) name: Option<String>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) config: Option<PathBuf>,
}

/// A token of somebody else's, for which STS gives keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebIdentity {
    pub(super) role: String,
    pub(super) token_file: PathBuf,
    pub(super) session: String,
}

/// Where a container gets keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) uri: Uri,
    pub(super) token: Option<Secret>,
    pub(super) token_file: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Result<Self, CloudError> {
        Self::of(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// That of `variable`.
    pub(super) fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, CloudError> {
        let first = |names: &[&str]| names.iter().find_map(|name| variable(name));
        let path = |name: &str| variable(name).map(PathBuf::from);
        let at_home = |rest: &str| variable("HOME").map(|home| PathBuf::from(home).join(rest));
        let endpoint = |name: &str| -> Result<Option<String>, CloudError> {
            [name, "AWS_ENDPOINT_URL"]
                .iter()
                .find_map(|name| variable(name).map(|url| base(name, &url)))
                .transpose()
        };
        Ok(Self {
            region: first(&["AWS_REGION", "AWS_DEFAULT_REGION"]),
            ec2: endpoint("AWS_ENDPOINT_URL_EC2")?,
            sts: endpoint("AWS_ENDPOINT_URL_STS")?,
            imds: imds(&variable)?,
            keys: keys(&first)?,
            profile: Profile {
                name: variable("AWS_PROFILE"),
                credentials: path("AWS_SHARED_CREDENTIALS_FILE").or_else(|| at_home(".aws/credentials")),
                config: path("AWS_CONFIG_FILE").or_else(|| at_home(".aws/config")),
            },
            web_identity: web_identity(&variable)?,
            container: container(&variable)?,
        })
    }
}

fn unusable(message: impl Into<String>) -> CloudError {
    CloudError::new(Trouble::Refused, "environment", message)
}

/// The beginning of URLs, without a slash at its end.
fn base(name: &str, url: &str) -> Result<String, CloudError> {
    let parsed: Option<Uri> = url.parse().ok();
    let is_base = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    match is_base {
        true => Ok(url.trim_end_matches('/').to_owned()),
        false => Err(unusable(format!("{name} is no URL such as https://ec2.eu-central-1.amazonaws.com"))),
    }
}

fn imds(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, CloudError> {
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let name = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
    if let Some(url) = variable(name) {
        return base(name, &url).map(Some);
    }
    let mode = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    match mode.as_deref().map(str::to_ascii_lowercase).as_deref() {
        None | Some("ipv4") => Ok(Some(IMDS_V4.to_owned())),
        Some("ipv6") => Ok(Some(IMDS_V6.to_owned())),
        Some(_) => Err(unusable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE must be IPv4 or IPv6")),
    }
}

/// The older names are stock flannel's, too.
fn keys(first: &impl Fn(&[&str]) -> Option<String>) -> Result<Option<Keys>, CloudError> {
    let id = first(&["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
    let secret = first(&["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]);
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let token = first(&["AWS_SESSION_TOKEN"]).map(Secret::new);
            Ok(Some(Keys { id, secret: Secret::new(secret), token }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(unusable("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY")),
        (None, Some(_)) => Err(unusable("AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID")),
    }
}

fn web_identity(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<WebIdentity>, CloudError> {
    match (variable("AWS_WEB_IDENTITY_TOKEN_FILE"), variable("AWS_ROLE_ARN")) {
        (Some(file), Some(role)) => {
            let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "flanneld".to_owned());
            Ok(Some(WebIdentity { role, token_file: file.into(), session }))
        }
        (Some(_), None) => Err(unusable("AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN")),
        // Others use that variable for other ways to a role.
        (None, _) => Ok(None),
    }
}

/// Where containers ask for keys (ECS).
const CONTAINER: &str = "http://169.254.170.2";
/// Where keys may be asked for without TLS: ECS, and EKS Pod Identity. Elsewhere somebody on the way would have them.
const PLAIN_HOSTS: [&str; 3] = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];

fn container(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Container>, CloudError> {
    let uri = match (
        variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ) {
        (Some(path), _) => {
            let uri = path.starts_with('/').then(|| format!("{CONTAINER}{path}").parse().ok()).flatten();
            uri.ok_or_else(|| unusable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is no path"))?
        }
        (None, Some(url)) => full_uri(&url)?,
        (None, None) => return Ok(None),
    };
    Ok(Some(Container {
        uri,
        token: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new),
        token_file: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(PathBuf::from),
    }))
}

fn full_uri(url: &str) -> Result<Uri, CloudError> {
    let uri: Option<Uri> = url.parse().ok();
    let is_allowed = |uri: &Uri| match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => true,
        (Some("http"), Some(host)) => PLAIN_HOSTS.contains(&host) || is_loopback(host),
        _ => false,
    };
    uri.filter(is_allowed).ok_or_else(|| {
        unusable(format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI must begin with https://, or be of a loopback address, {}",
            PLAIN_HOSTS.join(" or ")
        ))
    })
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::Environment;

    fn environment(variables: &[(&str, &str)]) -> Result<Environment, String> {
        let value =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Environment::of(value).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_set_by_default() {
        let environment = environment(&[]).unwrap();
        assert_eq!(environment.imds.as_deref(), Some("http://169.254.169.254"));
        assert!(environment.keys.is_none() && environment.container.is_none() && environment.ec2.is_none());
    }

    #[test]
    fn the_narrower_endpoint_counts() {
        let environment =
            environment(&[("AWS_ENDPOINT_URL", "http://a:1/"), ("AWS_ENDPOINT_URL_EC2", "https://b")])
                .unwrap();
        assert_eq!(
            (environment.ec2.as_deref(), environment.sts.as_deref()),
            (Some("https://b"), Some("http://a:1"))
        );
    }

    #[rstest]
    #[case::older(&[("AWS_ACCESS_KEY", "a"), ("AWS_SECRET_KEY", "b")])]
    #[case::usual(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ACCESS_KEY", "c")])]
    fn keys_have_two_names_each(#[case] variables: &[(&str, &str)]) {
        let keys = environment(variables).unwrap().keys.unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.expose()), ("a", "b"));
    }

    #[rstest]
    #[case::https("https://keys.example.com/x", true)]
    #[case::loopback("http://127.0.0.1:51679/x", true)]
    #[case::loopback_v6("http://[::1]/x", true)]
    #[case::ecs("http://169.254.170.2/v2", true)]
    #[case::pod_identity("http://169.254.170.23/v1/credentials", true)]
    #[case::pod_identity_v6("http://[fd00:ec2::23]/v1/credentials", true)]
    #[case::elsewhere("http://169.254.170.3/x", false)]
    #[case::a_name("http://localhost.example.com/x", false)]
    #[case::user("http://169.254.170.2@example.com/x", false)]
    #[case::no_url("nonsense", false)]
    fn keys_are_asked_for_where_nobody_listens(#[case] url: &str, #[case] is_allowed: bool) {
        let environment = environment(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)]);
        assert_eq!(environment.is_ok(), is_allowed, "{environment:?}");
    }

    #[rstest]
    #[case::half_a_key(&[("AWS_ACCESS_KEY_ID", "a")], "without AWS_SECRET_ACCESS_KEY")]
    #[case::no_role(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/x")], "without AWS_ROLE_ARN")]
    #[case::endpoint(&[("AWS_ENDPOINT_URL", "ec2")], "AWS_ENDPOINT_URL is no URL")]
    #[case::mode(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "ipx")], "IPv4 or IPv6")]
    #[case::relative(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "@example.com/")], "is no path")]
    fn what_cannot_be_used_is_told(#[case] variables: &[(&str, &str)], #[case] reason: &str) {
        let error = environment(variables).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }

    #[rstest]
    #[case::off(&[("AWS_EC2_METADATA_DISABLED", "TRUE")], None)]
    #[case::v6(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6")], Some("http://[fd00:ec2::254]"))]
    #[case::elsewhere(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:80/")], Some("http://127.0.0.1:80"))]
    fn metadata_are_where_it_says(#[case] variables: &[(&str, &str)], #[case] url: Option<&str>) {
        assert_eq!(environment(variables).unwrap().imds.as_deref(), url);
    }
}
