//! What goes wrong between a host and its cloud.

use std::fmt;

/// The cloud does not do what it is asked, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{action}: {message}")]
pub struct CloudError {
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// What was to be done, as the cloud calls it: `CreateRoute`, say.
    pub action: &'static str,
    /// What happened, and the remedy.
    pub message: String,
}

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trouble {
    /// Too many calls: later again.
    Throttled,
    /// Not with these credentials, or without any.
    Denied,
    /// There is no such thing.
    NotFound,
    /// There is one already: what was read is out of date.
    Conflict,
    /// There is no room for one more.
    Full,
    /// Nobody answers.
    Unreachable,
    /// The answer is none.
    Garbage,
    /// The cloud cannot, for the moment.
    Unavailable,
    /// It refuses for another reason, or the host is not where it would have to be.
    Refused,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Throttled,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::Full,
        Self::Unreachable,
        Self::Garbage,
        Self::Unavailable,
        Self::Refused,
    ];

    /// Whether it says nothing of what is in the route tables.
    pub(crate) const fn is_blindness(self) -> bool {
        matches!(self, Self::Throttled | Self::Denied | Self::Unreachable | Self::Garbage | Self::Unavailable)
    }

    /// The name used in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Full => "full",
            Self::Unreachable => "unreachable",
            Self::Garbage => "garbage",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
        }
    }
}

impl CloudError {
    /// Trouble with `action`.
    pub fn new(trouble: Trouble, action: &'static str, message: impl Into<String>) -> Self {
        Self { trouble, action, message: message.into() }
    }

    /// An answer that is none.
    pub fn garbage(action: &'static str, what: impl fmt::Display) -> Self {
        Self::new(Trouble::Garbage, action, format!("the answer cannot be read: {what}"))
    }

    /// An answer with that status which is none of the API's: of a proxy before it, say.
    pub(crate) fn of_no_api(action: &'static str, status: u16) -> Self {
        let trouble = if status >= 500 { Trouble::Unavailable } else { Trouble::Garbage };
        Self::new(trouble, action, format!("status {status} without an answer of the API's"))
    }

    /// Whether it is this kind of trouble.
    #[must_use]
    pub fn is(&self, trouble: Trouble) -> bool {
        self.trouble == trouble
    }
}
