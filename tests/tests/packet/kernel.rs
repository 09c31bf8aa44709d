//! The programs in the kernel against the packet logic over byte vectors.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use caps::{CapSet, Capability};
use flannel_common::flow::{Bypass, Flow, FlowKey, KnownFlow};
use flannel_common::maps::{
    Backend, COUNTERS, Count, FLOWS, Guard, Node, PEER_COUNTERS, PEERS, PORTS, PeerCount, Port, SOURCES,
};
use flannel_common::wire::Ipv4Header;
use flannel_common::{Hook, Ip4, Mac, Reason, Verdict};
use flannel_datapath::{LogChoice, OBJECT, ProgramSettings, Support, loader};
use flannel_ebpf::frame::Encapsulation;
use flannel_tests::wait::patience;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rstest::rstest;
use zerocopy::FromBytes as _;

use crate::frames::{self, Inner, any_incoming, any_outgoing};
use crate::model;

/// Room for what the program adds.
const HEADROOM: usize = 256;
/// Where `ingress_ifindex` stands in `struct __sk_buff`.
const INGRESS_INTERFACE: std::ops::Range<usize> = 36..40;
/// Frames per program, on a machine that is not slow.
const FRAMES: u32 = 20_000;
/// How the programs of native XDP are called for kernels that know no packets of several buffers.
const LINEAR: &str = "_linear";

/// Takes this thread into a network namespace without routes, which does not forward either: there the kernel answers
/// the programs the same on every machine, that it does not say where a peer is reached.
fn leave_host() {
    thread_local!(static HAS_LEFT: Cell<bool> = const { Cell::new(false) });
    if !HAS_LEFT.replace(true) {
        unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace, which needs root");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    }
}

/// The programs, loaded for the host of the packet tests with its peers.
pub struct Kernel {
    ebpf: Ebpf,
}

/// What a program answered, and the packet afterwards.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub action: u32,
    pub frame: Vec<u8>,
}

impl Kernel {
    pub fn load(encapsulation: Encapsulation, guard: Guard, programs: &[&str]) -> Self {
        Self::load_for(&frames::node(encapsulation, guard), programs)
    }

