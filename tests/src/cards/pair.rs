//! Both machines, and traffic between their pods.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Side;
use super::far::Far;
use super::machine::{Machine, address_of};
use super::order::{Digest, Obey, Order};
use crate::etcd::Etcd;
use crate::etcd::PREFIX;
use crate::traffic::{ChecksumErrors, Endpoint, Ping};
use crate::wait;

/// Bytes of a file.
pub(super) const FILE: u64 = 50_000_000;
/// How long it may take until the pods reach each other.
const CONVERGENCE: Duration = Duration::from_secs(15);
/// What is sent while the daemons are killed and started.
const THROUGHOUT: Ping = Ping {
    count: 300,
    size: 84,
    dont_fragment: false,
    interval: Duration::from_millis(150),
    patience: Duration::from_secs(2),
};

/// A backend's network over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) backend: &'static str,
    /// The value of `--datapath-hook`.
    pub(super) hook: &'static str,
    /// Largest packet of the cards.
    pub(super) mtu: u32,
}

/// The machines, with etcd on the near one.
#[derive(Debug)]
pub(super) struct Pair {
    near: Machine,
    far: Far,
    etcd: Etcd,
    running: Option<Wanted>,
    pods: [Ipv4Addr; 2],
}

impl Pair {
    pub(super) fn meet(near: Machine) -> Result<Self> {
        let etcd = Etcd::at("m", address_of(Side::Near))?;
        Ok(Self { near, far: Far::meet()?, etcd, running: None, pods: [Ipv4Addr::UNSPECIFIED; 2] })
    }

    /// Has the far machine end.
    pub(super) fn part(mut self) -> Result<()> {
        self.both(&Order::End).map(drop)
    }

    pub(super) const fn near(&self) -> &Machine {
        &self.near
    }

    pub(super) const fn near_mut(&mut self) -> &mut Machine {
        &mut self.near
    }

    pub(super) const fn far_mut(&mut self) -> &mut Far {
        &mut self.far
    }

    /// The address of a pod.
    pub(super) const fn pod(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::Near => self.pods[0],
            Side::Far => self.pods[1],
        }
    }

    /// Has one machine do something.
    pub(super) fn ask<T: DeserializeOwned>(&mut self, side: Side, order: &Order) -> Result<T> {
        match side {
            Side::Near => self.near.ask(order),
            Side::Far => self.far.ask(order),
        }
    }

    /// Has both do something at the same time. The near one's answer comes first.
    pub(super) fn both(&mut self, order: &Order) -> Result<[Value; 2]> {
        let (near, far) = (&mut self.near, &mut self.far);
        let (near, far) = thread::scope(|scope| {
            let far = scope.spawn(|| far.obey(order));
            (near.obey(order), far.join().unwrap_or_else(|_| Err(anyhow!("the far machine's part panicked"))))
        });
        Ok([near?, far?])
    }

    /// Has both run a line of shell.
    pub(super) fn shell(&mut self, line: &str) -> Result<()> {
        self.both(&Order::Shell(line.to_owned())).map(drop)
    }

    /// Has a daemon and a pod run on both as wanted, and waits until the pods reach each other.
    pub(super) fn start(&mut self, wanted: &Wanted) -> Result<()> {
        if self.running.as_ref() == Some(wanted) {
            return Ok(());
        }
        self.stop()?;
        self.shell(&format!("ip link set eth0 mtu {}", wanted.mtu))?;
        let config = format!(r#"{{"Network":"10.5.0.0/16","Backend":{{"Type":"{}"}}}}"#, wanted.backend);
        self.etcd.put(&format!("{PREFIX}/config"), &config)?;
        let flags = vec![format!("--datapath-hook={}", wanted.hook)];
        let [near, far] = self.both(&Order::Start { endpoint: self.etcd.url(), flags })?;
        self.pods = [serde_json::from_value(near)?, serde_json::from_value(far)?];
        self.running = Some(wanted.clone());
        wait::until("the pods to reach each other", CONVERGENCE, || self.ping(&Ping::default()))
    }

    /// Takes daemons and pods away.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.running = None;
        self.both(&Order::Stop).map(drop)
    }

    /// Pings the far pod from the near one.
    pub(super) fn ping(&self, ping: &Ping) -> Result<()> {
        ping.send_to(self.near.pod()?, self.pods[1])?.check()
    }

    /// Sends a file from pod to pod, both ways one after the other.
    pub(super) fn transfer_both_ways(&mut self) -> Result<()> {
        self.transfer(Side::Near, Side::Far)?;
        self.transfer(Side::Far, Side::Near)
    }

    fn transfer(&mut self, from: Side, to: Side) -> Result<()> {
        let before = self.checksum_errors()?;
        let port: u16 = self.ask(to, &Order::Listen)?;
        let order = Order::Send { to: SocketAddrV4::new(self.pod(to), port), bytes: FILE };
        let sent: Digest = self.ask(from, &order)?;
        let received: Digest = self.ask(to, &Order::Received)?;
        ensure!(sent == received, "{} of {} bytes arrived, or others", received.bytes, sent.bytes);
        for (after, before) in self.checksum_errors()?.iter().zip(&before) {
            after.check_none_since(before)?;
        }
        Ok(())
    }

    fn checksum_errors(&mut self) -> Result<[ChecksumErrors; 2]> {
        let [near, far] = self.both(&Order::ChecksumErrors)?;
        Ok([serde_json::from_value(near)?, serde_json::from_value(far)?])
    }

    /// Kills the daemons and starts them again while the pods are pinged.
    pub(super) fn restart_under_pings(&mut self) -> Result<u32> {
        let (from, to): (Endpoint, _) = (self.near.pod()?.clone(), self.pods[1]);
        let pings = thread::spawn(move || THROUGHOUT.send_to(&from, to));
        thread::sleep(10 * THROUGHOUT.interval);
        self.both(&Order::Restart)?;
        ensure!(!pings.is_finished(), "the daemons took longer to start than the pings");
        let pong = pings.join().map_err(|_| anyhow!("the pings panicked"))??;
        pong.check()?;
        Ok(pong.sent)
    }
}
