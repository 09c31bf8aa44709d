//! What runs containers, by its command line: those of Docker and podman are alike.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::command::output;
use super::image;
use super::machine::Machine;
use crate::namespace::Namespace;
use crate::traffic::Endpoint;
use crate::wait;

/// The name of the only image.
const IMAGE: &str = "scratch-tools";
/// How long a server in a container may take to listen.
const LISTENS: Duration = Duration::from_secs(20);

/// A command line that runs containers on a machine.
pub trait Engine {
    /// The command without a verb.
    fn command(&self) -> Command;
    /// Where it runs.
    fn machine(&self) -> &Machine;
    /// The network of containers, if it is not the default one.
    fn network(&self) -> Option<&str>;

    /// Runs a verb to its end and returns what it prints.
    ///
    /// # Errors
    /// It fails; says what it printed to standard error.
    fn call(&self, arguments: &[&str]) -> Result<String> {
        output(self.command().args(arguments))
    }

    /// Makes the image, with nothing in it but [`image`]'s programs.
    ///
    /// # Errors
    /// A program is missing, or the import fails.
    fn import(&self) -> Result<()> {
        let archive = image::archive(self.machine().directory())?;
        let mut command = self.command();
        command.args(["import", "-", IMAGE]).stdin(File::open(archive)?);
        output(&mut command)?;
        Ok(())
    }

    /// Starts a container that does nothing until it is told to.
    ///
    /// # Errors
    /// It does not start, or has no address.
    fn run(&self, name: &str) -> Result<Container> {
        // podman gives containers no right to ping.
        let mut arguments = vec!["run", "--detach", "--cap-add=NET_RAW", "--name", name];
        let group = format!("--cgroup-parent=/{}", self.machine().cgroup());
        arguments.push(&group);
        if let Some(network) = self.network() {
            arguments.extend(["--network", network]);
        }
        arguments.extend([IMAGE, "/bin/busybox", "sleep", "86400"]);
        self.call(&arguments)?;
        let form = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let told = self.call(&["inspect", "--format", form, name])?;
        let (pid, address) = told.trim_start().split_once(' ').context("no process and address")?;
        let machine = self.machine();
        let host = machine.host();
        let address = match address.trim() {
            // It has the host's network.
            "" => host.address,
            address => address.parse().with_context(|| format!("its address: {told}"))?,
        };
        let namespace = Namespace::of(&format!("{}-{name}", host.label()), machine.pid(pid.parse()?)?)?;
        let name = name.to_owned();
        Ok(Container {
            endpoint: Endpoint { name: format!("{} on {}", name, host.name), namespace, address },
            name,
        })
    }

    /// Pings from a container, with what is in it.
    ///
    /// # Errors
    /// An answer is missing.
    fn ping(&self, from: &Container, to: Ipv4Addr) -> Result<()> {
        let to = to.to_string();
        self.call(&["exec", &from.name, "/bin/busybox", "ping", "-c", "3", "-i", "0.1", "-W", "2", &to])?;
        Ok(())
    }

    /// Starts iperf3's server in a container, for one test.
    ///
    /// # Errors
    /// The container does not run.
    fn serve_iperf(&self, at: &Container) -> Result<()> {
        self.call(&["exec", "--detach", &at.name, "/bin/iperf3", "--server", "--one-off"])?;
        Ok(())
    }

    /// Runs iperf3's client in a container, over TCP, and returns the bits of payload that arrived per second.
    ///
    /// # Errors
    /// The server is not reached.
    fn iperf(&self, from: &Container, to: Ipv4Addr, seconds: u32) -> Result<f64> {
        let (to, seconds) = (to.to_string(), seconds.to_string());
        let words =
            ["exec", &from.name, "/bin/iperf3", "--json", "--time", &seconds, "--omit", "1", "--client", &to];
        let text = wait::until("iperf3's server", LISTENS, || self.call(&words))?;
        let told: Value = serde_json::from_str(&text).context("iperf3 tells no JSON")?;
        let rate = &told["end"]["sum_received"]["bits_per_second"];
        rate.as_f64().filter(|rate| *rate > 0.0).with_context(|| format!("iperf3 has no rate: {text}"))
    }
}

/// A container that runs, for as long as its machine does.
#[derive(Debug)]
pub struct Container {
    /// It as an end of traffic.
    pub endpoint: Endpoint,
    /// Its name there.
    pub name: String,
}
