//! Values with a parser of their own.

use std::any::TypeId;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, ValueEnum};
use flannel_common::flow::Bypass;
use flannel_common::maps::Guard;
use tracing::Level;

/// The format of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, text, fields.
    #[default]
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A flag that is true when it is given without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Switch(bool);

impl Switch {
    pub(super) const fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for Switch {
    type Err = &'static str;

    /// The spellings of Go's `strconv.ParseBool`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err("give true or false"),
        }
    }
}

/// Whether the flag may go without a value.
pub(super) fn is_switch(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<Switch>()
}

/// Where to listen, as Go programs take it: nothing stands for every address of the host.
pub(super) fn listen_ip(text: &str) -> Result<IpAddr, &'static str> {
    match text.trim_start_matches('[').trim_end_matches(']') {
        "" => Ok(Ipv4Addr::UNSPECIFIED.into()),
        "localhost" => Ok(Ipv4Addr::LOCALHOST.into()),
        address => {
            address.parse().map_err(|_| "give an address of this host, such as 127.0.0.1, or localhost")
        }
    }
}

/// The same with a port.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, &'static str> {
    const USAGE: &str =
        "give an address of this host and a port, such as 127.0.0.1:9090, localhost:9090 or :9090";
    let (address, port) = text.rsplit_once(':').ok_or(USAGE)?;
    if address.contains(':') && !address.starts_with('[') {
        return Err("put an IPv6 address into brackets, such as [::1]:9090");
    }
    let ip = listen_ip(address).map_err(|_| USAGE)?;
    Ok(SocketAddr::new(ip, port.parse().map_err(|_| USAGE)?))
}

/// Names of interfaces, separated by commas.
#[derive(Clone, Debug)]
pub(super) struct Interfaces(Vec<String>);

impl From<Interfaces> for Vec<String> {
    fn from(interfaces: Interfaces) -> Self {
        interfaces.0
    }
}

impl FromStr for Interfaces {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(interface_name).collect::<Result<_, _>>().map(Self)
    }
}

/// What the kernel accepts as a name.
fn interface_name(name: &str) -> Result<String, String> {
    if name.len() <= 15 && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace()) {
        Ok(name.to_owned())
    } else {
        Err(format!("'{name}' is no name of an interface; give names with commas between them"))
    }
}

/// [`Guard`] as a value of a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum GuardChoice {
    /// The outer source must be the peer that leases the subnet of the inner source.
    Strict,
    /// The outer source must be a peer.
    Peer,
    /// Everything well-formed is let in, as with stock flannel.
    Off,
}

impl From<GuardChoice> for Guard {
    fn from(choice: GuardChoice) -> Self {
        match choice {
            GuardChoice::Strict => Self::Strict,
            GuardChoice::Peer => Self::Peer,
            GuardChoice::Off => Self::Off,
        }
    }
}

/// [`Bypass`] as a value of a flag.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum BypassChoice {
    /// The same as flow.
    Auto,
    /// TCP connections only after connection tracking is set to be liberal with them.
    Flow,
    /// Without regard to connection tracking.
    Direct,
    /// All packets go through the stack.
    Off,
}

impl From<BypassChoice> for Bypass {
    fn from(choice: BypassChoice) -> Self {
        match choice {
            BypassChoice::Auto | BypassChoice::Flow => Self::Flow,
            BypassChoice::Direct => Self::Direct,
            BypassChoice::Off => Self::Off,
        }
    }
}

/// Longest lease etcd grants: 9,000,000,000 seconds.
const LONGEST_LEASE: Duration = Duration::from_secs(9_000_000_000);

/// The time to live of a lease. etcd counts in seconds.
pub(super) fn lease_ttl(text: &str) -> Result<Duration, &'static str> {
    let ttl = duration(text).ok_or("give numbers and units, such as 24h, 90s or 1h30m")?;
    if (Duration::from_secs(1)..=LONGEST_LEASE).contains(&ttl) && ttl.subsec_nanos() == 0 {
        Ok(ttl)
    } else {
        Err("give whole seconds, from 1s to 2500000h")
    }
}

/// How long to wait for something; zero for not at all.
pub(super) fn pause(text: &str) -> Result<Duration, &'static str> {
    match duration(text).ok_or("give numbers and units, such as 90s or 1h30m, or 0s")? {
        pause if pause <= LONGEST_PAUSE => Ok(pause),
        _ => Err("give at most 24h"),
    }
}

/// A longer pause would hide that peers are gone.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration as Go writes it, such as `1h30m` or `1.5h`.
fn duration(text: &str) -> Option<Duration> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut rest = text;
    let mut seconds = 0.0;
    loop {
        let (number, tail) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
        seconds += number.parse::<f64>().ok()? * seconds_of(unit)?;
        if tail.is_empty() {
            return Duration::try_from_secs_f64(seconds).ok();
        }
        rest = tail;
    }
}

fn seconds_of(unit: &str) -> Option<f64> {
    match unit {
        "h" => Some(3600.0),
        "m" => Some(60.0),
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        _ => None,
    }
}

