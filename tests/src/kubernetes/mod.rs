//! Kubernetes: an API server with an etcd of its own, and nodes; either ones that nobody but the tests makes, or machines
//! with kubelet, containers and services.
//!
//! The programs are the real ones, which `cargo xtask setup --kubernetes` builds once.

mod agents;
mod client;
mod control;
mod image;
pub mod lab;
mod machine;
mod names;
mod node;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::claim::{self, Claim};
use crate::daemon::{Daemon, Settings};
use crate::etcd::{Etcd, PREFIX};
use crate::namespace::Namespace;
use crate::network::{ETCD_ADDRESS, Host, Network};
use crate::process::Process;
use crate::wait;
pub use agents::{Agents, PAUSE};
pub use client::ApiClient;
pub use control::{Controllers, POD_NETWORK};
pub use image::Image;
pub use lab::Lab;
pub use machine::Machine;
pub use names::Names;
pub use node::{ANNOTATIONS, annotation, annotations_of, lease_of, stock_annotations};

/// Where the programs are. `FLANNEL_KUBE_APISERVER` names another API server.
const PROGRAMS: &str = "/var/cache/flannel-ebpf/kubernetes";
/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(90);
const PORT: u16 = 6443;
/// Who may do everything, and the daemons, who may do what stock flannel's role allows.
const TOKENS: &str = "admintoken,admin,1,system:masters\nflanneltoken,flannel,2\n";

/// An API server on the near segment of a network.
#[derive(Debug)]
pub struct ApiServer {
    process: Option<Process>,
    namespace: Namespace,
    etcd: Etcd,
    directory: PathBuf,
    /// Whether pods get the tokens of their accounts, which a controller makes.
    has_tokens: bool,
    _claim: Claim,
}

/// Where a program of Kubernetes is.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os("FLANNEL_KUBE_APISERVER").filter(|_| name == "kube-apiserver");
    let path = named.map_or_else(|| Path::new(PROGRAMS).join(name), PathBuf::from);
    if !path.is_file() {
        bail!("there is no {}: build it with `cargo xtask setup --kubernetes`", path.display());
    }
    Ok(path)
}

/// A request that the API server refused.
#[derive(Debug)]
pub struct Refused(pub u16);

impl ApiServer {
    /// Starts it with its etcd, and lets daemons do what stock flannel's may.
    ///
    /// # Errors
    /// It was not built, or does not start.
    pub fn start(network: &Network) -> Result<Self> {
        Self::start_with(network, false)
    }

    /// Starts it for a cluster with [`Controllers`] and pods.
    ///
    /// # Errors
    /// It was not built, or does not start.
    pub fn start_for_pods(network: &Network) -> Result<Self> {
        Self::start_with(network, true)
    }

    fn start_with(network: &Network, has_tokens: bool) -> Result<Self> {
        let etcd = Etcd::on_network(network)?;
        let (directory, claim) = claim::directory(&format!("{}-kubernetes", network.number()))?;
        std::fs::write(directory.join("tokens.csv"), TOKENS)?;
        for user in ["admin", "flannel"] {
            std::fs::write(directory.join(format!("{user}.token")), format!("{user}token"))?;
        }
        let namespace = network.lan().clone();
        let key = rcgen::KeyPair::generate()?;
        std::fs::write(directory.join("service-accounts.key"), key.serialize_pem())?;
        std::fs::write(directory.join("service-accounts.pub"), key.public_key_pem())?;
        let mut server = Self { process: None, namespace, etcd, directory, has_tokens, _claim: claim };
        server.restart()?;
        for user in ["admin", "flannel"] {
            std::fs::write(server.kubeconfig(user), server.kubeconfig_text(user).to_string())?;
        }
        server.grant()?;
        Ok(server)
    }