    /// Loads the programs for another host.
    pub fn load_for(node: &Node, programs: &[&str]) -> Self {
        leave_host();
        let mut ebpf = loader(node, &ProgramSettings::default())
            .load(OBJECT)
            .expect("the object loads (this test needs root or CAP_BPF and CAP_NET_ADMIN)");
        for name in programs {
            let name = &for_this_kernel(name);
            match ebpf.program_mut(name) {
                Some(Program::SchedClassifier(program)) => program.load(),
                Some(Program::Xdp(program)) => program.load(),
                other => panic!("no program {name}: {other:?}"),
            }
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
        let mut kernel = Self { ebpf };
        kernel.insert_peers();
        kernel
    }

    fn insert_peers(&mut self) {
        for (subnet, peer) in frames::peers() {
            let mut peers: HashMap<&mut MapData, Ip4, flannel_common::maps::Peer> =
                self.ebpf.map_mut(PEERS).unwrap().try_into().unwrap();
            peers.insert(subnet, peer, 0).unwrap();
            let mut sources: HashMap<&mut MapData, Ip4, u32> =
                self.ebpf.map_mut(SOURCES).unwrap().try_into().unwrap();
            sources.insert(peer.public_ip, 1, 0).unwrap();
            let mut counts: PerCpuHashMap<&mut MapData, Ip4, PeerCount> =
                self.ebpf.map_mut(PEER_COUNTERS).unwrap().try_into().unwrap();
            let zero = vec![PeerCount::default(); aya::util::nr_cpus().unwrap()];
            counts.insert(subnet, PerCpuValues::try_from(zero).unwrap(), 0).unwrap();
        }
    }

    /// Whether the programs take the peer of `subnet` to be one that takes packets whole.
    pub fn accepts_gso(&self, subnet: Ip4) -> bool {
        let peers: HashMap<&MapData, Ip4, flannel_common::maps::Peer> =
            self.ebpf.map(PEERS).unwrap().try_into().unwrap();
        peers.get(&subnet, 0).unwrap().whole != 0
    }

    /// Changes what the programs know of the peer of `subnet`.
    pub fn put_peer(&mut self, subnet: Ip4, change: impl FnOnce(&mut flannel_common::maps::Peer)) {
        let mut peers: HashMap<&mut MapData, Ip4, flannel_common::maps::Peer> =
            self.ebpf.map_mut(PEERS).unwrap().try_into().unwrap();
        let mut peer = peers.get(&subnet, 0).unwrap();
        change(&mut peer);
        peers.insert(subnet, peer, 0).unwrap();
    }

    /// Has the programs know that `station` is behind the port.
    pub fn put_station(&mut self, port: u32, station: Mac) {
        let mut ports: HashMap<&mut MapData, Port, u32> =
            self.ebpf.map_mut(PORTS).unwrap().try_into().unwrap();
        ports.insert(Port { bridge: port, mac: station, reserved: 0 }, port, 0).unwrap();
    }

    /// Has the programs know a flow.
    pub fn put_flow(&mut self, key: FlowKey, flow: Flow) {
        self.put_flow_at(key.place(frames::FLOW_SEED), key, flow);
    }

    pub fn put_flow_at(&mut self, place: u32, key: FlowKey, flow: Flow) {
        let mut flows: Array<&mut MapData, KnownFlow> = self.ebpf.map_mut(FLOWS).unwrap().try_into().unwrap();
        flows.set(place, KnownFlow { key, flow }, 0).unwrap();
    }

    /// What the programs know of a flow.
    pub fn flow(&self, key: &FlowKey) -> Flow {
        let known = self.flow_at(key.place(frames::FLOW_SEED));
        assert_eq!(known.key, *key);
        known.flow
    }

    pub fn flow_at(&self, place: u32) -> KnownFlow {
        let flows: Array<&MapData, KnownFlow> = self.ebpf.map(FLOWS).unwrap().try_into().unwrap();
        flows.get(&place, 0).unwrap()
    }

    pub fn run(&self, program: &str, frame: &[u8]) -> Answer {
        self.run_with(program, frame, None)
    }

    /// Runs a program on a packet that came by another interface.
    pub fn run_received_by(&self, program: &str, frame: &[u8], interface: u32) -> Answer {
        let mut context = [0; size_of::<[u32; 48]>()];
        context[INGRESS_INTERFACE].copy_from_slice(&interface.to_ne_bytes());
        self.run_with(program, frame, Some(&context))
    }

    fn run_with(&self, program: &str, frame: &[u8], context: Option<&[u8]>) -> Answer {
        let mut out = vec![0; frame.len() + HEADROOM];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: context,
            ..TestRunOptions::new()
        };
        let result = match self.ebpf.program(&for_this_kernel(program)) {
            Some(Program::SchedClassifier(program)) => SchedClassifier::test_run(program, options),
            Some(Program::Xdp(program)) => Xdp::test_run(program, options),
            other => panic!("no program {program}: {other:?}"),
        }
        .unwrap_or_else(|error| panic!("{program} with {} bytes: {error:?}", frame.len()));
        out.truncate(result.data_size_out as usize);
        Answer { action: result.return_value, frame: out }
    }

    pub fn count(&self, hook: Hook, reason: Reason) -> Count {
        let counters: PerCpuArray<&MapData, Count> = self.ebpf.map(COUNTERS).unwrap().try_into().unwrap();
        let add = |a: Count, b: &Count| Count { packets: a.packets + b.packets, bytes: a.bytes + b.bytes };
        counters.get(&hook.slot(reason), 0).unwrap().iter().fold(Count::default(), add)
    }

