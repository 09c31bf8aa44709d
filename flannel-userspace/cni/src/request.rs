//! What the runtime asks for, in variables of the environment.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::error::{CniError, code};
use crate::net_conf::{NetConf, is_identifier};
use crate::version;

const COMMAND: &str = "CNI_COMMAND";
const CONTAINER_ID: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const IFNAME: &str = "CNI_IFNAME";
const PATH: &str = "CNI_PATH";
const NETNS_OVERRIDE: &str = "CNI_NETNS_OVERRIDE";

/// Longest name of an interface, in bytes (the kernel's IFNAMSIZ without the end of the string).
const LONGEST_INTERFACE: usize = 15;
/// Longer than any configuration; a list of 100,000 attachments has 12 MB.
const LONGEST_STDIN: u64 = 64 << 20;

/// An interface of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The container, or the sandbox of a pod.
    pub container: String,
    /// The interface's name in it.
    pub interface: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// An interface is to be made.
    Add(Attachment),
    /// It is to be removed.
    Del(Attachment),
    /// It is to be as it was made.
    Check(Attachment),
    /// Whether ADD would succeed.
    Status,
    /// What belongs to no container is to be removed.
    Gc,
}

/// A command and what it is carried out with.
#[derive(Debug)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// Where plugins are, as a list of folders.
    pub path: OsString,
    /// The container's network namespace, if it is said.
    netns: OsString,
    /// Whether that may be the plugin's own.
    any_netns: bool,
}

/// How the program was started.
#[derive(Debug)]
pub enum Call {
    /// By hand.
    Nothing,
    /// To say which versions it speaks.
    Version,
    /// To do something.
    Command(Request),
}

impl Call {
    /// Reads the variables.
    ///
    /// # Errors
    /// The command is unknown; a variable is missing or wrong.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CniError> {
        let variable = |name| variable(name).unwrap_or_default();
        let command = variable(COMMAND);
        let required: &[&str] = match command.to_str() {
            Some("") => return Ok(Self::Nothing),
            Some("VERSION") => return Ok(Self::Version),
            Some("ADD" | "CHECK") => &[CONTAINER_ID, NETNS, IFNAME, PATH],
            Some("DEL") => &[CONTAINER_ID, IFNAME, PATH],
            Some("STATUS" | "GC") => &[PATH],
            _ => return Err(environment(format!("unknown CNI_COMMAND: {}", command.display()))),
        };
        let missing: Vec<_> = required.iter().copied().filter(|name| variable(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(environment(format!("required env variables [{}] missing", missing.join(","))));
        }
        let attachment = || attachment(&variable(CONTAINER_ID), &variable(IFNAME));
        let command = match command.as_encoded_bytes() {
            b"ADD" => Command::Add(attachment()?),
            b"DEL" => Command::Del(attachment()?),
            b"CHECK" => Command::Check(attachment()?),
            b"STATUS" => Command::Status,
            _ => Command::Gc,
        };
        let any_netns = variable(NETNS_OVERRIDE)
            .to_str()
            .is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"));
        Ok(Self::Command(Request { command, path: variable(PATH), netns: variable(NETNS), any_netns }))
    }
}

impl Request {
    /// Whether it may be carried out for this network.
    ///
    /// The delegate is not run for the host's own namespace, not even to remove something: what it would find there by
    /// the name of the pod's interface is the host's.
    ///
    /// # Errors
    /// The configuration's version does not have this command, or the container is the host.
    pub fn check(&self, conf: &NetConf) -> Result<(), CniError> {
        let (command, since) = match self.command {
            Command::Add(_) => ("ADD", "0.1.0"),
            Command::Del(_) => ("DEL", "0.1.0"),
            Command::Check(_) => ("CHECK", "0.4.0"),
            Command::Status => ("STATUS", "1.1.0"),
            Command::Gc => ("GC", "1.1.0"),
        };
        version::check(conf.version(), command, since)?;
        if matches!(self.command, Command::Add(_) | Command::Del(_)) && !self.any_netns && self.is_own_netns()
        {
            let msg = "plugin's netns and netns from CNI_NETNS should not be the same";
            return Err(CniError::new(code::NETWORK_NAMESPACE, msg));
        }
        Ok(())
    }

