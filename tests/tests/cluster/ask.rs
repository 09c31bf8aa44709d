//! Questions to agnhost's `netexec`, and the checks of what it answers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use flannel_tests::namespace::Namespace;
use flannel_tests::wait;

/// How long rules of a new service, and neighbours, may take.
const SOON: Duration = Duration::from_secs(20);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(3);

/// Asks by HTTP, once.
pub fn http(from: &Namespace, to: (Ipv4Addr, u16), path: &str) -> Result<String> {
    let url = format!("http://{}:{}{path}", to.0, to.1);
    from.run("curl", &format!("--silent --show-error --fail --max-time 3 {url}"))
}

/// Asks by UDP, once, from a socket of its own.
pub fn udp(from: &Namespace, to: (Ipv4Addr, u16), question: &str) -> Result<String> {
    from.within(|| udp_by(&UdpSocket::bind("0.0.0.0:0")?, to, question))
}

/// Asks by UDP, once, from this socket.
pub fn udp_by(socket: &UdpSocket, to: (Ipv4Addr, u16), question: &str) -> Result<String> {
    socket.set_read_timeout(Some(wait::stretched(ANSWER)))?;
    socket.send_to(question.as_bytes(), to)?;
    let mut answer = vec![0; 65_536];
    let (length, _) = socket.recv_from(&mut answer).context("no answer")?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// The address that a server says it was asked from, by HTTP.
pub fn source(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<Ipv4Addr> {
    address(&http(from, to, "/clientip")?)
}

/// The same by UDP.
pub fn udp_source(from: &Namespace, to: (Ipv4Addr, u16)) -> Result<Ipv4Addr> {
    address(&udp(from, to, "clientip")?)
}

fn address(text: &str) -> Result<Ipv4Addr> {
    match text.trim().parse().with_context(|| format!("no address: {text:?}"))? {
        SocketAddr::V4(address) => Ok(*address.ip()),
        SocketAddr::V6(address) => address.ip().to_ipv4().context("an address of IPv6"),
    }
}

/// What was checked, and what was not as it must be: all of it is told at the end.
#[derive(Default)]
pub struct Checks {
    passed: usize,
    failures: Vec<String>,
}

impl Checks {
    /// Notes an outcome.
    pub fn note(&mut self, what: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failures.push(format!("{what}: {error:#}")),
        }
    }

    /// Waits until an answer is as expected.
    pub fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        expected: &T,
        mut ask: impl FnMut() -> Result<T>,
    ) {
        let outcome = wait::until(what, SOON, || {
            let answer = ask()?;
            ensure!(answer == *expected, "{answer:?} instead of {expected:?}");
            Ok(())
        });
        self.note(what, outcome);
    }

    /// Fails unless all was as it must be.
    pub fn end(self, tell: impl FnOnce() -> String) {
        eprintln!("{} checks passed, {} failed", self.passed, self.failures.len());
        assert!(self.failures.is_empty(), "{}\n{}", self.failures.join("\n"), tell());
    }
}
