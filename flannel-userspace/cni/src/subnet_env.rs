//! The subnet file: which subnet flanneld leases for this host.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use flannel_model::config::cidr::masked;
use ipnetwork::IpNetwork;

use crate::error::{CniError, code};

/// Larger than any subnet file; the rest of a larger file is not read.
const LONGEST: u64 = 64 << 10;
/// Pause between two looks for a file that is not there yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What a pod's interface needs to know of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetEnv {
    /// The networks all subnets are cut from: those of IPv4, then those of IPv6.
    pub networks: Vec<IpNetwork>,
    /// This host's subnets: that of IPv4, then that of IPv6.
    pub subnets: Vec<IpNetwork>,
    /// Largest packet a pod may send, in bytes.
    pub mtu: u32,
    /// Whether flanneld masquerades, so that the delegate must not.
    pub ip_masq: bool,
}

/// Why the file does not say what it should.
#[derive(Debug, thiserror::Error)]
pub enum SubnetEnvError {
    /// flanneld has not written it yet, or the host has booted since.
    #[error("open {0}: no such file or directory")]
    Absent(String),
    /// It cannot be read.
    #[error("open {0}: {1}")]
    Unreadable(String, io::Error),
    /// A line is not what it should be.
    #[error("{file}: {line:?} is no {what}")]
    Line {
        /// The file.
        file: String,
        /// The line.
        line: String,
        /// What should be there.
        what: &'static str,
    },
    /// Something is not said.
    #[error("{0} is missing {1}")]
    Missing(String, String),
}

impl From<SubnetEnvError> for CniError {
    fn from(error: SubnetEnvError) -> Self {
        let code = match error {
            SubnetEnvError::Absent(_) => code::TRY_AGAIN_LATER,
            _ => code::INTERNAL,
        };
        let msg = format!(
            "failed to load flannel 'subnet.env' file: {error}. Check the flannel pod log for this node."
        );
        Self::new(code, msg)
    }
}

/// Reads the file; one that is not there yet is waited for.
///
/// # Errors
/// It is still not there after `patience`, or it is no subnet file.
pub fn await_file(path: &Path, patience: Duration) -> Result<SubnetEnv, SubnetEnvError> {
    let end = Instant::now() + patience;
    loop {
        match read(path) {
            Err(SubnetEnvError::Absent(_)) if Instant::now() < end => sleep(PAUSE),
            said => return said,
        }
    }
}