    /// A namespace that is gone, as it may be with DEL, is not the own one.
    fn is_own_netns(&self) -> bool {
        let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        let theirs = identity(Path::new(&self.netns));
        theirs.is_some() && theirs == identity(Path::new("/proc/thread-self/ns/net"))
    }
}

fn attachment(container: &OsString, interface: &OsString) -> Result<Attachment, CniError> {
    let Some(id) = container.to_str().filter(|id| is_identifier(id)) else {
        let details = container.display().to_string();
        return Err(CniError::with_details(code::ENVIRONMENT, "invalid characters in containerID", details));
    };
    let interface = interface.to_str().ok_or_else(|| environment("interface name is not UTF-8"))?;
    check_interface(interface)?;
    Ok(Attachment { container: id.to_owned(), interface: interface.to_owned() })
}

/// What the kernel's `dev_valid_name` refuses.
fn check_interface(name: &str) -> Result<(), CniError> {
    if name.len() > LONGEST_INTERFACE {
        let details = format!("interface name should be less than {} characters", LONGEST_INTERFACE + 1);
        return Err(CniError::with_details(code::ENVIRONMENT, "interface name is too long", details));
    }
    if name == "." || name == ".." {
        return Err(environment("interface name is . or .."));
    }
    if name.contains(|character: char| matches!(character, '/' | ':') || character.is_whitespace()) {
        return Err(environment("interface name contains / or : or whitespace characters"));
    }
    Ok(())
}

fn environment(msg: impl Into<String>) -> CniError {
    CniError::new(code::ENVIRONMENT, msg)
}

/// All of the standard input.
///
/// # Errors
/// It cannot be read, or has no end.
pub fn stdin() -> Result<Vec<u8>, CniError> {
    let mut text = Vec::new();
    match io::stdin().lock().take(LONGEST_STDIN + 1).read_to_end(&mut text) {
        Ok(read) if read as u64 <= LONGEST_STDIN => Ok(text),
        Ok(_) => Err(CniError::new(code::IO, format!("more than {LONGEST_STDIN} bytes on stdin"))),
        Err(error) => Err(CniError::new(code::IO, format!("error reading from stdin: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Attachment, Call, Command};

    fn read(variables: &[(&str, &str)]) -> Result<Call, crate::error::CniError> {
        Call::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[rstest]
    #[case("ADD", &[], "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing")]
    #[case("CHECK", &[("CNI_PATH", "/p")], "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME] missing")]
    #[case("DEL", &[], "required env variables [CNI_CONTAINERID,CNI_IFNAME,CNI_PATH] missing")]
    #[case("GC", &[], "required env variables [CNI_PATH] missing")]
    #[case("STATUS", &[], "required env variables [CNI_PATH] missing")]
    #[case("add", &[], "unknown CNI_COMMAND: add")]
    #[case("DEL", &[("CNI_CONTAINERID", "../a"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/p")], "invalid characters in containerID")]
    #[case("DEL", &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "a-name-too-long0"), ("CNI_PATH", "/p")], "interface name is too long")]
    #[case("DEL", &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", ".."), ("CNI_PATH", "/p")], "interface name is . or ..")]
    #[case("DEL", &[("CNI_CONTAINERID", "a"), ("CNI_IFNAME", "a b"), ("CNI_PATH", "/p")], "interface name contains / or : or whitespace characters")]
    fn refused(#[case] command: &str, #[case] others: &[(&str, &str)], #[case] msg: &str) {
        let error = read(&[others, &[("CNI_COMMAND", command)]].concat()).unwrap_err();
        assert_eq!((error.code, error.msg.as_str()), (4, msg));
    }

    #[test]
    fn understood() {
        assert!(matches!(read(&[]), Ok(Call::Nothing)));
        assert!(matches!(read(&[("CNI_COMMAND", "VERSION")]), Ok(Call::Version)));
        let variables = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "a.b_c-1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/p"),
        ];
        let Ok(Call::Command(request)) = read(&variables) else { panic!("DEL needs no namespace") };
        let attachment = Attachment { container: "a.b_c-1".to_owned(), interface: "eth0".to_owned() };
        assert_eq!(request.command, Command::Del(attachment));
    }
}
