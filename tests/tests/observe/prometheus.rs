//! Prometheus on a host, and its API.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use flannel_tests::claim::{self, Claim};
use flannel_tests::network::Host;
use flannel_tests::process::Process;
use flannel_tests::wait;
use serde_json::Value;

/// Where it answers, on its host's loopback interface.
const ADDRESS: &str = "127.0.0.1:9090";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A folder of what is shipped.
pub(crate) fn packaging(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(folder)
}

/// A running Prometheus that scrapes one target each second and evaluates the shipped alerts.
pub(crate) struct Prometheus {
    _process: Process,
    host: Host,
    _directory: Claim,
}

impl Prometheus {
    pub(crate) fn start(host: &Host, target: &str) -> Result<Self> {
        let (directory, claim) = claim::directory(&format!("{}-prometheus", host.label()))?;
        let rules = packaging("prometheus/flannel-ebpf.rules.yml").canonicalize()?;
        let config = directory.join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
                 rule_files: [{}]\n\
                 scrape_configs: [{{job_name: flanneld, static_configs: [{{targets: ['{target}']}}]}}]\n",
                rules.display()
            ),
        )?;
        let mut command = host.namespace.command("prometheus")?;
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={ADDRESS}")).arg("--log.level=warn");
        let process = Process::spawn("prometheus", command, &directory.join("log"))
            .context("Debian's package prometheus has it: cargo xtask setup")?;
        Ok(Self { _process: process, host: host.clone(), _directory: claim })
    }

    /// The values of an expression's series, now.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let answer = self.ask(&format!("/api/v1/query?query={}", escaped(expression)))?;
        let series = answer["data"]["result"].as_array().context("no series")?;
        let value = |series: &Value| Ok(series["value"][1].as_str().context("no value")?.parse()?);
        series.iter().map(value).collect()
    }

    /// The value of an expression with one series.
    pub(crate) fn value(&self, expression: &str) -> Result<f64> {
        match self.query(expression)?[..] {
            [value] => Ok(value),
            ref other => bail!("{expression} has {} series, not one", other.len()),
        }
    }

    /// What the API answers; an error where it does not succeed.
    pub(crate) fn ask(&self, path: &str) -> Result<Value> {
        let body = get(&self.host, ADDRESS, path)?;
        let answer: Value = serde_json::from_str(&body).with_context(|| format!("no JSON: {body}"))?;
        if answer["status"] != "success" {
            bail!("{path}: {answer}");
        }
        Ok(answer)
    }
}

/// The body of what is answered over HTTP on a host.
pub(crate) fn get(host: &Host, address: &str, path: &str) -> Result<String> {
    host.namespace.within(|| {
        let mut stream = TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
        stream.set_read_timeout(Some(wait::stretched(PATIENCE)))?;
        // An answer of version 1.0 is in one piece.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain, application/json\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(body.to_owned())
    })
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Runs promtool with `input`, and returns all it says.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .context("there is no promtool; Debian's package prometheus has it: cargo xtask setup")?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if !output.status.success() {
        bail!("promtool {arguments:?} failed ({}):\n{said}", output.status);
    }
    Ok(said)
}
