//! Names of services: as much of a DNS server as tests of networks ask for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::ApiServer;

/// Below which names are.
const DOMAIN: &str = ".svc.cluster.local";
const PORT: u16 = 53;
/// Type and class of a question for addresses of IPv4 (RFC 1035).
const ADDRESS: [u8; 4] = [0, 1, 0, 1];
const HEADER: usize = 12;

/// Answers questions for `<service>.<namespace>.svc.cluster.local` until it is dropped, at the API server's address.
#[derive(Debug)]
pub struct Names {
    stop: Arc<AtomicBool>,
    answering: Option<JoinHandle<()>>,
}

/// What is known of a name.
enum Known {
    /// An address of the service.
    Address(Ipv4Addr),
    /// It exists, and has no address.
    Nothing,
    /// Nobody has it.
    Nobody,
}

impl Names {
    /// Starts to answer.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(api: &ApiServer) -> Result<Self> {
        let socket = api.namespace().within(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (stop, client) = (Arc::new(AtomicBool::new(false)), api.client());
        let stopped = stop.clone();
        let answering = thread::spawn(move || {
            let mut question = [0; 1500];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                drop(answer_to(&client, question.get(..length).unwrap_or_default(), &socket, from));
            }
        });
        Ok(Self { stop, answering: Some(answering) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.answering.take().map(JoinHandle::join));
    }
}

fn answer_to(client: &super::ApiClient, message: &[u8], socket: &UdpSocket, from: SocketAddr) -> Result<()> {
    let (name, kind, end) = question_of(message).context("no question")?;
    let known = match name.strip_suffix(DOMAIN).and_then(|name| name.split_once('.')) {
        Some((service, space)) => known_of(client, service, space),
        None => Known::Nobody,
    };
    let (code, answers) = match &known {
        Known::Nobody => (3, 0),
        Known::Address(_) if kind == ADDRESS => (0, 1),
        Known::Address(_) | Known::Nothing => (0, 0),
    };
    let mut answer = message.get(..2).context("too short")?.to_vec();
    // An answer with authority, by a server that asks others; so many questions and answers.
    answer.extend([0x85, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(message.get(HEADER..end).context("too short")?);
    if let (Known::Address(address), 1) = (known, answers) {
        // The name is that at byte 12; it holds for a second.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    socket.send_to(&answer, from)?;
    Ok(())
}

/// The name that is asked for, type and class, and where the question ends.
fn question_of(message: &[u8]) -> Option<(String, [u8; 4], usize)> {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = message.get(at..at + 4)?.try_into().ok()?;
    Some((labels.join("."), kind, at + 4))
}

fn known_of(client: &super::ApiClient, service: &str, space: &str) -> Known {
    let path = format!("/api/v1/namespaces/{space}/services/{service}");
    let Ok(service) = client.request("GET", &path, None) else { return Known::Nobody };
    match service["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()) {
        Some(IpAddr::V4(address)) => Known::Address(address),
        _ => Known::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::{ADDRESS, question_of};

    #[test]
    fn name_and_type_of_a_question_are_read() {
        let mut message = vec![0; 12];
        message.extend(b"\x03Web\x07default\x03svc\x00\x00\x01\x00\x01rest");
        assert_eq!(question_of(&message), Some(("web.default.svc".to_owned(), ADDRESS, 33)));
        assert_eq!(question_of(&message[..20]), None);
    }
}
