//! What a plugin says when it cannot do what it is asked for.

use serde_json::{Value, json};

/// Why something was not done, as the runtime reads it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{msg}")]
pub struct CniError {
    /// Which kind; up to 99 those of the specification.
    pub code: u32,
    /// What happened.
    pub msg: String,
    /// What else helps; may be empty.
    pub details: String,
}

/// The codes of the specification that are used here, and the one beyond them.
pub mod code {
    /// The configuration's version is not spoken, or its version has no such command.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// Variables are missing or wrong.
    pub const ENVIRONMENT: u32 = 4;
    /// The standard input cannot be read.
    pub const IO: u32 = 5;
    /// The configuration is no JSON, or something in it is of another type.
    pub const DECODING: u32 = 6;
    /// The configuration does not hold what it must.
    pub const CONFIGURATION: u32 = 7;
    /// The pod's network namespace is the host's.
    pub const NETWORK_NAMESPACE: u32 = 8;
    /// It will work later.
    pub const TRY_AGAIN_LATER: u32 = 11;
    /// No pod can get an interface.
    pub const NOT_AVAILABLE: u32 = 50;
    /// The same, and existing pods may not reach others.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// Everything else, as in stock flannel.
    pub const INTERNAL: u32 = 999;
}

impl CniError {
    /// Without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self::with_details(code, msg, "")
    }

    /// With details.
    pub fn with_details(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: details.into() }
    }

    /// Of no code of the specification.
    pub fn internal(msg: impl Into<String>) -> Self {
        Self::new(code::INTERNAL, msg)
    }

    /// The same reason by another code.
    #[must_use]
    pub fn coded(self, code: u32) -> Self {
        Self { code, ..self }
    }

    /// As a runtime reads it.
    pub fn to_json(&self) -> Value {
        let Self { code, msg, details } = self;
        if details.is_empty() {
            json!({"code": code, "msg": msg})
        } else {
            json!({"code": code, "msg": msg, "details": details})
        }
    }
}
