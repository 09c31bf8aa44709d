//! The metadata of the instance, by the second version of the service, which wants a token (IMDSv2).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use flannel_model::secret::Secret;
use ipnetwork::IpNetwork;
use tokio::time::Instant;

use super::environment::Environment;
use crate::http::{Http, Method, Request, Response, StatusCode};
use crate::{CloudError, Host, Trouble};

/// The service is on the host itself: what takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a token is to last, in seconds: the longest there is.
const TTL: u32 = 21_600;
/// So long before its end it is not used any more.
const MARGIN: Duration = Duration::from_secs(60);
/// The action, as metrics and messages call it.
const ACTION: &str = "instance metadata";

const HANGS: &str = "in a container without the host's network, answers are dropped at the first hop: give flanneld the \
    host's network, or allow two hops (aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)";

/// The metadata service.
pub(super) struct Imds {
    http: Http,
    base: Option<String>,
    token: Option<(Secret, Instant)>,
}

/// This host's network interface in the VPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) id: String,
    pub(super) subnet: String,
    pub(super) vpc: String,
    /// The ranges of the VPC.
    pub(super) ranges: Vec<IpNetwork>,
}

impl Imds {
    pub(super) fn new(environment: &Environment, http: Http) -> Self {
        Self { http, base: environment.imds.clone(), token: None }
    }

    /// The interface that has one of the addresses of `host`.
    pub(super) async fn interface(&mut self, host: &Host) -> Result<Interface, CloudError> {
        let macs = self.need("network/interfaces/macs/").await?;
        for mac in macs.lines().map(|line| line.trim_end_matches('/')) {
            let at = |key: &str| format!("network/interfaces/macs/{mac}/{key}");
            let mut addresses = self.list(&at("local-ipv4s")).await?;
            addresses.extend(self.list(&at("ipv6s")).await?);
            let is_own = |text: &String| {
                text.parse::<IpAddr>().is_ok_and(|own| host.addresses.iter().any(|address| address == own))
            };
            if !addresses.iter().any(is_own) {
                continue;
            }
            let mut ranges = self.list(&at("vpc-ipv4-cidr-blocks")).await?;
            ranges.extend(self.list(&at("vpc-ipv6-cidr-blocks")).await?);
            let garbage =
                |text: &String| CloudError::garbage(ACTION, format!("{text:?} is no range of a VPC"));
            return Ok(Interface {
                id: self.identifier(&at("interface-id"), "eni-").await?,
                subnet: self.identifier(&at("subnet-id"), "subnet-").await?,
                vpc: self.identifier(&at("vpc-id"), "vpc-").await?,
                ranges: ranges
                    .iter()
                    .map(|text| text.parse().map_err(|_| garbage(text)))
                    .collect::<Result<_, _>>()?,
            });
        }
        let addresses =
            host.addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(", ");
        Err(self.fail(
            Trouble::Refused,
            format!(
                "unable to find ENI that matches the {addresses} IP address. Choose an interface of this instance with \
                 --iface; an address that was just given to it may take a while to be known"
            ),
        ))
    }

    /// The region this instance is in.
    pub(super) async fn region(&mut self) -> Result<String, CloudError> {
        let region = self.need("placement/region").await?;
        match is_name(&region) {
            true => Ok(region),
            false => Err(self.garbage("placement/region")),
        }
    }

    /// What the names of services end with.
    pub(super) async fn domain(&mut self) -> Result<String, CloudError> {
        let domain = self.get("services/domain").await?;
        Ok(domain
            .filter(|domain| domain.split('.').all(is_name))
            .unwrap_or_else(|| "amazonaws.com".to_owned()))
    }

    /// The name of the instance's role, if it has one, and its keys as JSON.
    pub(super) async fn role_keys(&mut self) -> Result<Option<(String, String)>, CloudError> {
        let Some(roles) = self.get("iam/security-credentials/").await? else { return Ok(None) };
        let Some(role) = roles.lines().next().filter(|role| !role.is_empty()) else { return Ok(None) };
        let keys = self.need(&format!("iam/security-credentials/{role}")).await?;
        Ok(Some((role.to_owned(), keys)))
    }

    async fn identifier(&mut self, path: &str, prefix: &str) -> Result<String, CloudError> {
        let id = self.need(path).await?;
        match id.strip_prefix(prefix) {
            Some(rest) if is_name(rest) => Ok(id),
            _ => Err(self.garbage(path)),
        }
    }