/// Stock flannel's verbosity as a level.
pub(super) const fn log_level(verbosity: i32) -> Level {
    match verbosity {
        ..=0 => Level::INFO,
        1..=3 => Level::DEBUG,
        4.. => Level::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::{Interfaces, Switch, lease_ttl, listen_address, listen_ip, log_level, pause};

    #[rstest]
    #[case("24h", 86_400)]
    #[case("1h30m", 5_400)]
    #[case("1.5h", 5_400)]
    #[case("90s", 90)]
    #[case("1m1s", 61)]
    #[case("1000ms", 1)]
    #[case("2500000h", 9_000_000_000)]
    fn a_ttl(#[case] text: &str, #[case] seconds: u64) {
        assert_eq!(lease_ttl(text), Ok(Duration::from_secs(seconds)));
    }

    #[rstest]
    #[case::empty("", "units")]
    #[case::no_unit("86400", "units")]
    #[case::no_number("h", "units")]
    #[case::unit("1d", "units")]
    #[case::last_unit("1h30", "units")]
    #[case::sign("-1h", "units")]
    #[case::blank("1h 30m", "units")]
    #[case::points("1.2.3h", "units")]
    #[case::zero("0s", "whole seconds")]
    #[case::fraction("1500ms", "whole seconds")]
    #[case::too_long("2500001h", "whole seconds")]
    #[case::endless("99999999999999999999999h", "units")]
    fn no_ttl(#[case] text: &str, #[case] message: &str) {
        assert!(lease_ttl(text).unwrap_err().contains(message));
    }

    #[rstest]
    #[case("0s", Ok(Duration::ZERO))]
    #[case("500ms", Ok(Duration::from_millis(500)))]
    #[case("24h", Ok(Duration::from_secs(86_400)))]
    #[case("25h", Err("give at most 24h"))]
    #[case("60", Err("give numbers and units, such as 90s or 1h30m, or 0s"))]
    fn a_pause(#[case] text: &str, #[case] expected: Result<Duration, &str>) {
        assert_eq!(pause(text), expected);
    }

    #[rstest]
    fn a_switch_is_on(#[values("1", "t", "T", "true", "TRUE", "True")] text: &str) {
        assert!(text.parse::<Switch>().unwrap().is_on());
    }

    #[rstest]
    fn a_switch_is_off(#[values("0", "f", "F", "false", "FALSE", "False")] text: &str) {
        assert!(!text.parse::<Switch>().unwrap().is_on());
    }

    #[rstest]
    fn no_switch(#[values("", "yes", "on", "tRUE", "2", " true")] text: &str) {
        assert!(text.parse::<Switch>().is_err());
    }

    #[rstest]
    #[case("cni0,docker0", &["cni0", "docker0"])]
    #[case(" cni0 ,, br-5f1c2d3e4a5b", &["cni0", "br-5f1c2d3e4a5b"])]
    #[case("", &[])]
    fn interfaces(#[case] text: &str, #[case] names: &[&str]) {
        assert_eq!(Vec::from(text.parse::<Interfaces>().unwrap()), names);
    }

    #[rstest]
    fn no_interfaces(#[values("a-name-too-long1", "a/b", "cni0 docker0")] text: &str) {
        assert!(text.parse::<Interfaces>().is_err(), "{text}");
    }

    #[rstest]
    #[case("127.0.0.1:9090", "127.0.0.1:9090")]
    #[case("localhost:9090", "127.0.0.1:9090")]
    #[case(":9090", "0.0.0.0:9090")]
    #[case("[::1]:9090", "[::1]:9090")]
    fn where_to_listen(#[case] text: &str, #[case] address: &str) {
        assert_eq!(listen_address(text).unwrap().to_string(), address);
    }

    #[rstest]
    #[case::no_port("127.0.0.1", "such as 127.0.0.1:9090")]
    #[case::port_alone("9090", "such as 127.0.0.1:9090")]
    #[case::name("metrics:9090", "such as 127.0.0.1:9090")]
    #[case::no_number("127.0.0.1:http", "such as 127.0.0.1:9090")]
    #[case::brackets("::1:9090", "into brackets")]
    fn nowhere_to_listen(#[case] text: &str, #[case] message: &str) {
        assert!(listen_address(text).unwrap_err().contains(message));
    }

    #[rstest]
    #[case("", "0.0.0.0")]
    #[case("localhost", "127.0.0.1")]
    #[case("::", "::")]
    #[case("[::1]", "::1")]
    fn addresses_to_listen_at(#[case] text: &str, #[case] address: &str) {
        assert_eq!(listen_ip(text).unwrap().to_string(), address);
        assert!(listen_ip("etcd").unwrap_err().contains("localhost"));
    }

    #[rstest]
    #[case(-1, tracing::Level::INFO)]
    #[case(0, tracing::Level::INFO)]
    #[case(1, tracing::Level::DEBUG)]
    #[case(3, tracing::Level::DEBUG)]
    #[case(4, tracing::Level::TRACE)]
    #[case(10, tracing::Level::TRACE)]
    fn level_of(#[case] verbosity: i32, #[case] level: tracing::Level) {
        assert_eq!(log_level(verbosity), level);
    }
}
