//! Keys by which calls are signed, from the first source that has some, in the order of Amazon's SDKs: environment,
//! profile, web identity, container, role of the instance.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use flannel_model::secret::Secret;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;

use super::answers::{self, AssumedRole};
use super::credentials::Credentials;
use super::environment::{Container, Environment, WebIdentity};
use super::errors::failure;
use super::imds::Imds;
use super::profile;
use crate::http::{Http, Request, StatusCode};
use crate::{CloudError, Trouble};

/// So long before they expire keys are asked for again.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// After this long keys that do not expire are read again: somebody may have written others.
const STATIC: Duration = Duration::from_secs(5 * 60);
/// How long a source may take.
const PATIENCE: Duration = Duration::from_secs(10);
const ACTION: &str = "credentials";
const ASSUME: &str = "AssumeRoleWithWebIdentity";

/// Finds keys, and keeps them while they are good.
pub(super) struct Chain {
    environment: Environment,
    http: Http,
    kept: Option<(Credentials, Instant)>,
}

/// Keys as container and instance give them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Given {
    #[serde(default)]
    code: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    token: Option<String>,
    expiration: Option<String>,
}

impl Chain {
    pub(super) fn new(environment: Environment, http: Http) -> Self {
        Self { environment, http, kept: None }
    }

    /// Keys that are good for a while. `place` is region and domain of the services.
    pub(super) async fn credentials(
        &mut self,
        imds: &mut Imds,
        place: (&str, &str),
    ) -> Result<Credentials, CloudError> {
        if let Some((credentials, until)) = &self.kept
            && Instant::now() < *until
        {
            return Ok(credentials.clone());
        }
        let credentials = self.find(imds, place).await?;
        let lasts = match credentials.expires {
            Some(end) => Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default(),
            None => STATIC + MARGIN,
        };
        self.kept = Some((credentials.clone(), Instant::now() + lasts.saturating_sub(MARGIN)));
        Ok(credentials)
    }

    /// The keys were refused: others are looked for.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    async fn find(&self, imds: &mut Imds, place: (&str, &str)) -> Result<Credentials, CloudError> {
        let environment = &self.environment;
        if let Some(keys) = &environment.keys {
            return Ok(Credentials {
                id: keys.id.clone(),
                secret: keys.secret.clone(),
                token: keys.token.clone(),
                expires: None,
                from: "the environment",
            });
        }
        if let Some(credentials) =
            profile::credentials(&environment.profile).map_err(|error| self.http.fail(error))?
        {
            return Ok(credentials);
        }
        if let Some(identity) = &environment.web_identity {
            return self.of_web_identity(identity, place).await;
        }
        if let Some(container) = &environment.container {
            return self.of_container(container).await;
        }
        match imds.role_keys().await? {
            Some((role, json)) => self.given(&json, "the role of the instance").map_err(|error| {
                let message = format!("{} (role {role})", error.message);
                CloudError { message, ..error }
            }),
            None => Err(self.fail(
                Trouble::Denied,
                "there are none: not in the environment, in no shared file, for no web identity, from no container \
                 service, and the instance has no role. Give it an instance profile whose role may change route tables",
            )),
        }
    }

    async fn of_web_identity(
        &self,
        identity: &WebIdentity,
        (region, domain): (&str, &str),
    ) -> Result<Credentials, CloudError> {
        let token = read(&identity.token_file).map_err(|message| self.fail(Trouble::Denied, message))?;
        let endpoint =
            self.environment.sts.clone().unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
        let body = answers::form(&[
            ("Action", ASSUME),
            ("Version", "2011-06-15"),
            ("RoleArn", &identity.role),
            ("RoleSessionName", &identity.session),
            ("WebIdentityToken", token.trim()),
        ]);
        let request =
            Request::post(format!("{endpoint}/")).header("content-type", "application/x-www-form-urlencoded");
        let request = request
            .body(Bytes::from(body))
            .map_err(|error| self.fail(Trouble::Refused, error.to_string()))?;
        let answer = self.http.send(ASSUME, request, PATIENCE).await?;
        if answer.status() != StatusCode::OK {
            let failure = failure(ASSUME, answer.status(), answer.body());
            return Err(self.http.fail(failure));
        }
        let assumed: AssumedRole =
            answers::read(ASSUME, answer.body()).map_err(|error| self.http.fail(error))?;
        let keys = assumed.result.credentials;
        let expires = self.time(&keys.expiration)?;
        Ok(Credentials {
            id: keys.access_key_id,
            secret: Secret::new(keys.secret_access_key),
            token: Some(Secret::new(keys.session_token)),
            expires: Some(expires),
            from: "a web identity",
        })
    }

    async fn of_container(&self, container: &Container) -> Result<Credentials, CloudError> {
        let token = match &container.token_file {
            Some(file) => {
                let text = read(file).map_err(|message| self.fail(Trouble::Denied, message))?;
                Some(Secret::new(text.trim()))
            }
            None => container.token.clone(),
        };
        let mut request = Request::get(container.uri.clone());
        if let Some(token) = &token {
            request = request.header("authorization", token.expose());
        }
        let unusable =
            |_| self.fail(Trouble::Refused, "the token for the container service is no header of HTTP");
        let request = request.body(Bytes::new()).map_err(unusable)?;
        let answer = self.http.send(ACTION, request, PATIENCE).await?;
        if answer.status() != StatusCode::OK {
            let message = format!("the container service answers {}", answer.status());
            return Err(self.fail(Trouble::Denied, message));
        }
        self.given(&String::from_utf8_lossy(answer.body()), "the container service")
    }

    fn given(&self, json: &str, from: &'static str) -> Result<Credentials, CloudError> {
        // What the library says may repeat a secret.
        let given: Given = serde_json::from_str(json).map_err(|_| {
            self.http.fail(CloudError::garbage(ACTION, format!("{from} gives no JSON of keys")))
        })?;
        if let Some(code) = given.code.filter(|code| code != "Success") {
            let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
            return Err(self.fail(Trouble::Denied, format!("{from} answers {code}")));
        }
        let (Some(id), Some(secret)) = (given.access_key_id, given.secret_access_key) else {
            return Err(self.http.fail(CloudError::garbage(ACTION, format!("{from} gives no keys"))));
        };
        let expires = given.expiration.map(|time| self.time(&time)).transpose()?;
        Ok(Credentials {
            id,
            secret: Secret::new(secret),
            token: given.token.map(Secret::new),
            expires,
            from,
        })
    }

    fn time(&self, text: &str) -> Result<Timestamp, CloudError> {
        let garbage = |_| self.http.fail(CloudError::garbage(ACTION, "when the keys expire is no time"));
        text.parse().map_err(garbage)
    }

    fn fail(&self, trouble: Trouble, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, ACTION, message))
    }
}

fn read(path: &std::path::Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
