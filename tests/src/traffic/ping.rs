//! Echo requests, by the `ping` everybody has.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::Endpoint;
use crate::wait;

/// Bytes of the IPv4 and ICMP headers.
const HEADERS: u32 = 28;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    /// Number of requests.
    pub count: u32,
    /// Length of the IP packet, in bytes.
    pub size: u32,
    /// Whether routers must not cut it.
    pub dont_fragment: bool,
    /// Time between requests.
    pub interval: Duration,
    /// How long to wait for the last answer, before it is [stretched](wait::stretched).
    pub patience: Duration,
}

impl Default for Ping {
    fn default() -> Self {
        Self {
            count: 1,
            size: 84,
            dont_fragment: false,
            interval: Duration::from_millis(50),
            patience: Duration::from_secs(1),
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pong {
    /// Requests sent.
    pub sent: u32,
    /// Answers received.
    pub received: u32,
    /// The TTL of the first answer.
    pub ttl: Option<u8>,
    /// Average time to an answer, in milliseconds.
    pub average_ms: Option<f64>,
    /// Errors, as `ping` words them.
    pub errors: Vec<String>,
    /// The MTU that a router, or the own kernel, has reported.
    pub mtu: Option<u32>,
}

impl Pong {
    /// Fails unless every request was answered.
    ///
    /// # Errors
    /// Not every request was answered.
    pub fn check(&self) -> Result<()> {
        if self.sent == 0 || self.received < self.sent {
            bail!("{} of {} pings answered {}", self.received, self.sent, self.errors.join("; "));
        }
        Ok(())
    }
}

impl Ping {
    /// Pings `to` from `from`, by the source address the sender's routes choose.
    ///
    /// # Errors
    /// `ping` cannot be run. That nothing answers is no error.
    pub fn send(&self, from: &Endpoint, to: &Endpoint) -> Result<Pong> {
        self.send_to(from, to.address).with_context(|| format!("to {}", to.name))
    }

    /// Pings an address from `from`, of whichever machine it is.
    ///
    /// # Errors
    /// `ping` cannot be run. That nothing answers is no error.
    pub fn send_to(&self, from: &Endpoint, to: Ipv4Addr) -> Result<Pong> {
        let mut command = from.namespace.command("ping")?;
        command.env("LC_ALL", "C").arg("-n").args(["-c", &self.count.to_string()]);
        command.args(["-s", &self.size.saturating_sub(HEADERS).to_string()]);
        command.args(["-i", &self.interval.as_secs_f64().to_string()]);
        command.args(["-W", &wait::stretched(self.patience).as_secs_f64().to_string()]);
        command.args(["-M", if self.dont_fragment { "do" } else { "dont" }]);
        let output = command.arg(to.to_string()).output().context("cannot run ping")?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let pong = parse(&said);
        if pong.sent == 0 && pong.errors.is_empty() {
            bail!("ping {} -> {to}: {said}", from.name);
        }
        Ok(pong)
    }
}

fn parse(said: &str) -> Pong {
    let mut pong = Pong::default();
    for line in said.lines() {
        if let Some((sent, rest)) = line.split_once(" packets transmitted, ") {
            pong.sent = sent.trim().parse().unwrap_or_default();
            pong.received = rest.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
        } else if let Some(times) = line.strip_prefix("rtt min/avg/max/mdev = ") {
            pong.average_ms = times.split('/').nth(1).and_then(|average| average.parse().ok());
        } else if line.contains(" bytes from ") {
            pong.ttl = pong.ttl.or(number_after(line, "ttl=").and_then(|ttl| u8::try_from(ttl).ok()));
        } else if line.starts_with("From ") || line.starts_with("ping: ") {
            // "Frag needed and DF set (mtu = 1450)", "message too long, mtu=1450", "Message too long, mtu: 1450".
            let mtu = ["mtu = ", "mtu=", "mtu: "].iter().find_map(|label| number_after(line, label));
            pong.mtu = pong.mtu.or(mtu);
            pong.errors.push(line.to_owned());
        }
    }
    pong
}

fn number_after(line: &str, label: &str) -> Option<u32> {
    let (_, rest) = line.split_once(label)?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Pong, parse};

    #[test]
    fn answers() {
        let pong = parse(
            "PING 10.5.7.2 (10.5.7.2) from 10.5.1.2 : 56(84) bytes of data.\n\
             64 bytes from 10.5.7.2: icmp_seq=1 ttl=62 time=0.058 ms\n\n\
             --- 10.5.7.2 ping statistics ---\n\
             2 packets transmitted, 1 received, 50% packet loss, time 0ms\n\
             rtt min/avg/max/mdev = 0.058/0.061/0.058/0.000 ms\n",
        );
        assert_eq!((pong.sent, pong.received, pong.ttl, pong.average_ms), (2, 1, Some(62), Some(0.061)));
        assert!(pong.check().is_err());
    }

    #[test]
    fn packet_too_large() {
        let from_router = "From 10.5.1.1 icmp_seq=1 Frag needed and DF set (mtu = 1450)\n\
                           1 packets transmitted, 0 received, +1 errors, 100% packet loss, time 0ms";
        let pong = parse(from_router);
        assert_eq!((pong.mtu, pong.received, pong.errors.len()), (Some(1450), 0, 1));
        assert_eq!(parse("ping: local error: message too long, mtu=1450").mtu, Some(1450));
        assert_eq!(parse("").check().is_err(), Pong::default().check().is_err());
    }
}