    /// Starts it with the data it had.
    ///
    /// # Errors
    /// It runs, or does not start.
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("the API server runs already");
        }
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut command = self.namespace.command(program("kube-apiserver")?)?;
        command.args([
            &format!("--etcd-servers={}", self.etcd.url()),
            "--service-cluster-ip-range=10.96.0.0/16",
            &format!("--bind-address={ETCD_ADDRESS}"),
            &format!("--advertise-address={ETCD_ADDRESS}"),
            &format!("--secure-port={PORT}"),
            &format!("--cert-dir={}", path("certificates")),
            "--authorization-mode=RBAC",
            &format!("--token-auth-file={}", path("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc",
            &format!("--service-account-key-file={}", path("service-accounts.pub")),
            &format!("--service-account-signing-key-file={}", path("service-accounts.key")),
            "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP",
        ]);
        if !self.has_tokens {
            command.arg("--disable-admission-plugins=ServiceAccount");
        }
        self.process = Some(Process::spawn("kube-apiserver", command, &self.directory.join("log"))?);
        wait::until("the API server to answer", START, || {
            if let Err(ended) = self.process.as_mut().context("it was not started")?.check_running() {
                return Ok(Err(ended));
            }
            let certificate = self.directory.join("certificates/apiserver.crt");
            anyhow::ensure!(certificate.is_file(), "it has no certificate yet");
            std::fs::write(self.kubeconfig("admin"), self.kubeconfig_text("admin").to_string())?;
            self.request("GET", "/readyz", None).map(|_| Ok(()))
        })
        .with_context(|| self.process.as_ref().map(|process| process.log_tail(20)).unwrap_or_default())??;
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the API server does not run")?.kill()
    }

    /// Where it runs.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs `kubectl` as who may do everything, with `input`, and returns what it prints.
    ///
    /// # Errors
    /// It was not built, or fails; then with what it printed to standard error.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let file = self.directory.join("kubectl-input");
        std::fs::write(&file, input)?;
        let mut command = self.namespace.command(program("kubectl")?)?;
        command.arg(format!("--kubeconfig={}", self.kubeconfig("admin").display())).args(arguments);
        // What it has learned of the API server is kept there.
        command.env("HOME", &self.directory).stdin(std::fs::File::open(&file)?);
        let output = command.output()?;
        if !output.status.success() {
            bail!("kubectl {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The file by which a user reaches it.
    #[must_use]
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.kubeconfig"))
    }

    fn kubeconfig_text(&self, user: &str) -> Value {
        let certificate = self.directory.join("certificates/apiserver.crt");
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "tests", "cluster": {
                "server": format!("https://{ETCD_ADDRESS}:{PORT}"),
                "certificate-authority": certificate,
            } }],
            "users": [{ "name": user, "user": { "tokenFile": self.token_file(user) } }],
            "contexts": [{ "name": "tests", "context": { "cluster": "tests", "user": user } }],
            "current-context": "tests",
        })
    }

    /// The file with the token of a user.
    #[must_use]
    pub fn token_file(&self, user: &str) -> PathBuf {
        self.directory.join(format!("{user}.token"))
    }

    /// From its next start on it has another certificate, which signs itself, and knows the daemons by another token. Where
    /// daemons look for the token, the former one stays.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn rotate(&self, token: &str) -> Result<()> {
        std::fs::remove_dir_all(self.directory.join("certificates"))?;
        let tokens = TOKENS.replace("flanneltoken", token);
        Ok(std::fs::write(self.directory.join("tokens.csv"), tokens)?)
    }

    /// What stock flannel's ClusterRole allows.
    fn grant(&self) -> Result<()> {
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "verbs": verbs });
        let role = json!({
            "metadata": { "name": "flannel" },
            "rules": [
                rule("pods", &["get"]),
                rule("nodes", &["get", "list", "watch"]),
                rule("nodes/status", &["patch"]),
            ],
        });
        self.request("POST", &format!("{rbac}/clusterroles"), Some(("application/json", &role)))?;
        let binding = json!({
            "metadata": { "name": "flannel" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "flannel" },
            "subjects": [{ "kind": "User", "name": "flannel" }],
        });
        self.request("POST", &format!("{rbac}/clusterrolebindings"), Some(("application/json", &binding)))?;
        Ok(())
    }

    /// Asks it as who may do everything.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        self.client().request(method, path, body)
    }

    /// Who asks it like that, for threads of their own.
    #[must_use]
    pub fn client(&self) -> ApiClient {
        ApiClient { namespace: self.namespace.clone(), kubeconfig: self.kubeconfig("admin") }
    }

    /// Starts a daemon on a host, whose node has the host's name.
    ///
    /// # Errors
    /// There is no such program, or it cannot be started.
    pub fn start_daemon(&self, host: &Host, net_conf: &Value, flags: &[&str]) -> Result<Daemon> {
        let mut daemon = self.prepare_daemon(host, net_conf, flags)?;
        daemon.restart()?;
        Ok(daemon)
    }

    /// The same, which is still to be started.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn prepare_daemon(&self, host: &Host, net_conf: &Value, flags: &[&str]) -> Result<Daemon> {
        let file = self.directory.join(format!("{}-net-conf.json", host.name));
        std::fs::write(&file, net_conf.to_string())?;
        let own = [
            "--kube-subnet-mgr".to_owned(),
            format!("--kubeconfig-file={}", self.kubeconfig("flannel").display()),
            format!("--net-config-path={}", file.display()),
        ];
        let flags = own.into_iter().chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        let settings =
            Settings { endpoint: "http://192.0.2.1:1".to_owned(), prefix: PREFIX.to_owned(), flags };
        let variables = vec![("NODE_NAME".to_owned(), host.name.clone())];
        Daemon::prepare(host, "flanneld", settings, variables)
    }

    /// The file with the network's configuration of a daemon's host.
    #[must_use]
    pub fn net_conf(&self, host: &Host) -> PathBuf {
        self.directory.join(format!("{}-net-conf.json", host.name))
    }
}