    async fn list(&mut self, path: &str) -> Result<Vec<String>, CloudError> {
        let text = self.get(path).await?.unwrap_or_default();
        Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    async fn need(&mut self, path: &str) -> Result<String, CloudError> {
        match self.get(path).await? {
            Some(text) => Ok(text),
            None => {
                let message = format!(
                    "there is no {path}: aws-vpc is for instances of EC2 in a VPC, with their metadata"
                );
                Err(self.fail(Trouble::NotFound, message))
            }
        }
    }

    /// What stands at `path`; nothing where there is no such thing.
    async fn get(&mut self, path: &str) -> Result<Option<String>, CloudError> {
        let mut answer = self.ask(path).await?;
        // The token may have been invalidated, by a restart of the service, say.
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.token = None;
            answer = self.ask(path).await?;
        }
        match answer.status() {
            StatusCode::OK => match String::from_utf8(answer.into_body().to_vec()) {
                Ok(text) => Ok(Some(text.trim_end().to_owned())),
                Err(_) => Err(self.garbage(path)),
            },
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.explain(status)),
        }
    }

    async fn ask(&mut self, path: &str) -> Result<Response<Bytes>, CloudError> {
        let url = format!("{}/latest/meta-data/{path}", self.base()?);
        let token = self.token().await?;
        let request = Request::get(url).header("x-aws-ec2-metadata-token", token.expose());
        self.send(request.body(Bytes::new())).await
    }

    async fn token(&mut self) -> Result<Secret, CloudError> {
        if let Some((token, end)) = &self.token
            && Instant::now() + MARGIN < *end
        {
            return Ok(token.clone());
        }
        let request = Request::builder()
            .method(Method::PUT)
            .uri(format!("{}/latest/api/token", self.base()?))
            .header("x-aws-ec2-metadata-token-ttl-seconds", TTL);
        let since = Instant::now();
        let answer = self.send(request.body(Bytes::new())).await?;
        if answer.status() != StatusCode::OK {
            return Err(self.explain(answer.status()));
        }
        let granted = answer
            .headers()
            .get("x-aws-ec2-metadata-token-ttl-seconds")
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(TTL);
        let text = String::from_utf8(answer.into_body().to_vec()).map_err(|_| self.garbage("token"))?;
        let token = Secret::new(text.trim());
        self.token = Some((token.clone(), since + Duration::from_secs(granted.into())));
        Ok(token)
    }

    async fn send(
        &self,
        request: Result<Request<Bytes>, ::http::Error>,
    ) -> Result<Response<Bytes>, CloudError> {
        let request = request.map_err(|error| self.fail(Trouble::Refused, error.to_string()))?;
        self.http.send(ACTION, request, PATIENCE).await.map_err(|error| {
            let message = format!("{}; {HANGS}", error.message);
            CloudError { message, ..error }
        })
    }

    fn base(&self) -> Result<&str, CloudError> {
        self.base.as_deref().ok_or_else(|| {
            let message = "AWS_EC2_METADATA_DISABLED is true, and without metadata this host does not know which network \
                           interface of the VPC is its own: unset it";
            self.fail(Trouble::Refused, message)
        })
    }

    fn explain(&self, status: StatusCode) -> CloudError {
        let (trouble, message) = match status {
            StatusCode::FORBIDDEN => (
                Trouble::Denied,
                "it is switched off for this instance (aws ec2 modify-instance-metadata-options --http-endpoint enabled)"
                    .to_owned(),
            ),
            StatusCode::UNAUTHORIZED => {
                (Trouble::Unavailable, "a token it has just given is not good to it".to_owned())
            }
            StatusCode::NOT_FOUND => (
                Trouble::NotFound,
                "the service that answers there is not EC2's, or knows no IMDSv2".to_owned(),
            ),
            StatusCode::TOO_MANY_REQUESTS => (Trouble::Throttled, "too many requests".to_owned()),
            status if status.is_server_error() => (Trouble::Unavailable, format!("it answers {status}")),
            status => (Trouble::Garbage, format!("it answers {status}")),
        };
        self.fail(trouble, message)
    }

    fn garbage(&self, what: &str) -> CloudError {
        self.http.fail(CloudError::garbage(ACTION, what))
    }

    fn fail(&self, trouble: Trouble, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, ACTION, message))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
