use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use flannel_model::family::Subnets;
use ipnetwork::{IpNetwork, Ipv4Network};
use proptest::prelude::*;
use rstest::rstest;

use super::{Previous, Store as _, SubnetFile, SubnetFileError, cidr};

fn file(network: &str, subnet: &str, mtu: u32, ip_masq: bool) -> SubnetFile {
    SubnetFile { networks: subnets(network), subnets: subnets(subnet), mtu, ip_masq }
}

fn subnets(text: &str) -> Subnets {
    text.parse::<IpNetwork>().unwrap().into()
}

fn networks(list: &[&str]) -> Vec<Ipv4Network> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

#[rstest]
#[case::masquerading(
    file("10.5.0.0/16", "10.5.18.0/24", 1450, true),
    "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.18.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
)]
#[case::not_masquerading(
    file("10.0.0.0/8", "10.15.240.0/20", 1472, false),
    "FLANNEL_NETWORK=10.0.0.0/8\nFLANNEL_SUBNET=10.15.240.1/20\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"
)]
fn the_bytes_are_those_of_stock_flannel(#[case] file: SubnetFile, #[case] bytes: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    file.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), bytes);
}

/// `mk-docker-opts.sh -d` with the subnet file as its output adds a line to it.
#[test]
fn lines_of_others_stay() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    let options = "DOCKER_OPTS=\" --bip=10.5.18.1/24 --mtu=1450\"\n# of the owner\n";
    let first = file("10.5.0.0/16", "10.5.18.0/24", 1450, true);
    path.keep(&first).unwrap();
    fs::write(&path, format!("{first}{options}")).unwrap();
    let written = fs::metadata(&path).unwrap().ino();
    path.keep(&first).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().ino(), written, "nothing is to be written");
    let second = file("10.5.0.0/16", "10.5.19.0/24", 1400, true);
    for _ in 0..2 {
        path.keep(&second).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{second}{options}"));
    }
    second.write(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{second}{options}"), "at a start");
}

#[test]
fn directory_and_file_are_made_readable_and_nothing_else_is_left() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("run/flannel");
    let path = directory.join("subnet.env");
    let file = file("10.5.0.0/16", "10.5.18.0/24", 1450, false);
    file.write(&path).unwrap();
    file.write(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
}

#[test]
fn a_link_is_replaced_and_what_it_points_to_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("subnet.env"), directory.path().join("target"));
    fs::write(&target, "untouched").unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    file("10.5.0.0/16", "10.5.18.0/24", 1450, false).write(&path).unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "untouched");
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("occupied"), "").unwrap();
    let path = directory.path().join("occupied/subnet.env");
    let error = file("10.5.0.0/16", "10.5.18.0/24", 1450, false).write(&path).unwrap_err();
    assert!(matches!(error, SubnetFileError::CreateDirectory { .. }));
    assert!(error.to_string().contains("occupied"));
}

