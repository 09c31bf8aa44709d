//! Whether this kernel accepts the programs themselves: they are loaded, with maps of their own, and attached nowhere.

use std::collections::BTreeSet;

use aya::programs::ProgramInfo;
use aya::{Ebpf, EbpfLoader};
use flannel_common::flow::{Bypass, PLACES};
use flannel_common::maps::{APPROVED, Backend, CANDIDATES, Carrier, EVENTS, FLOWS, Guard, Node};
use flannel_common::{Ip4, Mac};

use super::load::{load_program, programs, programs_of, smallest_ring};
use super::{DatapathError, Format, HookChoice, OBJECT, ProgramSettings, Refusal, Spec, Support, loader};

/// The kernel's answer to one program.
#[derive(Debug)]
pub struct Answer {
    /// Which.
    pub program: &'static str,
    /// For what: `vxlan` or `udp`.
    pub backend: &'static str,
    /// What became of it.
    pub outcome: Result<Accepted, Refusal>,
}

/// A program that the kernel accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepted {
    /// Instructions that the verifier processed, of at most a million; `None` if the kernel does not count them (before
    /// 5.16).
    pub verified_instructions: Option<u32>,
    /// Bytes of the program as it runs.
    pub translated_bytes: Option<u32>,
    /// Bytes of machine code; `None` if the kernel has no JIT compiler, or does not use it.
    pub machine_code_bytes: Option<u32>,
}

/// Loads each program of `object` that is for this kernel, for either format, with the capabilities of this thread.
///
/// # Errors
/// The object does not load at all.
pub fn check(object: &[u8], program_settings: ProgramSettings) -> Result<Vec<Answer>, DatapathError> {
    let mut answers = Vec::new();
    let cases = [
        (Backend::Vxlan, "vxlan", Carrier::Programs),
        (Backend::Udp, "udp", Carrier::Programs),
        (Backend::Vxlan, "vxlan", Carrier::Stack),
    ];
    for (backend, label, carrier) in cases {
        let mut spec = spec(backend, program_settings);
        spec.node.carrier = carrier as u16;
        let mut ebpf = load_object(object, &spec)?;
        for program in programs_of(&spec, Support::of_this_kernel()) {
            let outcome = match load_program(&mut ebpf, program) {
                Ok(()) => Ok(accepted(&ebpf, program)),
                Err(DatapathError::Program { source, .. }) => Err(source),
                Err(other) => return Err(other),
            };
            // Where the stack carries the packets, other code is enabled: it matters only if it is refused.
            if carrier == Carrier::Programs || outcome.is_err() {
                answers.push(Answer { program, backend: label, outcome });
            }
        }
    }
    Ok(answers)
}

/// Checks whether the kernel accepts every program that the backend needs, before anything is changed on the host.
/// Programs that decapsulate at XDP are not among them.
///
/// # Errors
/// It does not.
pub fn require(
    backend: Backend,
    bypass: Bypass,
    program_settings: ProgramSettings,
) -> Result<(), DatapathError> {
    let mut spec = spec(backend, program_settings);
    if bypass == Bypass::Off {
        spec.node.bypass = Bypass::Off as u32;
    }
    let mut ebpf = load_object(OBJECT, &spec).map_err(DatapathError::with_memory_limit)?;
    programs(&spec).try_for_each(|program| load_program(&mut ebpf, program))
}

fn load_object(object: &[u8], spec: &Spec) -> Result<Ebpf, DatapathError> {
    with_small_maps(&mut loader(&spec.node, &spec.program_settings)).load(object).map_err(DatapathError::Load)
}

/// The datapath of a host with this backend that uses everything.
fn spec(backend: Backend, program_settings: ProgramSettings) -> Spec {
    let format = match backend {
        Backend::Udp => Some(Format::Udp { segmented: EXIT }),
        Backend::Vxlan => Some(Format::Vxlan),
        _ => None,
    };
    let (node, uplinks) = (node(backend), BTreeSet::new());
    Spec { format, routes: true, node, uplinks, hook: HookChoice::Auto, program_settings }
}

/// Maps are created for each check, so the large ones are made small.
fn with_small_maps<'a, 'b>(loader: &'b mut EbpfLoader<'a>) -> &'b mut EbpfLoader<'a> {
    for map in [FLOWS, APPROVED] {
        loader.map_max_entries(map, PLACES);
    }
    for ring in [EVENTS, CANDIDATES] {
        loader.map_max_entries(ring, smallest_ring());
    }
    loader
}

fn accepted(ebpf: &Ebpf, program: &str) -> Accepted {
    let info = ebpf.program(program).and_then(|program| program.info().ok());
    Accepted {
        verified_instructions: info.as_ref().and_then(ProgramInfo::verified_instruction_count),
        translated_bytes: info.as_ref().and_then(ProgramInfo::size_translated),
        machine_code_bytes: info.map(|info| info.size_jitted()).filter(|size| *size > 0),
    }
}

/// Interface indexes, none of which need be there.
const DEVICE: u32 = 3;
const ENTRANCE: u32 = 4;
const EXIT: u32 = 5;
const FORMER: u32 = 6;

/// Whether programs may see packets on their way to other hosts.
const fn has_bypass(backend: Backend) -> bool {
    matches!(backend, Backend::Udp | Backend::Vxlan | Backend::HostGw)
}

/// A host that uses every feature of its backend and this kernel: the verifier does not see code that is disabled.
fn node(backend: Backend) -> Node {
    Node {
        backend: backend as u32,
        device: DEVICE,
        underlay: 2,
        segmenter: if backend == Backend::Udp { ENTRANCE } else { 0 },
        local_ip: Ip4::from_octets([192, 0, 2, 1]),
        subnet: Ip4::from_octets([198, 51, 100, 0]),
        netmask: Ip4::netmask(24),
        vni: if backend == Backend::Udp { 0 } else { 1 },
        port: 8472,
        guard: Guard::Strict as u32,
        bypass: match Support::of_this_kernel().check_mtu && has_bypass(backend) {
            true => Bypass::Flow as u32,
            false => Bypass::Off as u32,
        },
        copied_tos: Node::DSCP,
        flow_seed: u64::MAX,
        outer_mtu: 1500,
        vrf: 0,
        device_mac: Mac([2, 0, 0, 0, 0, 1]),
        carrier: Carrier::Programs as u16,
        former_vni: if backend == Backend::Vxlan { 2 } else { 0 },
        former_port: if backend == Backend::Vxlan { 4789 } else { 0 },
        former_device: if backend == Backend::Vxlan { FORMER } else { 0 },
        reserved: 0,
    }
}
