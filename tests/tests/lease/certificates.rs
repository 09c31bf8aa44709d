//! Certificates and keys of all kinds, at a real etcd: they are taken, or the error says what to do about them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flannel_registry::ConfigSource as _;
use flannel_registry::RegistryError;
use flannel_registry::etcd::{Etcd, Options};
use flannel_tests::process::Process;
use flannel_tests::wait;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    PKCS_ED25519, SanType, date_time_ymd,
};
use rstest::rstest;

/// How long etcd may take to start.
const START: Duration = Duration::from_secs(20);

/// What a server's certificate is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    SelfSigned,
    SelfSignedAuthority,
    Ed25519,
    Chain,
    WithoutChain,
    WithoutNames,
    OfAnotherName,
    OfAClient,
    Expired,
    Future,
}

/// The certificate that the server shows, its key, and the authority that a client is given, as PEM files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
}

fn parameters(kind: Kind) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = match kind {
        Kind::SelfSignedAuthority => IsCa::Ca(BasicConstraints::Unconstrained),
        _ => IsCa::ExplicitNoCa,
    };
    params.subject_alt_names = match kind {
        Kind::WithoutNames => Vec::new(),
        Kind::OfAnotherName => vec![SanType::IpAddress(Ipv4Addr::new(192, 0, 2, 1).into())],
        _ => vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())],
    };
    match kind {
        Kind::OfAClient => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
        Kind::Expired => params.not_after = date_time_ymd(2020, 1, 1),
        Kind::Future => params.not_before = date_time_ymd(4000, 1, 1),
        _ => {}
    }
    params
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn issue(kind: Kind, directory: &Path) -> Files {
    let key = match kind {
        Kind::Ed25519 => KeyPair::generate_for(&PKCS_ED25519).unwrap(),
        _ => KeyPair::generate().unwrap(),
    };
    let params = parameters(kind);
    let (certificate, authority) = match kind {
        Kind::SelfSigned | Kind::SelfSignedAuthority => {
            let own = params.self_signed(&key).unwrap().pem();
            (own.clone(), own)
        }
        Kind::Chain | Kind::WithoutChain => {
            let root = authority();
            let mut between = CertificateParams::default();
            between.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            between.distinguished_name.push(rcgen::DnType::CommonName, "between");
            let between = CertifiedIssuer::signed_by(between, KeyPair::generate().unwrap(), &root).unwrap();
            let mut shown = params.signed_by(&key, &between).unwrap().pem();
            if kind == Kind::Chain {
                shown.push_str(&between.pem());
            }
            (shown, root.pem())
        }
        _ => {
            let root = authority();
            (params.signed_by(&key, &root).unwrap().pem(), root.pem())
        }
    };
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    Files {
        certificate: write("server.pem", certificate),
        key: write("server-key.pem", key.serialize_pem()),
        authority: write("ca.pem", authority),
    }
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An etcd that shows them, and its URL.
fn serve(files: &Files, directory: &Path) -> (Process, String) {
    let (port, peer) = (free_port(), format!("http://127.0.0.1:{}", free_port()));
    let url = format!("https://127.0.0.1:{port}");
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(directory.join("data")).args(["--listen-client-urls", &url]);
    command.args(["--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
    command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")]);
    command.arg("--cert-file").arg(&files.certificate).arg("--key-file").arg(&files.key);
    let etcd = Process::spawn("etcd", command, &directory.join("log")).unwrap();
    let listens = || std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    wait::until_true("etcd to listen", START, listens).unwrap();
    (etcd, url)
}

#[rstest]
#[case::plain(Kind::Plain, None)]
#[case::own_authority(Kind::SelfSigned, None)]
#[case::ed25519(Kind::Ed25519, None)]
#[case::chain(Kind::Chain, None)]
#[case::authority_itself(Kind::SelfSignedAuthority, Some("basicConstraints=critical,CA:FALSE"))]
#[case::missing_intermediate(Kind::WithoutChain, Some("cat CERT INTERMEDIATE"))]
#[case::no_names(Kind::WithoutNames, Some("-addext subjectAltName=IP:ADDRESS"))]
#[case::other_name(Kind::OfAnotherName, Some("add this one to its subjectAltName"))]
#[case::of_a_client(Kind::OfAClient, Some("extendedKeyUsage=serverAuth"))]
#[case::expired(Kind::Expired, Some("renewed"))]
#[case::not_yet(Kind::Future, Some("set the clock"))]
#[tokio::test]
async fn a_certificate_of_etcd_is_taken_or_the_remedy_told(#[case] kind: Kind, #[case] remedy: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let files = issue(kind, directory.path());
    let (_etcd, url) = serve(&files, directory.path());
    let options = Options {
        endpoints: vec![url],
        prefix: "/coreos.com/network".to_owned(),
        ca_file: Some(files.authority),
        ..Options::default()
    };
    let error = Etcd::new(options).unwrap().config().await.unwrap_err();
    match remedy {
        // It is reached, and empty.
        None => assert!(matches!(error, RegistryError::ConfigMissing { .. }), "{kind:?}: {error}"),
        Some(remedy) => assert!(error.to_string().contains(remedy), "{kind:?}: {error}"),
    }
}
