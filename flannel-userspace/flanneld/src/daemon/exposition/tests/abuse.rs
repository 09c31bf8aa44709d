use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use flannel_observe::{Server, Vitals};
use proptest::prelude::{any, prop_assert_eq, proptest};
use proptest::test_runner::Config;
use rstest::rstest;

use super::{get, send, server};

fn assert_still_answers(server: &Server) {
    assert_eq!(get(server, "/healthz").body, "flanneld is running");
}

#[rstest]
#[case::no_http(b"flanneld?\r\n\r\n".as_slice())]
#[case::old_http(b"GET /healthz\r\n\r\n")]
#[case::other_version(b"GET /healthz HTTP/9.9\r\n\r\n")]
#[case::http2(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
#[case::tls(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00\r\n\r\n")]
#[case::zeros(&[0; 100])]
#[case::bytes_in_the_path(b"GET /\xff\xfe HTTP/1.1\r\n\r\n")]
#[case::header_without_colon(b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n")]
#[case::length_that_is_none(b"GET /healthz HTTP/1.1\r\nContent-Length: x\r\n\r\n")]
fn garbage_is_refused(#[case] request: &[u8]) {
    let server = server(&Vitals::default());
    let answer = String::from_utf8_lossy(&send(server.addresses()[0], request)).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_still_answers(&server);
}

#[rstest]
#[case::headers_without_end(format!("GET /healthz HTTP/1.1\r\nX: {}", "x".repeat(1 << 20)))]
#[case::many_headers(format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(1000)))]
#[case::long_path(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)))]
fn too_much_is_refused(#[case] request: String) {
    let server = server(&Vitals::default());
    let answer = String::from_utf8_lossy(&send(server.addresses()[0], request.as_bytes())).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert_still_answers(&server);
}

#[test]
fn a_body_is_not_waited_for() {
    let server = server(&Vitals::default());
    let started = Instant::now();
    let request = b"GET /healthz HTTP/1.1\r\nHost: flanneld\r\nContent-Length: 4000000000\r\n\r\nx";
    let answer = String::from_utf8_lossy(&send(server.addresses()[0], request)).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn one_request_a_connection() {
    let server = server(&Vitals::default());
    let request = "GET /healthz HTTP/1.1\r\nHost: flanneld\r\n\r\n".repeat(3);
    let answer = String::from_utf8_lossy(&send(server.addresses()[0], request.as_bytes())).into_owned();
    assert_eq!(answer.matches("flanneld is running").count(), 1, "{answer}");
}

#[test]
fn who_says_nothing_loses_the_place() {
    let server = server(&Vitals::default());
    // More than the server accepts at a time.
    let mut silent: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(server.addresses()[0]).unwrap()).collect();
    for stream in &mut silent[..50] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost").unwrap();
    }
    let started = Instant::now();
    assert_still_answers(&server);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn no_bytes_make_it_fall() {
    let server = server(&Vitals::default());
    proptest!(Config::with_cases(200), |(path in any::<Vec<u8>>(), header in any::<Vec<u8>>())| {
        let request = [b"GET /readyz?", path.as_slice(), b" HTTP/1.1\r\nAccept: ", &header, b"\r\n\r\n\r\n"];
        send(server.addresses()[0], &request.concat());
        prop_assert_eq!(get(&server, "/healthz").status, 200);
    });
}
