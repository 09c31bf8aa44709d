//! A runtime, and a delegate that tells what it was told.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Notes each call, keeps what it was given, and then does what the file `<command>.does` says, if there is one.
const DELEGATE: &str = r#"#!/bin/sh
folder=$(dirname "$0")
cat > "$folder/$CNI_COMMAND.given"
echo "$CNI_COMMAND ${CNI_CONTAINERID--} ${CNI_IFNAME--} ${CNI_NETNS-unset}" >> "$folder/calls"
if [ -f "$folder/$CNI_COMMAND.does" ]; then . "$folder/$CNI_COMMAND.does"; fi
if [ "$CNI_COMMAND" = ADD ]; then echo '{"ips": [{"address": "10.1.17.2/24"}], "dns": {}}'; fi
"#;

pub const V4: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n";

/// Where the container's network namespace would be; the script does not look.
pub const NETNS: &str = "/run/netns/no-such-namespace";

/// A host with a subnet file, a folder of data and a delegate named `bridge`.
pub struct Host {
    folder: TempDir,
}

/// What the plugin said.
#[derive(Debug)]
pub struct Said {
    pub success: bool,
    pub stdout: Value,
    pub stderr: String,
}

impl Said {
    pub fn new(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let stdout = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        Self {
            success: output.status.success(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into(),
        }
    }

    /// The code and text of the error.
    #[track_caller]
    pub fn error(&self) -> (u64, &str) {
        assert!(!self.success, "{self:?}");
        (self.stdout["code"].as_u64().unwrap(), self.stdout["msg"].as_str().unwrap())
    }

    /// What was printed by a success.
    #[track_caller]
    pub fn result(&self) -> &Value {
        assert!(self.success, "{self:?}");
        &self.stdout
    }
}

impl Host {
    pub fn new() -> Self {
        let host = Self { folder: TempDir::new().unwrap() };
        fs::create_dir(host.path("bin")).unwrap();
        host.install("bridge");
        host.write_subnet_file(V4);
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts the script into the folder of plugins by that name.
    pub fn install(&self, name: &str) {
        let path = self.path("bin").join(name);
        // Not by rename: whoever starts it while another thread forks would find it busy.
        fs::write(&path, DELEGATE).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn write_subnet_file(&self, text: &str) {
        fs::write(self.path("subnet.env"), text).unwrap();
    }

    /// What the delegate does from now on when it is given this command.
    pub fn script(&self, command: &str, does: &str) {
        fs::write(self.path(&format!("bin/{command}.does")), does).unwrap();
    }

    pub fn unscript(&self, command: &str) {
        fs::remove_file(self.path(&format!("bin/{command}.does"))).unwrap();
    }

    /// A network's configuration on this host.
    pub fn conf(&self, name: &str) -> Value {
        json!({
            "name": name, "type": "flannel",
            "subnetFile": self.path("subnet.env"), "dataDir": self.path("data"),
        })
    }

    /// The same in a version of the protocol.
    pub fn conf_of(&self, name: &str, version: &str) -> Value {
        let mut conf = self.conf(name);
        conf["cniVersion"] = version.into();
        conf
    }

    /// The program with everything a runtime says for this command.
    pub fn command(&self, command: &str, container: &str, interface: &str) -> Command {
        self.said_to(Command::new(program()), command, container, interface)
    }

    pub fn said_to(&self, mut program: Command, command: &str, container: &str, interface: &str) -> Command {
        program
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", format!("/no/such/folder:{}", self.path("bin").display()));
        if !container.is_empty() {
            program.env("CNI_CONTAINERID", container).env("CNI_IFNAME", interface).env("CNI_NETNS", NETNS);
        }
        program
    }

    pub fn run(&self, command: &str, container: &str, interface: &str, conf: &Value) -> Said {
        run(self.command(command, container, interface), &conf.to_string())
    }

    /// The calls of the delegate so far.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("bin/calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// What the delegate was given by the last call of this command.
    pub fn given(&self, command: &str) -> Value {
        read(&self.path(&format!("bin/{command}.given")))
    }

    /// The names of the files that are kept.
    pub fn kept(&self) -> Vec<String> {
        let Ok(folder) = fs::read_dir(self.path("data")) else { return Vec::new() };
        let mut names: Vec<_> =
            folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Keeps a file as stock flannel does.
    pub fn keep(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path("data")).unwrap();
        fs::write(self.path("data").join(name), text).unwrap();
    }
}

pub fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_flannel"))
}

pub fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub fn start(mut command: Command, stdin: &str) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    // The program may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child
}

pub fn run(command: Command, stdin: &str) -> Said {
    Said::new(&start(command, stdin).wait_with_output().unwrap())
}
