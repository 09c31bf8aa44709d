//! How a command ends: with an answer that is as it should be, with one that is not, or without one.

use std::process::ExitCode;

use flannel_control::exclusive::ExclusiveError;
use flannel_control::socket::AskError;
use flannel_datapath::DatapathError;
use flannel_kubernetes::{ApiError, PodError};
use flannel_registry::RegistryError;
use serde::Serialize;

use super::leftovers::DownError;

/// Bad usage, as with clap.
const USAGE: u8 = 2;
/// Not as it should be.
const OTHERWISE: u8 = 3;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is as it should be, or it was done.
    AsItShouldBe,
    /// Something is not.
    Otherwise,
}

impl Outcome {
    /// The first, if `is_right`.
    pub(super) const fn of(is_right: bool) -> Self {
        if is_right { Self::AsItShouldBe } else { Self::Otherwise }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::AsItShouldBe => Self::SUCCESS,
            Outcome::Otherwise => Self::from(OTHERWISE),
        }
    }
}

/// Why there is no answer, for programs. Names are a stable interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Code {
    /// Nothing is pinned where the maps would be.
    NoDatapath,
    /// The maps are of another version.
    OtherLayout,
    /// It takes root.
    NotPermitted,
    /// The maps or programs cannot be read.
    Datapath,
    /// Another trace or capture runs.
    Busy,
    /// A daemon holds the pins.
    InUse,
    /// No daemon answers.
    NoDaemon,
    /// What has the socket does not answer as it should.
    DaemonSilent,
    /// The daemon does not do it.
    Refused,
    /// etcd does not answer, or has nothing.
    Etcd,
    /// The API server does not answer, or does not say it.
    Kubernetes,
    /// No leases are known on this host.
    NothingKnown,
    /// There is no such peer.
    NoSuchPeer,
    /// The table has no such column.
    NoSuchColumn,
    /// Standard input or output is no terminal.
    NoTerminal,
    /// Whoever was asked back did not agree.
    NotConfirmed,
    /// Anything else.
    Failed,
}

impl Code {
    /// The first cause that has a code gives it.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        // An error that `context` was added to is found on the way to its cause.
        if let Some(Failure { code, .. }) = error.downcast_ref() {
            return *code;
        }
        let code = |cause: &(dyn std::error::Error + 'static)| {
            if let Some(failure) = cause.downcast_ref::<Failure>() {
                return Some(failure.code);
            }
            if let Some(error) = cause.downcast_ref::<AskError>() {
                return Some(Self::of_asking(error));
            }
            // It speaks for its cause, and so hides it.
            if let Some(DownError::Datapath(error)) = cause.downcast_ref() {
                return Some(Self::of_datapath(error));
            }
            if let Some(DownError::Exclusive(ExclusiveError::Taken(_))) = cause.downcast_ref() {
                return Some(Self::InUse);
            }
            if let Some(error) = cause.downcast_ref::<DatapathError>() {
                return Some(Self::of_datapath(error));
            }
            if cause.is::<ApiError>() || cause.is::<PodError>() {
                return Some(Self::Kubernetes);
            }
            match cause.downcast_ref::<RegistryError>() {
                Some(RegistryError::Other { error, .. }) if error.is::<ApiError>() => Some(Self::Kubernetes),
                found => found.map(|_| Self::Etcd),
            }
        };
        error.chain().find_map(code).unwrap_or(Self::Failed)
    }

    const fn of_datapath(error: &DatapathError) -> Self {
        match error {
            DatapathError::TraceBusy { .. } => Self::Busy,
            DatapathError::Locked { .. } => Self::InUse,
            _ => Self::Datapath,
        }
    }

    const fn of_asking(error: &AskError) -> Self {
        match error {
            AskError::Nobody { .. } => Self::NoDaemon,
            AskError::Refused(_) => Self::Refused,
            AskError::Io { .. } => Self::Failed,
            AskError::Silent { .. } | AskError::Ended { .. } | AskError::Foreign { .. } => Self::DaemonSilent,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        match code {
            Code::NoSuchPeer => Self::from(OTHERWISE),
            Code::NoSuchColumn | Code::NoTerminal => Self::from(USAGE),
            _ => Self::FAILURE,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    /// `message` names the thing and the remedy.
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use flannel_control::socket::AskError;

    use super::{Code, DatapathError, DownError, Failure};

    #[test]
    fn a_code_is_found_behind_what_was_added() {
        let failure = || anyhow::Error::from(Failure::new(Code::NoSuchPeer, "no peer is h2"));
        assert_eq!(Code::of(&failure()), Code::NoSuchPeer);
        assert_eq!(Code::of(&failure().context("cannot trace")), Code::NoSuchPeer);
        let asked: Result<(), _> = Err(AskError::Refused("no".to_owned()));
        assert_eq!(Code::of(&asked.context("cannot reload").unwrap_err()), Code::Refused);
        let locked = DownError::Datapath(DatapathError::Locked { path: "/x".into() });
        assert_eq!(Code::of(&locked.into()), Code::InUse);
        assert_eq!(Code::of(&anyhow::anyhow!("what else")), Code::Failed);
    }
}
