//! The programs, loaded for a host of their own, and single runs of them.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{HashMap, MapData, PerCpuHashMap, PerCpuValues};
use aya::programs::{Program as Loaded, ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, VerifierLogLevel};
use flannel_common::Ip4;
use flannel_common::maps::{PEER_COUNTERS, PEERS, Peer, PeerCount, SOURCES};
use flannel_datapath::{OBJECT, ProgramSettings, loader};

use super::frames::{self, UDP, VXLAN};
use crate::traffic::inject::Format;
use crate::wait;

/// A program that looks peers up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    format: Format,
    /// Whether its packets come from the tunnel.
    incoming: bool,
    /// What it answers for a packet it forwards: `TC_ACT_REDIRECT`, or `XDP_PASS` with the tunnel's headers gone.
    forwards: u32,
}

/// Room for what a program adds.
const HEADROOM: usize = 128;
/// How long the kernel may take to have memory.
const PATIENCE: Duration = Duration::from_secs(2);

impl Program {
    pub(super) const ALL: [Self; 6] = [
        Self { name: "vxlan_encap", format: VXLAN, incoming: false, forwards: 7 },
        Self { name: "vxlan_decap", format: VXLAN, incoming: true, forwards: 7 },
        Self { name: "vxlan_xdp", format: VXLAN, incoming: true, forwards: 2 },
        Self { name: "udp_encap", format: UDP, incoming: false, forwards: 7 },
        Self { name: "udp_decap", format: UDP, incoming: true, forwards: 7 },
        Self { name: "udp_xdp", format: UDP, incoming: true, forwards: 2 },
    ];

    /// The object and its maps, for a host of this format; no program of it is loaded yet.
    pub(super) fn open(self) -> Result<Ebpf> {
        let node = frames::node(self.format);
        let mut loader = loader(&node, &ProgramSettings::default());
        Ok(loader.verifier_log_level(VerifierLogLevel::STATS).load(OBJECT)?)
    }

    /// Loads it, and returns what the kernel said.
    pub(super) fn load(self, ebpf: &mut Ebpf) -> Result<Result<(), ProgramError>> {
        match ebpf.program_mut(self.name) {
            Some(Loaded::SchedClassifier(loaded)) => Ok(loaded.load()),
            Some(Loaded::Xdp(loaded)) => Ok(loaded.load()),
            _ => bail!("the object has no program {}", self.name),
        }
    }

    fn frame(self, peer: u32) -> Result<Vec<u8>> {
        if self.incoming { frames::incoming(peer, self.format) } else { frames::outgoing(peer) }
    }
}

/// One of them with maps of its own.
pub(super) struct Programs {
    program: Program,
    ebpf: Ebpf,
    peers: u32,
}

impl Programs {
    pub(super) fn load(program: Program) -> Result<Self> {
        let mut ebpf = program.open()?;
        let loaded = program.load(&mut ebpf)?;
        loaded.with_context(|| format!("{} is refused", program.name))?;
        Ok(Self { program, ebpf, peers: 0 })
    }

    pub(super) fn verified_instructions(&self) -> Result<u32> {
        let info = match self.ebpf.program(self.program.name) {
            Some(Loaded::SchedClassifier(program)) => program.info()?,
            Some(Loaded::Xdp(program)) => program.info()?,
            _ => bail!("the object has no program {}", self.program.name),
        };
        info.verified_instruction_count().context("the kernel does not count instructions (Linux 5.16)")
    }

    /// Adds peers up to this number.
    pub(super) fn fill(&mut self, peers: u32) -> Result<()> {
        let numbers = self.peers..peers;
        self.peers = peers;
        let map = |name| format!("the object has no map {name}");
        let zero = vec![PeerCount::default(); aya::util::nr_cpus().map_err(|(_, error)| error)?];
        let counts = self.ebpf.map_mut(PEER_COUNTERS).with_context(|| map(PEER_COUNTERS))?;
        let mut counts: PerCpuHashMap<&mut MapData, Ip4, PeerCount> = counts.try_into()?;
        for number in numbers.clone() {
            let key = Ip4::from(frames::subnet(number));
            // This map has no memory of its own: many entries at once find the kernel's store empty for a moment.
            wait::until("memory for a counter", PATIENCE, || {
                Ok(counts.insert(key, PerCpuValues::try_from(zero.clone())?, 0)?)
            })?;
        }
        let sources = self.ebpf.map_mut(SOURCES).with_context(|| map(SOURCES))?;
        let mut sources: HashMap<&mut MapData, Ip4, u32> = sources.try_into()?;
        for number in numbers.clone() {
            sources.insert(frames::peer(number).public_ip, 1, 0)?;
        }
        let entries = self.ebpf.map_mut(PEERS).with_context(|| map(PEERS))?;
        let mut entries: HashMap<&mut MapData, Ip4, Peer> = entries.try_into()?;
        for number in numbers {
            entries.insert(Ip4::from(frames::subnet(number)), frames::peer(number), 0)?;
        }
        Ok(())
    }

    /// Nanoseconds that a packet takes which is not the program's, the median.
    pub(super) fn passed_on(&self, runs: u32) -> Result<u64> {
        let frame = frames::foreign()?;
        let times = (0..runs).map(|_| Ok(self.run(&frame)?.1)).collect::<Result<_>>()?;
        median(times)
    }

    /// Nanoseconds that a packet of a peer takes, the median; `choose` names the peer of each run.
    pub(super) fn forwarded(&self, runs: u32, choose: impl Fn(u32) -> u32) -> Result<u64> {
        let time = |run| {
            let peer = choose(run);
            let (action, time) = self.run(&self.program.frame(peer)?)?;
            let name = self.program.name;
            ensure!(action == self.program.forwards, "{name} answers {action} to a packet of peer {peer}");
            Ok(time)
        };
        median((0..runs).map(time).collect::<Result<_>>()?)
    }

    /// One run: a second one would find the packet as the first one left it.
    fn run(&self, frame: &[u8]) -> Result<(u32, u64)> {
        let mut out = vec![0; frame.len() + HEADROOM];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = match self.ebpf.program(self.program.name) {
            Some(Loaded::SchedClassifier(program)) => SchedClassifier::test_run(program, options)?,
            Some(Loaded::Xdp(program)) => Xdp::test_run(program, options)?,
            _ => bail!("the object has no program {}", self.program.name),
        };
        let forwarded = self.program.forwards == result.return_value;
        let is_changed = u32::try_from(frame.len())? != result.data_size_out;
        // XDP passes on what it forwards and what it does not; only the former has become another packet.
        let action = if forwarded && !is_changed { u32::MAX } else { result.return_value };
        Ok((action, u64::try_from(result.duration.as_nanos())?))
    }
}

fn median(mut times: Vec<u64>) -> Result<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("nothing was measured")
}
