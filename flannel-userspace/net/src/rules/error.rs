//! Why rules are not in place.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A program is not installed.
    #[error(
        "cannot find the program {program}: install the package {package}, or set EnableNFTables to \
         {other_engine} in the network's configuration for the other kind of rules, or do without: leave \
         --ip-masq out and give --iptables-forward-rules=false"
    )]
    Missing {
        /// Its name.
        program: &'static str,
        /// The package it is in.
        package: &'static str,
        /// The value of `EnableNFTables` with which another program does its work.
        other_engine: bool,
    },
    /// A program could not be started.
    #[error("cannot run `{command}`: make it a program that this user may execute")]
    Run {
        /// With its arguments.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// A program took too long, and was killed.
    #[error(
        "`{command}` did not end within {} seconds; does another program hold the rules (fuser -v /run/xtables.lock)?",
        .deadline.as_secs()
    )]
    Deadline {
        /// With its arguments.
        command: String,
        /// How long it may take.
        deadline: Duration,
    },
    /// A program refused.
    #[error("`{command}` failed ({status}): {stderr}{}", remedy(stderr))]
    Failed {
        /// With its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said, on one line.
        stderr: String,
    },
    /// `nft` printed what it does not print.
    #[error("cannot read what `{command}` printed: is this nft of nftables 0.9.3 or newer, with JSON?")]
    Unreadable {
        /// With its arguments.
        command: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// What helps against what programs say of the kernel.
fn remedy(stderr: &str) -> &'static str {
    const REMEDIES: [(&str, &str); 6] = [
        ("ermission denied", PRIVILEGE),
        ("not permitted", PRIVILEGE),
        ("must be root", PRIVILEGE),
        (
            "is incompatible, use 'nft' tool",
            "; somebody wrote rules into that table with nft: have them use a table of their own",
        ),
        ("Could not fetch rule set generation id", PRIVILEGE),
        (
            "No chain/target/match by that name",
            "; the kernel lacks a module, such as xt_comment, xt_MASQUERADE or nft_compat",
        ),
    ];
    REMEDIES.iter().find(|(sign, _)| stderr.contains(sign)).map_or("", |(_, remedy)| remedy)
}

const PRIVILEGE: &str = "; it takes CAP_NET_ADMIN, and iptables' legacy variant CAP_NET_RAW";

impl RulesError {
    /// Whether a program is not installed. Where no more than [`Spec::forward`](super::Spec::forward) asked
    /// for it a host forwards without it, unless something drops by default.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether what could not be read is not there: no program, or a kernel without that packet filter,
    /// about which each version has its own words. To be forbidden to read says nothing.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::Failed { stderr, .. } => {
                !["Permission denied", "not permitted"].iter().any(|words| stderr.contains(words))
            }
            Self::Run { .. } | Self::Deadline { .. } | Self::Unreadable { .. } => false,
        }
    }
}
