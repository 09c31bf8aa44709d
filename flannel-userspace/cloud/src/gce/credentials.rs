//! Tokens for calls, from where the environment says.

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::time::Instant;

use super::environment::Environment;
use super::key_file::{KeyFile, Source};
use super::metadata::Metadata;
use super::token::{Token, form};
use crate::http::{Http, Request, StatusCode};
use crate::{CloudError, Trouble};

/// What its calls are named.
const ACTION: &str = "token";
/// For a token of a key or a user.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where tokens come from, and the last one.
pub(super) struct Credentials {
    source: Source,
    metadata: Metadata,
    http: Http,
    current: Option<(Token, Instant)>,
}

impl Credentials {
    pub(super) fn new(environment: &Environment, metadata: Metadata, http: Http) -> Self {
        Self { source: environment.credentials.clone(), metadata, http, current: None }
    }

    /// A token that is good for a while.
    pub(super) async fn token(&mut self) -> Result<Token, CloudError> {
        if let Some((token, end)) = &self.current
            && Instant::now() < *end
        {
            return Ok(token.clone());
        }
        let since = Instant::now();
        let token = self.ask().await?;
        self.current = Some((token.clone(), since + token.use_for()));
        Ok(token)
    }

    /// The last token is not taken any more.
    pub(super) fn forget(&mut self) {
        self.current = None;
    }

    /// The file is read again each time: a key may have been replaced.
    async fn ask(&self) -> Result<Token, CloudError> {
        let path = match &self.source {
            Source::Metadata => return self.metadata.token().await,
            Source::Named(path) | Source::WellKnown(path) => path,
        };
        match tokio::fs::read_to_string(path).await {
            Ok(text) => self.exchange(path, &text).await,
            Err(error)
                if error.kind() == ErrorKind::NotFound && matches!(self.source, Source::WellKnown(_)) =>
            {
                self.metadata.token().await
            }
            Err(error) => Err(self.unusable(path, error)),
        }
    }

    async fn exchange(&self, path: &Path, text: &str) -> Result<Token, CloudError> {
        let file = KeyFile::parse(text).map_err(|error| self.unusable(path, error))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let form = form(&file, now.as_secs()).map_err(|error| self.unusable(path, error))?;
        let request = Request::post(file.token_uri())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(|error| self.unusable(path, format!("its token_uri is no URL: {error}")))?;
        let answer = self.http.send(ACTION, request, PATIENCE).await?;
        match answer.status() {
            StatusCode::OK => serde_json::from_slice(answer.body())
                .map_err(|_| self.http.fail(CloudError::garbage(ACTION, "it is no token"))),
            StatusCode::TOO_MANY_REQUESTS => Err(self.fail(Trouble::Throttled, "too many requests")),
            status if status.is_server_error() => {
                Err(self.fail(Trouble::Unavailable, format!("it answers {status}")))
            }
            status => {
                let message = format!(
                    "{} of {} gets no token: it answers {status}{}",
                    path.display(),
                    describe(&file),
                    reason(answer.body())
                );
                Err(self.fail(Trouble::Denied, message))
            }
        }
    }

    fn unusable(&self, path: &Path, why: impl std::fmt::Display) -> CloudError {
        self.fail(Trouble::Denied, format!("{} cannot be used: {why}", path.display()))
    }

    fn fail(&self, trouble: Trouble, message: impl Into<String>) -> CloudError {
        self.http.fail(CloudError::new(trouble, ACTION, message))
    }
}

fn describe(file: &KeyFile) -> String {
    format!("{file:?}")
}

/// Why, in the words of RFC 6749, 5.2.
fn reason(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Reason {
        error: String,
    }
    let reason = serde_json::from_slice::<Reason>(body);
    reason.map_or_else(
        |_| String::new(),
        |reason| format!(", {}", reason.error.chars().take(60).collect::<String>()),
    )
}
