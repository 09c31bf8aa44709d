//! What a daemon has left on its host, in the kernel and in files: the same after a hundred lives as after one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::{loaded_links, loaded_programs};
use flannel_common::maps::COUNTERS;
use flannel_datapath::PinDir;
use flannel_tests::cluster::Member;

/// One line per object, sorted. Numbers that another start may choose differently are left out.
pub fn of(member: &Member) -> String {
    let mut traces = files("pin", member.daemon.pin_dir());
    traces.extend(files("file", member.daemon.log().parent().unwrap()));
    traces.extend(bpf_objects(member));
    let host = &member.node.host.namespace;
    let run = |program: &str, arguments: &str| {
        let shown = host.run(program, arguments).unwrap();
        let lines = shown.lines().filter(|line| !line.starts_with('#')).map(without_counts);
        lines.map(|line| format!("{program}: {line}")).collect::<Vec<_>>()
    };
    for objects in ["link show", "address show", "route show table all", "rule show"] {
        traces.extend(run("ip", &format!("-oneline {objects}")));
    }
    traces.extend(run("ip", "neigh show nud permanent"));
    traces.extend(run("bridge", "fdb show permanent"));
    traces.extend(run("tc", "qdisc show"));
    for interface in host.ip("-brief link show").unwrap().lines().map(interface_of) {
        for direction in ["ingress", "egress"] {
            let filters = run("tc", &format!("filter show dev {interface} {direction}"));
            traces.extend(filters.iter().map(|filter| format!("{interface} {direction} {filter}")));
        }
    }
    traces.extend(run("nft", "--stateless list ruleset"));
    traces.extend(run("iptables-save", ""));
    traces.extend(run("ss", "--listening --numeric --tcp --udp --no-header"));
    traces.sort();
    traces.join("\n")
}

/// Everything below a directory.
fn files(what: &str, directory: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        names.push(format!("{what}: {}", path.display()));
        if path.is_dir() {
            names.extend(files(what, &path));
        }
    }
    names
}

/// Programs that count in the pinned map, whether or not they are attached, their links and all their maps.
fn bpf_objects(member: &Member) -> Vec<String> {
    let counters = MapInfo::from_pin(PinDir::maps(member.daemon.pin_dir()).join(COUNTERS)).unwrap().id();
    // What is unloaded meanwhile is somebody else's.
    let maps = |program: &aya::programs::ProgramInfo| program.map_ids().ok().flatten().unwrap_or_default();
    let programs: Vec<_> =
        loaded_programs().flatten().filter(|program| maps(program).contains(&counters)).collect();
    let all_maps: BTreeSet<u32> = programs.iter().flat_map(maps).collect();
    let ids: BTreeSet<u32> = programs.iter().map(aya::programs::ProgramInfo::id).collect();
    let links = loaded_links().flatten().filter(|link| ids.contains(&link.program_id())).count();
    let names = programs.iter().map(|program| format!("program: {}", program.name_as_str().unwrap()));
    names.chain([format!("{} maps, {links} links", all_maps.len())]).collect()
}

/// Without what counts packets, time and programs.
fn without_counts(line: &str) -> String {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if let Some(id) = words.iter().position(|word| *word == "id") {
        words.drain(id..(id + 2).min(words.len()));
    }
    words.retain(|word| !word.starts_with('['));
    words.join(" ")
}

fn interface_of(line: &str) -> String {
    line.split([' ', '@']).next().unwrap_or_default().to_owned()
}