    pub fn peer_count(&self, subnet: Ip4) -> (u64, u64) {
        let counts: PerCpuHashMap<&MapData, Ip4, PeerCount> =
            self.ebpf.map(PEER_COUNTERS).unwrap().try_into().unwrap();
        let per_cpu = counts.get(&subnet, 0).unwrap();
        per_cpu.iter().fold((0, 0), |sum, count| (sum.0 + count.sent.packets, sum.1 + count.received.packets))
    }
}

/// The program that does on this kernel what `name` does on new ones.
fn for_this_kernel(name: &str) -> Cow<'_, str> {
    if Support::of_this_kernel().takes(name) {
        return name.into();
    }
    assert!(name.ends_with("_xdp"), "{name} needs what this kernel lacks: {:?}", Support::of_this_kernel());
    format!("{name}{LINEAR}").into()
}

/// Frames per program here. Fewer on a machine that is slow: an emulated one makes up a hundred in a second.
fn frames_per_program() -> u32 {
    (f64::from(FRAMES) / patience()) as u32
}

/// `TC_ACT_*` of a verdict.
pub const fn tc_action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Forward => 7,
        Verdict::Pass => u32::MAX,
        Verdict::Drop => 2,
    }
}

const fn xdp_action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Forward | Verdict::Pass => 2,
        Verdict::Drop => 1,
    }
}

