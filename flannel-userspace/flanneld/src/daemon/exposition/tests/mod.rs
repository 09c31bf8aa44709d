mod abuse;
mod coverage;
mod datapath;
mod documentation;
mod health;
mod metrics;
mod pins;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use flannel_control::Metrics;
use flannel_datapath::metrics::{DatapathSource, PerPeer};
use flannel_observe::{Endpoints, Exposition, Files, Server, Vitals};

/// A server that shows `vitals`, and of the datapath nothing.
fn server(vitals: &Vitals) -> Server {
    let endpoints = Endpoints { health: Some("127.0.0.1:0".parse().unwrap()), metrics: None };
    Server::start(endpoints.listen().unwrap(), vitals.clone(), exposition(vitals)).unwrap()
}

fn exposition(vitals: &Vitals) -> Exposition {
    let nowhere = DatapathSource { pin_dir: "/nowhere".into(), per_peer: PerPeer::WhileFew };
    super::exposition(vitals, &Metrics::default(), Some(&nowhere), no_files())
}

fn no_files() -> Files {
    Files { subnet: "/nowhere/subnet.env".into(), state: "/nowhere/state.json".into() }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Answer {
    fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8".to_owned(), body: body.to_owned() }
    }
}

fn get(server: &Server, path: &str) -> Answer {
    request(server, "GET", path, "")
}

/// `headers` each end in CRLF.
fn request(server: &Server, method: &str, path: &str, headers: &str) -> Answer {
    let bytes = send(
        server.addresses()[0],
        format!("{method} {path} HTTP/1.1\r\nHost: flanneld\r\n{headers}\r\n").as_bytes(),
    );
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no end of headers in {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap().parse().unwrap();
    let content_type = lines.find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    Answer { status, content_type: content_type.to_owned(), body: body.to_owned() }
}

/// Sends `request` and reads until the other side closes.
fn send(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    // The other side may close before the end.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return answer,
            Ok(read) => answer.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return answer,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
        }
    }
}

/// The value of a series, such as `flannel_peers{state="refused"}`.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap_or_else(|_| panic!("{series} has the value {line:?}")))
}