/// Reads the file.
///
/// # Errors
/// It is not there, or it is no subnet file.
pub fn read(path: &Path) -> Result<SubnetEnv, SubnetEnvError> {
    let name = path.display().to_string();
    let mut text = Vec::new();
    match File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)) {
        Ok(_) => parse(&name, &String::from_utf8_lossy(&text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(SubnetEnvError::Absent(name)),
        Err(error) => Err(SubnetEnvError::Unreadable(name, error)),
    }
}

/// What the lines say; of several of one key, the last.
#[derive(Default)]
struct Lines {
    networks_v4: Vec<IpNetwork>,
    networks_v6: Vec<IpNetwork>,
    subnet_v4: Option<IpNetwork>,
    subnet_v6: Option<IpNetwork>,
    mtu: Option<u32>,
    ip_masq: Option<bool>,
}

fn parse(file: &str, text: &str) -> Result<SubnetEnv, SubnetEnvError> {
    let mut said = Lines::default();
    for line in text.lines() {
        let wrong = |what| SubnetEnvError::Line { file: file.to_owned(), line: line.to_owned(), what };
        said.read(line).map_err(wrong)?;
    }
    said.complete().map_err(|missing| SubnetEnvError::Missing(file.to_owned(), missing))
}

impl Lines {
    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        let (key, value) = line.split_once('=').map_or((line, None), |(key, value)| (key, Some(value)));
        let value = || value.ok_or("KEY=VALUE");
        match key {
            "FLANNEL_NETWORK" => self.networks_v4 = networks(value()?)?,
            "FLANNEL_IPV6_NETWORK" => self.networks_v6 = networks(value()?)?,
            "FLANNEL_SUBNET" => self.subnet_v4 = Some(network(value()?)?),
            "FLANNEL_IPV6_SUBNET" => self.subnet_v6 = Some(network(value()?)?),
            "FLANNEL_MTU" => self.mtu = Some(number(value()?).ok_or("number of bytes")?),
            "FLANNEL_IPMASQ" => self.ip_masq = Some(value()? == "true"),
            _ => {}
        }
        Ok(())
    }

    fn complete(self) -> Result<SubnetEnv, String> {
        let networks = [self.networks_v4, self.networks_v6].concat();
        let subnets: Vec<_> = self.subnet_v4.into_iter().chain(self.subnet_v6).collect();
        match (self.mtu, self.ip_masq) {
            (Some(mtu), Some(ip_masq)) if !networks.is_empty() && !subnets.is_empty() => {
                Ok(SubnetEnv { networks, subnets, mtu, ip_masq })
            }
            (mtu, ip_masq) => {
                let missing = [
                    (networks.is_empty(), "FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
                    (subnets.is_empty(), "FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET"),
                    (mtu.is_none(), "FLANNEL_MTU"),
                    (ip_masq.is_none(), "FLANNEL_IPMASQ"),
                ];
                let missing = missing.into_iter().filter(|(missing, _)| *missing).map(|(_, names)| names);
                Err(missing.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// The networks of a list, each once.
fn networks(list: &str) -> Result<Vec<IpNetwork>, &'static str> {
    let mut networks = Vec::new();
    for text in list.split(',') {
        let network = network(text)?;
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

fn network(text: &str) -> Result<IpNetwork, &'static str> {
    cidr(text).map(masked).ok_or("network")
}

/// An address with its length, read as strictly as by Go's `net.ParseCIDR`.
pub fn cidr(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    IpNetwork::new(address, u8::try_from(number(length)?).ok()?).ok()
}

/// Digits, and nothing else: Rust reads a sign, too.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::{prop_assert, proptest};
    use rstest::rstest;

    use super::{SubnetEnv, cidr, parse};

    const V4: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n";
    const V6: &str = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\n";
    const REST: &str = "FLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

    fn env(networks: &[&str], subnets: &[&str]) -> SubnetEnv {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        SubnetEnv { networks: read(networks), subnets: read(subnets), mtu: 1472, ip_masq: true }
    }

    #[rstest]
    #[case::v4(&[V4, REST], env(&["10.1.0.0/16"], &["10.1.17.0/24"]))]
    #[case::v6(&[V6, REST], env(&["fc00::/48"], &["fc00::/64"]))]
    #[case::dual(&[V6, V4, REST], env(&["10.1.0.0/16", "fc00::/48"], &["10.1.17.0/24", "fc00::/64"]))]
    #[case::several(
        &["FLANNEL_NETWORK=10.1.0.0/16,192.168.0.0/16,10.1.2.3/16\r\nFLANNEL_SUBNET=10.1.17.1/24\r\n", REST],
        env(&["10.1.0.0/16", "192.168.0.0/16"], &["10.1.17.0/24"])
    )]
    #[case::the_last_of_two(&[V4, REST, "FLANNEL_SUBNET=10.1.18.1/24"], env(&["10.1.0.0/16"], &["10.1.18.0/24"]))]
    fn valid(#[case] text: &[&str], #[case] expected: SubnetEnv) {
        assert_eq!(parse("f", &text.concat()).unwrap(), expected);
    }

    #[rstest]
    #[case("true", true)]
    #[case("false", false)]
    #[case("1", false)]
    #[case("TRUE", false)]
    #[case("", false)]
    fn masquerading(#[case] value: &str, #[case] expected: bool) {
        let text = format!("{V4}FLANNEL_MTU=1\nFLANNEL_IPMASQ={value}");
        assert_eq!(parse("f", &text).unwrap().ip_masq, expected);
    }

    const ALL: &str = "f is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET, FLANNEL_IPV6_SUBNET, \
        FLANNEL_MTU, FLANNEL_IPMASQ";

    #[rstest]
    #[case::empty("", ALL)]
    #[case::foreign("foo=bar", ALL)]
    #[case::binary("\0\u{fffd}=\u{fffd}\n\n==\n", ALL)]
    #[case::part(
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1",
        "f is missing FLANNEL_IPMASQ"
    )]
    #[case::no_value("FLANNEL_MTU", "f: \"FLANNEL_MTU\" is no KEY=VALUE")]
    #[case::no_number("FLANNEL_MTU=+1", "f: \"FLANNEL_MTU=+1\" is no number of bytes")]
    #[case::large_number("FLANNEL_MTU=4294967296", "f: \"FLANNEL_MTU=4294967296\" is no number of bytes")]
    #[case::no_network("FLANNEL_NETWORK=10.1.0.0", "f: \"FLANNEL_NETWORK=10.1.0.0\" is no network")]
    #[case::half_a_list("FLANNEL_NETWORK=10.1.0.0/16,", "f: \"FLANNEL_NETWORK=10.1.0.0/16,\" is no network")]
    #[case::mask(
        "FLANNEL_SUBNET=10.1.17.1/255.255.255.0",
        "f: \"FLANNEL_SUBNET=10.1.17.1/255.255.255.0\" is no network"
    )]
    #[case::length("FLANNEL_IPV6_SUBNET=fc00::1/129", "f: \"FLANNEL_IPV6_SUBNET=fc00::1/129\" is no network")]
    fn junk(#[case] text: &str, #[case] msg: &str) {
        assert_eq!(parse("f", text).unwrap_err().to_string(), msg);
    }

    proptest! {
        #[test]
        fn whatever_it_says(lines in vec("(FLANNEL_(NETWORK|SUBNET|IPV6_SUBNET|MTU|IPMASQ))?=?[0-9a-f.:/,+-]{0,9}.?", 0..9)) {
            let said = parse("f", &lines.join("\n"));
            prop_assert!(said.is_err() || said.is_ok_and(|env| !env.subnets.is_empty()));
        }
    }

    #[rstest]
    #[case("10.1.2.3/24", true)]
    #[case("fc00::1/128", true)]
    #[case("10.1.2.3/", false)]
    #[case("010.1.2.3/24", false)]
    #[case("10.1.2.3/-1", false)]
    #[case("fe80::1%eth0/64", false)]
    fn addresses(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(cidr(text).is_some(), valid);
    }
}
