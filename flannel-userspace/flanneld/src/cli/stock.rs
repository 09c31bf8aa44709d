//! Flags of stock flannel that are not served yet.

use super::flags::Flags;
use super::refusal::Refusal;
use super::words::Settings;

/// A flag of stock flannel that is parsed, but not served yet.
struct NotServed {
    flag: &'static str,
    /// Whether more than the default is asked for.
    asked: fn(&Flags) -> bool,
    /// What to do about it.
    remedy: &'static str,
}

/// Everything not served yet. Remove an entry when its flag is served.
const NOT_SERVED: [NotServed; 3] = {
    const fn refused(flag: &'static str, asked: fn(&Flags) -> bool, remedy: &'static str) -> NotServed {
        NotServed { flag, asked, remedy }
    }
    const NO_KLOG: &str = "leave it out; -v makes the whole log more verbose";
    [
        refused("public-ipv6", |flags| flags.interface.public_ipv6.is_some(), "IPv4 is; leave it out"),
        refused("vmodule", |flags| flags.logging.vmodule.is_some(), NO_KLOG),
        refused(
            "log_backtrace_at",
            |flags| flags.logging.log_backtrace_at.as_deref().is_some_and(|at| at != ":0"),
            NO_KLOG,
        ),
    ]
};

/// Whether the help should say so.
pub(super) fn is_served(flag: &str) -> bool {
    NOT_SERVED.iter().all(|entry| entry.flag != flag)
}

/// Refuses everything that is not served, at once.
pub(super) fn check(flags: &Flags, settings: &Settings) -> Result<(), Refusal> {
    let asked = NOT_SERVED.iter().filter(|entry| (entry.asked)(flags));
    let refused: Vec<String> = asked
        .map(|entry| format!("{} is not served yet: {}", settings.written(entry.flag), entry.remedy))
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(Refusal::value(refused.join("\nerror: "))) }
}
