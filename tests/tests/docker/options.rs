//! The script that makes Docker's options of the subnet file: stock flannel's flags and what it writes, by three shells.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flannel_tests::containers::SCRIPT;
use rstest::rstest;
use tempfile::TempDir;

const SUBNET_FILE: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n";
const INDIVIDUAL: &str = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\nDOCKER_OPT_MTU=\"--mtu=1472\"\n";
const COMBINED: &str = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";
const SHELLS: [&[&str]; 3] = [&["dash"], &["busybox", "sh"], &["bash"]];

/// A directory with a subnet file, in which the script runs.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new(subnet_file: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("subnet.env"), subnet_file).unwrap();
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, shell: &[&str], flags: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(shell[0]);
        command.args(&shell[1..]).arg(SCRIPT).args(["-f", "subnet.env", "-d", "docker.env"]).args(flags);
        command.current_dir(self.directory.path()).env_remove("DOCKER_OPTS");
        command.envs(environment.iter().copied()).output().unwrap()
    }

    fn written(&self) -> String {
        fs::read_to_string(self.path("docker.env")).unwrap()
    }

    /// The only files are these: nothing is left beside them.
    fn check_files(&self, names: &[&str]) {
        let mut files: Vec<String> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        assert_eq!(files, names);
    }
}

#[rstest]
#[case::both(&[], format!("{INDIVIDUAL}{COMBINED}"))]
#[case::individual(&["-i"], INDIVIDUAL.to_owned())]
#[case::combined(&["-c"], COMBINED.to_owned())]
#[case::key(&["-k", "CUSTOM_KEY"], format!("{INDIVIDUAL}{}", COMBINED.replace("DOCKER_OPTS", "CUSTOM_KEY")))]
#[case::without_masquerade(&["-m"], format!("{INDIVIDUAL}{COMBINED}").replace("DOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n", "").replace(" --ip-masq=true", ""))]
fn what_stock_flannel_writes_is_written(#[case] flags: &[&str], #[case] expected: String) {
    for shell in SHELLS {
        let place = Place::new(SUBNET_FILE);
        fs::write(place.path("docker.env"), "of another day\n").unwrap();
        let output = place.run(shell, flags, &[]);
        assert!(output.status.success(), "{shell:?}: {output:?}");
        assert_eq!(place.written(), expected, "{shell:?}");
        place.check_files(&["docker.env", "subnet.env"]);
    }
}

#[test]
fn a_flannel_that_masquerades_keeps_docker_from_it() {
    for shell in SHELLS {
        let place = Place::new(&SUBNET_FILE.replace("IPMASQ=false", "IPMASQ=true"));
        assert!(place.run(shell, &["-c"], &[]).status.success());
        assert_eq!(place.written(), COMBINED.replace("--ip-masq=true", "--ip-masq=false"));
    }
}

