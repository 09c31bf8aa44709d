//! What others have pinned where our pins belong is refused by name, and nothing is touched.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_tests::cluster::{check_reached, pod_pairs};
use flannel_tests::namespace::Namespace;
use rstest::rstest;

use crate::{VXLAN, cluster, traces};

/// A user that does not exist here.
const STRANGER: u32 = 54_321;
/// Where what is ours is put aside.
const KEPT: &str = "kept";

/// What is foreign, by its path below the pin directory; a directory's first entry is called `*`.
enum Foreign {
    /// Ours, given to somebody else.
    OfAStranger(&'static str),
    /// A map where there is nothing of ours.
    Map(&'static str),
    /// A map in the place of what is ours.
    MapInstead(&'static str),
}
use Foreign::{Map, MapInstead, OfAStranger};

impl Foreign {
    /// Puts it there, and returns where.
    fn plant(&self, pin_dir: &Path, host: &Namespace) -> PathBuf {
        let (Map(place) | MapInstead(place) | OfAStranger(place)) = self;
        let pin = match place.strip_suffix("/*") {
            Some(directory) => fs::read_dir(pin_dir.join(directory)).unwrap().next().unwrap().unwrap().path(),
            None => pin_dir.join(place).components().collect(),
        };
        if matches!(self, OfAStranger(_)) {
            chown(&pin, Some(STRANGER), None).unwrap();
            return pin;
        }
        if matches!(self, MapInstead(_)) {
            fs::rename(&pin, pin_dir.join(KEPT)).unwrap();
        }
        let create = format!("map create {} type hash key 4 value 4 entries 16 name foreign", pin.display());
        host.run("bpftool", &create).unwrap();
        pin
    }

    /// The remedy the daemon names.
    fn remove(&self, pin_dir: &Path, planted: &Path) {
        if matches!(self, OfAStranger(_)) {
            return chown(planted, Some(0), None).unwrap();
        }
        fs::remove_file(planted).unwrap();
        if matches!(self, MapInstead(_)) {
            fs::rename(pin_dir.join(KEPT), planted).unwrap();
        }
    }
}

#[rstest]
#[case::map_of_a_stranger("tcx", OfAStranger("maps@6/PEERS"), "it belongs to user 54321")]
#[case::map_of_another_size("tcx", MapInstead("maps@6/PEERS"), "capacity are [4, 4, 16]")]
#[case::link_of_a_stranger("tcx", OfAStranger("links/*"), "it belongs to user 54321")]
#[case::map_instead_of_a_link("tcx", MapInstead("links/*"), "it is no TCX or XDP link")]
#[case::map_among_links("tcx", Map("links/somebody"), "it is no TCX or XDP link")]
#[case::filter_of_a_stranger("clsact", OfAStranger("filters/*"), "it belongs to user 54321")]
#[case::map_among_filters("clsact", Map("filters/somebody"), "it is no classifier program")]
#[case::map_among_qdiscs("clsact", Map("qdiscs/77"), "it is no classifier program")]
#[case::directory_of_a_stranger("tcx", OfAStranger("links"), "for pins")]
#[case::all_of_a_stranger("tcx", OfAStranger(""), "for pins")]
fn foreign_pin_is_refused(#[case] hook: &str, #[case] foreign: Foreign, #[case] why: &str) {
    let mut cluster = cluster(VXLAN, hook);
    let pairs = pod_pairs(&cluster.nodes());
    check_reached(&pairs).unwrap();
    let host = cluster.members[0].node.host.namespace.clone();
    cluster.members[0].daemon.terminate().unwrap();
    let pin_dir = cluster.members[0].daemon.pin_dir().to_owned();
    let planted = foreign.plant(&pin_dir, &host);
    let owner = fs::metadata(&planted).unwrap().uid();
    let before = (traces::of(&cluster.members[0]), programs(&host));

    let daemon = &mut cluster.members[0].daemon;
    daemon.restart().unwrap();
    assert_eq!(daemon.wait_end(Duration::from_secs(10)).unwrap().code(), Some(1));
    let log = fs::read_to_string(daemon.log()).unwrap();
    let said = log.lines().last().unwrap();
    assert!(said.contains(planted.to_str().unwrap()) && said.contains(why), "{said}");
    assert!(said.contains("remove it, or choose another --pin-dir"), "{said}");
    assert_eq!(before, (traces::of(&cluster.members[0]), programs(&host)));
    assert_eq!(fs::metadata(&planted).unwrap().uid(), owner);
    check_reached(&pairs).unwrap();

    foreign.remove(&pin_dir, &planted);
    cluster.members[0].daemon.restart().unwrap();
    cluster.members[0].daemon.wait_ready().unwrap();
    check_reached(&pairs).unwrap();
}

/// What is attached, with the numbers of the programs.
fn programs(host: &Namespace) -> String {
    host.run("bpftool", "net show").unwrap()
}
