//! Variables that look as if they said something to flanneld, and do not.

use clap::{Arg, Command};

use super::removed::instead_of;
use super::words::env_name;

/// Variables of unit files for earlier flannels, which put them on the command line: they say nothing by themselves.
const OF_UNITS: [(&str, &str); 6] = [
    ("FLANNEL_ETCD", "FLANNELD_ETCD_ENDPOINTS"),
    ("FLANNEL_ETCD_ENDPOINTS", "FLANNELD_ETCD_ENDPOINTS"),
    ("FLANNEL_ETCD_KEY", "FLANNELD_ETCD_PREFIX"),
    ("FLANNEL_ETCD_PREFIX", "FLANNELD_ETCD_PREFIX"),
    ("FLANNEL_OPTIONS", "flags on the command line"),
    ("FLANNEL_IFACE", "FLANNELD_IFACE"),
];
/// What Kubernetes puts into the environment of pods for a service of that name.
const OF_SERVICES: [&str; 2] = ["FLANNELD_SERVICE_", "FLANNELD_PORT"];

/// A sentence for each of the variables called `names` that is ignored.
pub(super) fn ignored(command: &Command, names: impl Iterator<Item = String>) -> Vec<String> {
    names
        .filter_map(|name| Some(format!("the variable {name} is ignored: {}", why(command, &name)?)))
        .collect()
}

fn why(command: &Command, name: &str) -> Option<String> {
    if name == "RUST_LOG" {
        return Some("-v, FLANNELD_V and `flannelctl log-level` say how much is logged".to_owned());
    }
    if let Some((_, instead)) = OF_UNITS.iter().find(|(variable, _)| *variable == name) {
        return Some(format!("use {instead}"));
    }
    let flag = name.strip_prefix("FLANNELD_")?.to_ascii_lowercase().replace('_', "-");
    let is_known = command.get_arguments().filter_map(Arg::get_long).any(|known| {
        // Stock flannel ignores the one for its version, which is likely about the image.
        env_name(known).is_none_or(|variable| variable == name) && known.replace('_', "-") == flag
    });
    if is_known || OF_SERVICES.iter().any(|prefix| name.starts_with(prefix)) {
        return None;
    }
    match (instead_of(&flag), flag.as_str()) {
        (Some(instead), _) => Some(format!("--{flag} was removed from flannel: {instead}")),
        (None, "options" | "opts" | "extra-args" | "args") => {
            Some("use flags on the command line, or a variable for each, such as FLANNELD_IFACE".to_owned())
        }
        (None, _) => {
            Some(format!("there is no flag --{flag}; `flanneld --help` names the variable of each flag"))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::command::command;
    use super::ignored;

    #[rstest]
    #[case::removed("FLANNELD_REMOTE", "there is no server between daemons and etcd any more")]
    #[case::of_a_unit("FLANNELD_OPTIONS", "flags on the command line")]
    #[case::of_an_older_unit("FLANNEL_ETCD_ENDPOINTS", "use FLANNELD_ETCD_ENDPOINTS")]
    #[case::key("FLANNEL_ETCD_KEY", "use FLANNELD_ETCD_PREFIX")]
    #[case::glog("FLANNELD_LOGTOSTDERR", "standard error")]
    #[case::misspelt("FLANNELD_ETCD_ENDPOINT_S", "there is no flag --etcd-endpoint-s")]
    #[case::of_the_library("RUST_LOG", "-v, FLANNELD_V")]
    fn what_is_ignored_is_told(#[case] name: &str, #[case] why: &str) {
        let told = ignored(&command(), std::iter::once(name.to_owned()));
        assert_eq!(told.len(), 1);
        assert!(
            told[0].contains(&format!("the variable {name} is ignored: ")) && told[0].contains(why),
            "{told:?}"
        );
    }

    #[rstest]
    fn what_says_something_is_not(
        #[values(
            "FLANNELD_ETCD_ENDPOINTS",
            "FLANNELD_LOG_BACKTRACE_AT",
            "FLANNELD_VERSION",
            "FLANNELD_SERVICE_HOST",
            "FLANNELD_PORT_8081_TCP",
            "FLANNEL_NETWORK",
            "FLANNEL_MTU",
            "PATH"
        )]
        name: &str,
    ) {
        assert!(ignored(&command(), std::iter::once(name.to_owned())).is_empty(), "{name}");
    }
}
