//! The rest of the control plane: who assigns subnets, makes the pods of a DaemonSet, and chooses nodes for pods.

use anyhow::Result;

use super::{ApiServer, program};
use crate::process::Process;

/// What subnets of nodes are parts of.
pub const POD_NETWORK: &str = "10.244.0.0/16";

/// kube-controller-manager and kube-scheduler.
#[derive(Debug)]
pub struct Controllers {
    _manager: Process,
    _scheduler: Process,
}

impl Controllers {
    /// Starts them beside an API server.
    ///
    /// # Errors
    /// One is missing, or cannot be started.
    pub fn start(api: &ApiServer) -> Result<Self> {
        let directory = api.directory();
        let kubeconfig = format!("--kubeconfig={}", api.kubeconfig("admin").display());
        let file = |name: &str| directory.join(name).display().to_string();
        let spawn = |name: &str, arguments: &[String]| {
            let mut command = api.namespace().command(program(name)?)?;
            command.args(arguments).args([&kubeconfig, "--leader-elect=false", "--port=0"]);
            Process::spawn(name, command, &directory.join(format!("{name}.log")))
        };
        let manager = [
            "--allocate-node-cidrs".to_owned(),
            format!("--cluster-cidr={POD_NETWORK}"),
            "--node-cidr-mask-size=24".to_owned(),
            format!("--service-account-private-key-file={}", file("service-accounts.key")),
            format!("--root-ca-file={}", file("certificates/apiserver.crt")),
            format!("--cert-dir={}", file("certificates-of-manager")),
        ];
        let scheduler = [format!("--cert-dir={}", file("certificates-of-scheduler"))];
        Ok(Self {
            _manager: spawn("kube-controller-manager", &manager)?,
            _scheduler: spawn("kube-scheduler", &scheduler)?,
        })
    }
}