/// Runs `check` on many frames, with one set of loaded programs.
fn for_all(frames: impl Strategy<Value = Vec<u8>>, mut check: impl FnMut(&[u8])) {
    let check = RefCell::new(&mut check);
    TestRunner::new(Config { cases: frames_per_program(), failure_persistence: None, ..Config::default() })
        .run(&frames, |frame| {
            (check.borrow_mut())(&frame);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn reason(answer: Result<Ip4, Reason>) -> Reason {
    answer.map_or_else(|reason| reason, |_| Reason::Forwarded)
}

#[rstest]
#[case::udp(Encapsulation::Udp, "udp_encap")]
#[case::vxlan(Encapsulation::Vxlan, "vxlan_encap")]
fn encapsulation_equals_the_model(#[case] encapsulation: Encapsulation, #[case] program: &str) {
    let kernel = Kernel::load(encapsulation, Guard::Strict, &[program]);
    for_all(any_outgoing(), |frame| {
        let mut expected = frame.to_vec();
        let reason = reason(model::encapsulate(encapsulation, &mut expected, Guard::Strict));
        let before = kernel.count(Hook::Encap, reason);
        let answer = kernel.run(program, frame);
        assert_eq!(answer.action, tc_action(reason.verdict()), "{reason}");
        let after = kernel.count(Hook::Encap, reason);
        assert_eq!(after.packets, before.packets + 1, "{reason}");
        assert_eq!(after.bytes, before.bytes + frame.len() as u64, "{reason}");
        if reason == Reason::Forwarded {
            let outer = Ipv4Header::read_from_bytes(&answer.frame[14..34]).unwrap();
            assert_eq!(outer.checksum, outer.computed_checksum());
            assert_eq!(frames::without_hash(answer.frame), frames::without_hash(expected));
        } else {
            assert_eq!(answer.frame, frame);
        }
    });
    let sent: u64 = frames::peers().iter().map(|(subnet, _)| kernel.peer_count(*subnet).0).sum();
    assert_eq!(sent, kernel.count(Hook::Encap, Reason::Forwarded).packets);
    assert!(sent > u64::from(frames_per_program()) / 10, "only {sent} frames were encapsulated");
}

#[rstest]
#[case::udp(Encapsulation::Udp, "udp_encap")]
#[case::udp_segmented(Encapsulation::Udp, "udp_segmented")]
#[case::vxlan(Encapsulation::Vxlan, "vxlan_encap")]
fn dscp_is_copied_where_told(
    #[case] encapsulation: Encapsulation,
    #[case] program: &str,
    #[values(0, Node::DSCP)] copied_tos: u32,
) {
    let node = Node { copied_tos, ..frames::node(encapsulation, Guard::Strict) };
    let kernel = Kernel::load_for(&node, &[program]);
    for tos in u8::MIN..=u8::MAX {
        let mut expected = Inner { tos, ..Inner::new([10, 5, 1, 7], [10, 5, 2, 9]) }.frame();
        let answer = kernel.run(program, &expected);
        model::encapsulate_at(&node, encapsulation, &mut expected).unwrap();
        let outer = Ipv4Header::read_from_bytes(&answer.frame[14..34]).unwrap();
        assert_eq!(u32::from(outer.tos & 0xfc), u32::from(tos) & copied_tos, "inner {tos:08b}");
        assert_eq!(outer.checksum, outer.computed_checksum());
        assert_eq!(frames::without_hash(answer.frame), frames::without_hash(expected));
    }
}

#[rstest]
fn decapsulation_equals_the_model(
    #[values((Encapsulation::Udp, "udp_decap", Hook::Decap), (Encapsulation::Vxlan, "vxlan_decap", Hook::Decap),
             (Encapsulation::Udp, "udp_xdp", Hook::Xdp), (Encapsulation::Vxlan, "vxlan_xdp", Hook::Xdp))]
    case: (Encapsulation, &str, Hook),
    #[values(Guard::Strict, Guard::Peer, Guard::Off)] guard: Guard,
) {
    let (encapsulation, program, hook) = case;
    let kernel = Kernel::load(encapsulation, guard, &[program]);
    for_all(any_incoming(encapsulation), |frame| {
        let mut expected = frame.to_vec();
        let reason = reason(model::decapsulate(encapsulation, &mut expected, guard));
        let before = kernel.count(hook, reason).packets;
        let mut answer = kernel.run(program, frame);
        if hook == Hook::Xdp && reason == Reason::Forwarded {
            // The token for the TC program stands in front of the packet.
            let token: Vec<u8> = answer.frame.drain(..4).collect();
            assert_ne!(token, [0; 4]);
        }
        let action =
            if hook == Hook::Xdp { xdp_action(reason.verdict()) } else { tc_action(reason.verdict()) };
        assert_eq!(answer, Answer { action, frame: expected }, "{reason}");
        assert_eq!(kernel.count(hook, reason).packets, before + 1, "{reason}");
    });
    assert!(kernel.count(hook, Reason::Forwarded).packets > u64::from(frames_per_program()) / 50);
}

/// What programs know of the host decides which of their branches the verifier examines, and with the two capabilities
/// of a running daemon it lets them do less.
#[rstest]
fn programs_are_accepted_with_two_capabilities_whatever_the_host(
    #[values(Encapsulation::Udp, Encapsulation::Vxlan)] encapsulation: Encapsulation,
    #[values(Guard::Strict, Guard::Peer, Guard::Off)] guard: Guard,
    #[values(Bypass::Off, Bypass::Flow, Bypass::Direct)] bypass: Bypass,
    #[values(Backend::Udp, Backend::Vxlan, Backend::HostGw)] backend: Backend,
    #[values(LogChoice::Off, LogChoice::Info)] log: LogChoice,
) {
    let node = Node { backend: backend as u32, bypass: bypass as u32, ..frames::node(encapsulation, guard) };
    // Capabilities are the thread's.
    let load = || {
        let two = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN].into();
        leave_host();
        caps::set(None, CapSet::Effective, &two).unwrap();
        let program_settings = ProgramSettings { log, ..ProgramSettings::default() };
        let mut ebpf = loader(&node, &program_settings).load(OBJECT).unwrap();
        let support = Support::of_this_kernel();
        for (name, program) in ebpf.programs_mut().filter(|(name, _)| support.takes(name)) {
            match program {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                other => panic!("{name} is a {:?}", other.prog_type()),
            }
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    };
    std::thread::scope(|scope| scope.spawn(load).join()).unwrap();
}
