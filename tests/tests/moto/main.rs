//! The daemon against moto, which is not ours: it checks signatures and policies as Amazon does.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::path::Path;
use std::time::Duration;

use flannel_tests::claim::{self, Claim};
use flannel_tests::cloud::aws::Aws;
use flannel_tests::cluster::Turn;
use flannel_tests::daemon::{Daemon, Settings};
use flannel_tests::etcd::{Etcd, PREFIX};
use flannel_tests::network::{Host, HostOptions, Network, Place};
use flannel_tests::process::Process;
use flannel_tests::wait;
use serde_json::Value;

/// Where `cargo xtask test --suite moto` installs it.
const PLACE: &str = "/var/cache/flannel-ebpf/moto-5.2.5/bin";
/// The router has this address.
const ADDRESS: &str = "192.168.77.254";
const SOON: Duration = Duration::from_secs(60);

/// moto, and an instance whose metadata name what is in it.
struct Lab {
    _moto: Process,
    made: Value,
    aws: Aws,
    etcd: Etcd,
    network: Network,
    directory: std::path::PathBuf,
    _claim: Claim,
    _turn: Turn,
}

impl Lab {
    fn new() -> Self {
        let turn = Turn::take();
        let network = Network::new().unwrap();
        let etcd = Etcd::on_network(&network).unwrap();
        let config = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"aws-vpc"}}"#;
        etcd.put(&format!("{PREFIX}/config"), config).unwrap();
        let aws = Aws::start(&network).unwrap();
        let (directory, claim) = claim::directory(&format!("{}-moto", network.number())).unwrap();
        let router = network.router();
        let mut server = router.command(Path::new(PLACE).join("moto_server")).unwrap();
        server.args(["-H", ADDRESS, "-p", "5000"]);
        let moto = Process::spawn("moto", server, &directory.join("log")).unwrap();
        let made = wait::until("moto to be set up", SOON, || {
            let made = python(&network, "cloud.py", include_str!("cloud.py"), &directory, &[])?;
            Ok(serde_json::from_str(&made)?)
        })
        .unwrap();
        Self { _moto: moto, made, aws, etcd, network, directory, _claim: claim, _turn: turn }
    }

    /// A daemon with these variables besides those that lead to moto.
    fn start(&self, variables: &[(&str, &str)]) -> Daemon {
        let host = Host::new(&self.network, Place::Near, 1, HostOptions::default()).unwrap();
        self.aws.launch(&host).unwrap();
        {
            let text = |key: &str| self.made[key].as_str().unwrap().to_owned();
            let mut state = self.aws.state();
            let instance = state.instances.get_mut(&host.address).unwrap();
            (instance.interface, instance.subnet, instance.vpc) =
                (text("interface"), text("subnet"), text("vpc"));
        }
        let settings = Settings {
            endpoint: self.etcd.url(),
            prefix: PREFIX.to_owned(),
            flags: vec!["--cloud-resync=1".to_owned()],
        };
        let endpoint = ("AWS_ENDPOINT_URL".to_owned(), endpoint());
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Daemon::start_in(&host, "flanneld", settings, variables.chain([endpoint]).collect()).unwrap()
    }

    fn keys(&self, user: &str) -> [(&'static str, String); 2] {
        let key = |place: usize| self.made[user][place].as_str().unwrap().to_owned();
        [("AWS_ACCESS_KEY_ID", key(0)), ("AWS_SECRET_ACCESS_KEY", key(1))]
    }

    fn start_as(&self, user: &str) -> Daemon {
        let keys = self.keys(user);
        self.start(&keys.each_ref().map(|(name, value)| (*name, value.as_str())))
    }

    /// Where the table leads for the daemon's subnet, as Amazon's SDK reads it.
    fn target(&self, daemon: &mut Daemon) -> Option<String> {
        let subnet = daemon.wait_ready().unwrap().subnet.to_string();
        wait::until("every condition to be met", SOON, || daemon.ctl_json("status")).unwrap();
        let [(_, key), (_, secret)] = self.keys("allowed");
        let arguments = [self.made["table"].as_str().unwrap(), &key, &secret];
        let routes =
            python(&self.network, "routes.py", include_str!("routes.py"), &self.directory, &arguments)
                .unwrap();
        let routes: Value = serde_json::from_str(&routes).unwrap();
        routes[&subnet].as_str().map(str::to_owned)
    }
}

fn endpoint() -> String {
    format!("http://{ADDRESS}:5000")
}

fn python(
    network: &Network,
    name: &str,
    text: &str,
    directory: &Path,
    arguments: &[&str],
) -> anyhow::Result<String> {
    let file = directory.join(name);
    std::fs::write(&file, text)?;
    let program = format!("{PLACE}/python3");
    let arguments = format!("{} {} {}", file.display(), endpoint(), arguments.join(" "));
    network.router().run(&program, &arguments)
}

fn wait_log(daemon: &Daemon, text: &str) {
    daemon.wait_log(text, SOON).unwrap();
}

#[test]
fn signed_calls_of_the_least_policy_are_taken() {
    let lab = Lab::new();
    let mut daemon = lab.start_as("allowed");
    assert_eq!(lab.target(&mut daemon).as_deref(), lab.made["interface"].as_str());
}

#[test]
fn a_web_identity_gets_keys_that_are_good() {
    let lab = Lab::new();
    let token = lab.directory.join("token");
    std::fs::write(&token, "a.b.c\n").unwrap();
    let role = lab.made["role"].as_str().unwrap();
    let mut daemon =
        lab.start(&[("AWS_ROLE_ARN", role), ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap())]);
    assert_eq!(lab.target(&mut daemon).as_deref(), lab.made["interface"].as_str());
}

#[test]
fn a_shared_file_gives_keys() {
    let lab = Lab::new();
    let file = lab.directory.join("credentials");
    let [(_, key), (_, secret)] = lab.keys("allowed");
    std::fs::write(&file, format!("[nodes]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"))
        .unwrap();
    let mut daemon =
        lab.start(&[("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()), ("AWS_PROFILE", "nodes")]);
    assert_eq!(lab.target(&mut daemon).as_deref(), lab.made["interface"].as_str());
}

#[test]
fn another_secret_is_refused() {
    let lab = Lab::new();
    let [(_, key), _] = lab.keys("allowed");
    let daemon = lab.start(&[("AWS_ACCESS_KEY_ID", &key), ("AWS_SECRET_ACCESS_KEY", "canary")]);
    wait_log(
        &daemon,
        "(keys from the environment; they must be good, and allow ec2:DescribeRouteTables on *)",
    );
    assert!(!std::fs::read_to_string(daemon.log()).unwrap().contains("canary"));
}

#[test]
fn what_the_policy_lacks_is_named() {
    let lab = Lab::new();
    let daemon = lab.start_as("reader");
    wait_log(&daemon, "allow ec2:ModifyNetworkInterfaceAttribute on arn:aws:ec2:*:*:network-interface/eni-");
    drop(daemon);
}
