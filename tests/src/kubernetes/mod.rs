//! A Kubernetes API server with an etcd of its own, and nodes that nobody but the tests makes.
//!
//! The program is the real `kube-apiserver`, which `cargo xtask setup --kubernetes` builds once.

mod node;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::claim::{self, Claim};
use crate::daemon::{Daemon, Settings};
use crate::etcd::{Etcd, PREFIX};
use crate::namespace::Namespace;
use crate::network::{ETCD_ADDRESS, Host, Network};
use crate::process::Process;
use crate::wait;
pub use node::{ANNOTATIONS, annotation, annotations_of, lease_of, stock_annotations};

/// Where the program is, unless `FLANNEL_KUBE_APISERVER` names another one.
pub const PROGRAM: &str = "/var/cache/flannel-ebpf/kubernetes/kube-apiserver";
/// How long it may take to answer after its start.
const START: Duration = Duration::from_secs(90);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(20);
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
    _claim: Claim,
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
        let mut server = Self { process: None, namespace, etcd, directory, _claim: claim };
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
        let program = std::env::var("FLANNEL_KUBE_APISERVER").unwrap_or_else(|_| PROGRAM.to_owned());
        if !std::path::Path::new(&program).is_file() {
            bail!("there is no {program}: build it with `cargo xtask setup --kubernetes`");
        }
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut command = self.namespace.command(&program)?;
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
            "--disable-admission-plugins=ServiceAccount",
        ]);
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
        let mut request = Request::builder().method(method).uri(path);
        if let Some((kind, _)) = body {
            request = request.header("Content-Type", kind);
        }
        let request =
            request.body(body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default())?;
        self.with_client(move |client| async move {
            let text = tokio::time::timeout(REQUEST, client.request_text(request)).await??;
            Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// Has `work` done with a client that may do everything.
    ///
    /// # Errors
    /// There can be none, or the work fails.
    pub fn with_client<T, F>(&self, work: impl FnOnce(Client) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig("admin"))?;
        self.namespace.within(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                work(Client::try_from(config)?).await
            })
        })
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