#[test]
fn options_of_the_environment_come_too() {
    for shell in SHELLS {
        let place = Place::new(SUBNET_FILE);
        let environment = [("DOCKER_OPTS", r#"-H "x""#), ("DOCKER_OPT_A", r"--label=a\b")];
        assert!(place.run(shell, &[], &environment).status.success());
        let expected = format!(
            "DOCKER_OPT_A=\"--label=a\\\\b\"\n{INDIVIDUAL}DOCKER_OPTS=\"-H \\\"x\\\"  --label=a\\\\b --bip=10.1.74.1/24 \
             --ip-masq=true --mtu=1472\"\n"
        );
        assert_eq!(place.written(), expected, "{shell:?}");
        let mut reader = Command::new("sh");
        reader.args(["-c", ". ./docker.env; printf %s \"$DOCKER_OPTS\""]).current_dir(place.directory.path());
        let said = reader.output().unwrap();
        assert!(
            String::from_utf8_lossy(&said.stdout).starts_with(r#"-H "x"  --label=a\b --bip="#),
            "{said:?}"
        );
    }
}

/// As units in many tutorials have it: Docker's options are added to the subnet file.
#[test]
fn in_the_subnet_file_all_else_stays() {
    for shell in SHELLS {
        let place = Place::new(SUBNET_FILE);
        for _ in 0..2 {
            assert!(place.run(shell, &["-c", "-d", "subnet.env"], &[]).status.success());
        }
        let text = fs::read_to_string(place.path("subnet.env")).unwrap();
        assert_eq!(text, format!("{SUBNET_FILE}{COMBINED}"), "{shell:?}");
        place.check_files(&["subnet.env"]);
    }
}

#[test]
fn a_link_to_a_file_stays_one_and_standard_output_is_written_to() {
    for shell in SHELLS {
        let place = Place::new(SUBNET_FILE);
        fs::write(place.path("target.env"), "").unwrap();
        std::os::unix::fs::symlink("target.env", place.path("docker.env")).unwrap();
        assert!(place.run(shell, &["-c"], &[]).status.success());
        assert!(place.path("docker.env").is_symlink());
        assert_eq!(fs::read_to_string(place.path("target.env")).unwrap(), COMBINED);
        let output = place.run(shell, &["-c", "-d", "/dev/stdout"], &[]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), COMBINED, "{shell:?}: {output:?}");
    }
}

#[rstest]
#[case::no_subnet("FLANNEL_SUBNET=10.1.74.1/24", "", &[], "FLANNEL_SUBNET")]
#[case::no_length("10.1.74.1/24", "10.1.74.1", &[], "FLANNEL_SUBNET=\"10.1.74.1\"")]
#[case::no_byte("10.1.74.1/24", "10.1.74.256/24", &[], "is not an address")]
#[case::octal("10.1.74.1/24", "010.1.74.1/24", &[], "is not an address")]
#[case::two("10.1.74.1/24", "10.1.74.1/24,10.1.75.1/24", &[], "is not an address")]
#[case::commands("10.1.74.1/24", "$(touch owned)", &[], "is not an address")]
#[case::no_mtu("1472", "1472;x", &[], "FLANNEL_MTU=\"1472;x\"")]
#[case::no_choice("false", "perhaps", &[], "Invalid value of FLANNEL_IPMASQ: perhaps")]
#[case::key("", "", &["-k", "a;touch owned"], "not the name of a variable")]
#[case::no_file("", "", &["-f", "none.env"], "start flanneld first")]
#[case::no_directory("", "", &["-d", "none/of/these/docker.env"], "choose another -d")]
#[case::a_directory("", "", &["-d", "/tmp"], "choose another -d")]
#[case::unknown_flag("", "", &["-x"], "OPTIONS:")]
#[case::a_word_too_many("", "", &["word"], "OPTIONS:")]
#[case::help("", "", &["-h"], "[-k COMBINED-KEY]")]
fn what_is_wrong_is_told_and_nothing_is_written(
    #[case] from: &str,
    #[case] to: &str,
    #[case] flags: &[&str],
    #[case] told: &str,
) {
    for shell in SHELLS {
        let text = if from.is_empty() { SUBNET_FILE.to_owned() } else { SUBNET_FILE.replace(from, to) };
        let place = Place::new(&text);
        fs::write(place.path("docker.env"), "as it was\n").unwrap();
        let output = place.run(shell, flags, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(told), "{shell:?}: {output:?}");
        assert_eq!(place.written(), "as it was\n");
        place.check_files(&["docker.env", "subnet.env"]);
    }
}

/// Docker would take a subnet that another host has.
#[test]
fn a_subnet_that_is_reached_by_a_gateway_is_refused() {
    let namespace = flannel_tests::namespace::Namespace::add("options").unwrap();
    namespace.ip("link add eth0 type veth peer eth1").unwrap();
    namespace.ip("address add 192.0.2.1/24 dev eth0").unwrap();
    namespace.ip("link set eth0 up").unwrap();
    namespace.ip("route add 10.1.74.0/25 via 192.0.2.2").unwrap();
    let place = Place::new(SUBNET_FILE);
    let run = |path: &Path| {
        let mut command = namespace.command("dash").unwrap();
        command.arg(SCRIPT).arg("-f").arg(path).args(["-d", "/dev/stdout"]).output().unwrap()
    };
    let file = place.path("subnet.env");
    assert!(run(&file).status.success(), "another subnet is none of its business");
    namespace.ip("route add 10.1.74.0/24 via 192.0.2.2").unwrap();
    let output = run(&file);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("already contains the subnet: 10.1.74.0/24"), "{said}");
}
