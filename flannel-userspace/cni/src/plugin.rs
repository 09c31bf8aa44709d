//! Running another plugin.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, ErrorKind, Seek as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::{Map, Value};

use crate::delegate_conf::DelegateConf;
use crate::error::CniError;
use crate::json::Fields;
use crate::request::Attachment;
use crate::version;

/// So often a program is started that somebody is still writing, with a second between: as often as by libcni.
const BUSY_STARTS: u32 = 5;

/// A plugin with its configuration.
#[derive(Debug)]
pub struct Plugin<'a> {
    /// Where plugins are, as a list of folders.
    pub path: &'a OsStr,
    /// What it is told.
    pub conf: &'a DelegateConf,
}

impl Plugin<'_> {
    /// Has it make an interface, and returns what came of it.
    ///
    /// # Errors
    /// It did not, or the result is no JSON object.
    pub fn add(&self) -> Result<Value, CniError> {
        let stdout = self.run(&mut self.command("ADD")?)?;
        let mut result: Map<String, Value> = serde_json::from_slice(&stdout)
            .map_err(|error| CniError::internal(format!("{} gave no result: {error}", self.conf.plugin())))?;
        let unsaid =
            |result: &Map<_, _>| Fields::from(result).get("cniVersion").is_none_or(|said| said == "");
        if unsaid(&result) {
            let version = self.conf.version().unwrap_or(version::UNSAID);
            result.insert("cniVersion".to_owned(), version.into());
        }
        Ok(result.into())
    }

    /// Has it carry out another command, for the same attachment if it is for one.
    ///
    /// # Errors
    /// It did not.
    pub fn carry_out(&self, command: &str) -> Result<(), CniError> {
        self.run(&mut self.command(command)?).map(drop)
    }

    /// Has it remove an interface whose container is gone.
    ///
    /// # Errors
    /// It did not.
    pub fn remove(&self, stale: &Attachment) -> Result<(), CniError> {
        let mut command = self.command("DEL")?;
        command.env("CNI_CONTAINERID", &stale.container).env("CNI_IFNAME", &stale.interface);
        command.env_remove("CNI_NETNS").env_remove("CNI_ARGS");
        self.run(&mut command).map(drop)
    }

    fn command(&self, name: &str) -> Result<Command, CniError> {
        let mut command = Command::new(self.find()?);
        command.env("CNI_COMMAND", name);
        Ok(command)
    }

    fn find(&self) -> Result<PathBuf, CniError> {
        let plugin = self.conf.plugin();
        if plugin.is_empty() {
            return Err(CniError::internal("no plugin name provided"));
        }
        if plugin.contains(['/', '\0']) {
            return Err(CniError::internal(format!("invalid plugin name: {plugin}")));
        }
        // Without a name a folder would be the one that the runtime happens to be in.
        let folders = || env::split_paths(self.path).filter(|folder| !folder.as_os_str().is_empty());
        let found = folders().map(|folder| folder.join(plugin)).find(|path| path.is_file());
        found.ok_or_else(|| {
            let folders: Vec<_> = folders().map(|folder| folder.display().to_string()).collect();
            CniError::internal(format!("failed to find plugin {plugin:?} in path [{}]", folders.join(" ")))
        })
    }

    fn run(&self, command: &mut Command) -> Result<Vec<u8>, CniError> {
        let not_run =
            |error| CniError::internal(format!("cannot run plugin {:?}: {error}", self.conf.plugin()));
        let output = self.start(command).map_err(not_run)?;
        // Where the runtime looks for what plugins have to say beside the result.
        let _ = io::stderr().write_all(&output.stderr);
        if output.status.success() { Ok(output.stdout) } else { Err(said(&output)) }
    }

    fn start(&self, command: &mut Command) -> io::Result<Output> {
        for _ in 1..BUSY_STARTS {
            match command.stdin(self.stdin()?).output() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => sleep(Duration::from_secs(1)),
                ended => return ended,
            }
        }
        command.stdin(self.stdin()?).output()
    }

    /// A file and not a pipe: nothing need be written while the plugin runs, however much it is.
    fn stdin(&self) -> io::Result<Stdio> {
        let mut file = File::from(memfd_create(c"delegate", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(self.conf.text().as_bytes())?;
        file.rewind()?;
        Ok(file.into())
    }
}

/// What a plugin says of its failure, by its own code.
fn said(output: &Output) -> CniError {
    let Output { status, stdout, stderr } = output;
    if stdout.is_empty() && stderr.is_empty() {
        return CniError::internal(format!("netplugin failed with no error message: {status}"));
    }
    if stdout.is_empty() {
        return CniError::internal(format!("netplugin failed: {:?}", String::from_utf8_lossy(stderr)));
    }
    parse(stdout).unwrap_or_else(|error| {
        let stdout = String::from_utf8_lossy(stdout);
        let msg = format!("netplugin failed but error parsing its diagnostic message {stdout:?}: {error}");
        CniError::internal(msg)
    })
}

fn parse(error: &[u8]) -> Result<CniError, String> {
    let error: Fields = serde_json::from_slice(error).map_err(|error| error.to_string())?;
    let code = error.get("code").and_then(Value::as_u64).and_then(|code| u32::try_from(code).ok());
    let msg = error.text("msg")?.unwrap_or_default();
    let said = CniError::with_details(0, msg, error.text("details")?.unwrap_or_default());
    Ok(said.coded(code.filter(|code| *code > 0).unwrap_or(crate::error::code::INTERNAL)))
}