#[test]
fn a_directory_in_the_place_of_the_file_is_an_error_for_writer_and_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    fs::create_dir(&path).unwrap();
    let written = file("10.5.0.0/16", "10.5.18.0/24", 1450, false).write(&path);
    assert!(matches!(written, Err(SubnetFileError::Write { .. })));
    assert!(matches!(Previous::read(&path), Err(SubnetFileError::Read { .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "the file beside it is gone");
}

#[test]
fn no_file_is_no_previous_subnet() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(Previous::read(&directory.path().join("subnet.env")).unwrap(), None);
}

#[test]
fn an_endless_file_is_read_in_part() {
    assert_eq!(Previous::read(std::path::Path::new("/dev/zero")).unwrap(), Some(Previous::default()));
}

#[rstest]
#[case::plain("FLANNEL_SUBNET=10.5.18.1/24\n", &["10.5.18.0/24"])]
#[case::no_newline("FLANNEL_SUBNET=10.5.18.1/24", &["10.5.18.0/24"])]
#[case::carriage_return("FLANNEL_SUBNET=10.5.18.1/24\r\n", &["10.5.18.0/24"])]
#[case::exported("export FLANNEL_SUBNET=10.5.18.1/24", &["10.5.18.0/24"])]
#[case::double_quotes("FLANNEL_SUBNET=\"10.5.18.1/24\" # ours", &["10.5.18.0/24"])]
#[case::single_quotes("FLANNEL_SUBNET = '10.5.18.1/24'", &["10.5.18.0/24"])]
#[case::comment_after("FLANNEL_SUBNET=10.5.18.1/24 # ours", &["10.5.18.0/24"])]
#[case::comment("# FLANNEL_SUBNET=10.5.18.1/24", &[])]
#[case::last_line_counts("FLANNEL_SUBNET=10.5.1.1/24\nFLANNEL_SUBNET=10.5.18.1/24", &["10.5.18.0/24"])]
#[case::list("FLANNEL_SUBNET=10.5.1.1/24,10.5.2.1/24", &["10.5.1.0/24", "10.5.2.0/24"])]
#[case::invalid_skipped("FLANNEL_SUBNET=10.5.1.1/24,abc,10.5.1.1", &["10.5.1.0/24"])]
#[case::only_invalid("FLANNEL_SUBNET=10.5.1.300/24", &[])]
#[case::empty_value("FLANNEL_SUBNET=", &[])]
#[case::open_quote("FLANNEL_SUBNET=\"10.5.18.1/24", &[])]
#[case::other_key("MY_FLANNEL_SUBNET=10.5.18.1/24", &[])]
#[case::no_assignment("FLANNEL_SUBNET\n\0\u{fffd}\n", &[])]
fn subnets_of_a_file(#[case] text: &str, #[case] subnets: &[&str]) {
    assert_eq!(Previous::parse(text).subnets, networks(subnets));
}

#[rstest]
#[case::one("FLANNEL_SUBNET=10.5.18.1/24", Some("10.5.18.0/24"))]
#[case::none("FLANNEL_NETWORK=10.5.0.0/16", None)]
#[case::two_are_ambiguous("FLANNEL_SUBNET=10.5.1.1/24,10.5.2.1/24", None)]
fn previous_subnet(#[case] text: &str, #[case] expected: Option<&str>) {
    assert_eq!(Previous::parse(text).previous_subnets(), expected.map_or(Subnets::NONE, subnets));
}

#[test]
fn a_dual_stack_file_of_stock_flannel_is_read_and_written() {
    let bytes = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.24.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:5::/48\n\
                 FLANNEL_IPV6_SUBNET=fd00:10:5:4a::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    let file = file("10.5.0.0/16", "10.5.24.0/24", 1450, true);
    let file = SubnetFile {
        networks: file.networks.with("fd00:10:5::/48".parse().unwrap()),
        subnets: file.subnets.with("fd00:10:5:4a::/64".parse().unwrap()),
        ..file
    };
    assert_eq!(file.to_string(), bytes);
    let previous = Previous::parse(bytes);
    let expected = Previous {
        networks: networks(&["10.5.0.0/16"]),
        subnets: networks(&["10.5.24.0/24"]),
        ipv6_subnets: vec!["fd00:10:5:4a::/64".parse().unwrap()],
        mtu: Some(1450),
        ip_masq: Some(true),
    };
    assert_eq!(previous, expected);
}

#[test]
fn a_concurrent_reader_never_sees_a_part() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("subnet.env");
    let versions = [
        file("10.0.0.0/8", "10.5.0.0/24", 50, true),
        file("172.16.128.0/17", "172.16.254.240/28", 65_000, false),
    ];
    let whole = versions.map(|version| version.to_string());
    versions[0].write(&path).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..300 {
                versions[round % 2].write(&path).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let seen = fs::read_to_string(&path).unwrap();
            assert!(whole.contains(&seen), "{seen:?}");
        }
    });
}

fn network() -> impl Strategy<Value = Ipv4Network> {
    (any::<std::net::Ipv4Addr>(), 0..=30u8)
        .prop_map(|(addr, len)| cidr::masked_v4(Ipv4Network::new(addr, len).unwrap()))
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(network in network(), subnet in network(), mtu: u32, ip_masq: bool) {
        let file = SubnetFile { networks: network.into(), subnets: subnet.into(), mtu, ip_masq };
        let previous = Previous::parse(&file.to_string());
        prop_assert_eq!(previous.previous_subnets(), Subnets::from(subnet));
        prop_assert_eq!(previous, Previous {
            networks: vec![network],
            subnets: vec![subnet],
            ipv6_subnets: Vec::new(),
            mtu: Some(mtu),
            ip_masq: Some(ip_masq),
        });
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(FLANNEL_SUBNET=?)?.*") {
        let _ = Previous::parse(&text);
    }
}
