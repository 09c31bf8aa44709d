//! What can go wrong with the API server.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use flannel_registry::RegistryError;

/// The API server could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The settings do not say how to reach it.
    #[error("fail to create kubernetes config: {0}")]
    Settings(String),
    /// The kubeconfig file does not say it.
    #[error("fail to create kubernetes config: {path}, the --kubeconfig-file: {reason}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The files it needs cannot be used.
    #[error("unable to initialize client: {0}")]
    Client(String),
    /// It cannot be reached, or the connection broke.
    #[error("the API server {server} did not {operation}: {reason}{}", hint(server))]
    Unreachable {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// It did not answer in time.
    #[error("the API server {server} did not {operation} within {after:?}; is it overloaded or cut off?")]
    Timeout {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It does not let this daemon do that.
    #[error("the API server {server} did not {operation} ({code}): {message}; {}", remedy(*code))]
    Denied {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// 401 or 403.
        code: u16,
        /// What it says.
        message: String,
    },
    /// There is no such object.
    #[error("the API server {server} did not {operation} (404): {message}")]
    NotFound {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// What it says.
        message: String,
    },
    /// It keeps no history up to there.
    #[error("the API server {server} did not {operation} (410): {message}")]
    Gone {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// What it says.
        message: String,
    },
    /// It has too much to do, or refuses for another reason.
    #[error("the API server {server} did not {operation} ({code}): {message}")]
    Refused {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// The HTTP status.
        code: u16,
        /// What it says.
        message: String,
    },
    /// What answers is no API server, or one of another time.
    #[error(
        "what answers at {server} did not {operation} as an API server does: {reason}; is the URL that of the API \
         server?"
    )]
    Answer {
        /// Its URL.
        server: String,
        /// What was asked.
        operation: &'static str,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ApiError {
    /// Whether nothing is known of what was asked for, so that to ask again may help.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        match self {
            Self::Settings(_)
            | Self::Kubeconfig { .. }
            | Self::Client(_)
            | Self::NotFound { .. }
            | Self::Gone { .. } => false,
            // Too many requests are answered later; what else is wrong with a request stays wrong.
            Self::Refused { code, .. } => matches!(code, 429 | 500..),
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Denied { .. } | Self::Answer { .. } => {
                true
            }
        }
    }

    /// Whether certificates, a token or an address that were read again may end it.
    pub(crate) const fn may_be_of_files(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Timeout { .. } | Self::Denied { code: 401, .. })
    }

    /// What stands for it in metrics: the HTTP status, or why there is none.
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Settings(_) | Self::Kubeconfig { .. } | Self::Client(_) => "Client".to_owned(),
            Self::Unreachable { .. } => "Transport".to_owned(),
            Self::Timeout { .. } => "Timeout".to_owned(),
            Self::Answer { .. } => "Answer".to_owned(),
            Self::Denied { code, .. } | Self::Refused { code, .. } => code.to_string(),
            Self::NotFound { .. } => "404".to_owned(),
            Self::Gone { .. } => "410".to_owned(),
        }
    }

    /// The error of a request, of which the client tells in its own words.
    pub(crate) fn of(server: &str, operation: &'static str, error: &kube::Error) -> Self {
        let server = server.to_owned();
        match error {
            kube::Error::Api(status) => {
                Self::of_status(server, operation, status.code, status.message.clone())
            }
            kube::Error::SerdeError(error) => Self::Answer { server, operation, reason: error.to_string() },
            kube::Error::FromUtf8(error) => Self::Answer { server, operation, reason: error.to_string() },
            error => Self::Unreachable { server, operation, reason: causes(error) },
        }
    }

    pub(crate) const fn of_status(
        server: String,
        operation: &'static str,
        code: u16,
        message: String,
    ) -> Self {
        match code {
            401 | 403 => Self::Denied { server, operation, code, message },
            404 => Self::NotFound { server, operation, message },
            410 => Self::Gone { server, operation, message },
            _ => Self::Refused { server, operation, code, message },
        }
    }
}

impl From<ApiError> for RegistryError {
    fn from(error: ApiError) -> Self {
        let is_absence = error.is_absence();
        Self::Other { error: Box::new(error), is_absence }
    }
}

/// The innermost causes say more than the client's own words.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    if texts.is_empty() { error.to_string() } else { texts.join(": ") }
}

/// What the operator can do about a request that was denied.
const fn remedy(code: u16) -> &'static str {
    match code {
        401 => {
            "is the token expired, or the certificate of another cluster? A token file is read again by itself"
        }
        _ => {
            "grant the daemon's account, by a ClusterRole, what stock flannel's has: pods get; nodes get, list, watch; \
             nodes/status patch"
        }
    }
}

/// Behind the service's address stands kube-proxy, which may not be there yet.
fn hint(server: &str) -> &'static str {
    let service = std::env::var("KUBERNETES_SERVICE_HOST").unwrap_or_default();
    if !service.is_empty() && server.contains(&service) {
        "; this is the address of a service, which kube-proxy serves: until it does, set KUBERNETES_SERVICE_HOST and \
         KUBERNETES_SERVICE_PORT to an API server's own address"
    } else {
        ""
    }
}
