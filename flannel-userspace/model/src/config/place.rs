//! Where what belongs to one network is kept unless the operator says otherwise: programs and maps, and the last
//! known leases.

use std::path::{Path, PathBuf};

/// What every key in etcd begins with unless the user says otherwise: stock flannel's default.
pub const DEFAULT_ETCD_PREFIX: &str = "/coreos.com/network";

/// The directory of everything pinned by flannel-ebpf.
const ROOT: &str = "/sys/fs/bpf/flannel";

/// The pin directory of the network below `etcd_prefix`: two networks on one host never meet in one directory.
#[must_use]
pub fn default_pin_dir(etcd_prefix: &str) -> PathBuf {
    Path::new(ROOT).join(name_of(etcd_prefix))
}

/// The directory of what outlives a reboot.
const STATE: &str = "/var/lib/flannel-ebpf";

/// The file of the last known leases of the network below `etcd_prefix`.
#[must_use]
pub fn default_state_file(etcd_prefix: &str) -> PathBuf {
    Path::new(STATE).join(format!("{}.json", name_of(etcd_prefix)))
}

/// The directory of what ends with a reboot: sockets and locks.
pub const RUN_DIR: &str = "/run/flannel";

/// The control socket of a daemon that serves the network below `etcd_prefix` in the network namespace of that number:
/// there is at most one such daemon on a machine, and every namespace may have one, also where they share `/run`.
#[must_use]
pub fn control_socket(etcd_prefix: &str, network_namespace: u64) -> PathBuf {
    Path::new(RUN_DIR).join(format!("{}@{network_namespace}.sock", name_of(etcd_prefix)))
}

/// Whether a file of this name in [`RUN_DIR`] is the control socket of a daemon in the network namespace of that number,
/// whichever network it serves.
#[must_use]
pub fn is_control_socket(name: &str, network_namespace: u64) -> bool {
    let number = name.strip_suffix(".sock").and_then(|name| name.rsplit_once('@')).map(|(_, number)| number);
    number == Some(network_namespace.to_string().as_str())
}

/// The file whose lock the daemon of the network below `etcd_prefix` holds in the network namespace of that number.
#[must_use]
pub fn network_lock(etcd_prefix: &str, network_namespace: u64) -> PathBuf {
    Path::new(RUN_DIR).join(format!("{}@{network_namespace}.lock", name_of(etcd_prefix)))
}

/// The file whose lock the daemon holds that has flannel's device of this name in the network namespace of that number.
/// The name of a network has no dot.
#[must_use]
pub fn device_lock(device: &str, network_namespace: u64) -> PathBuf {
    Path::new(RUN_DIR).join(format!("device.{device}@{network_namespace}.lock"))
}

/// The prefix as one name of a file. The BPF file system takes no dots; each character that cannot stand in a name
/// becomes its code, so that no two prefixes have one name.
fn name_of(etcd_prefix: &str) -> String {
    let trimmed = etcd_prefix.trim_matches('/');
    let mut name = String::new();
    for character in trimmed.chars() {
        match character {
            '/' => name.push('_'),
            _ if character.is_ascii_alphanumeric() || character == '-' => name.push(character),
            _ => name.push_str(&format!("%{:x}", u32::from(character))),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{control_socket, default_pin_dir, device_lock, is_control_socket, network_lock};

    #[test]
    fn stock_prefix() {
        let directory = default_pin_dir("/coreos.com/network");
        assert_eq!(directory.to_str(), Some("/sys/fs/bpf/flannel/coreos%2ecom_network"));
        assert_eq!(default_pin_dir("/coreos.com/network/"), directory);
    }

    #[test]
    fn a_control_socket_is_known_by_its_name() {
        for prefix in ["/coreos.com/network", "/a@b", "/"] {
            let socket = control_socket(prefix, 4_026_531_840);
            let name = socket.file_name().unwrap().to_str().unwrap();
            assert!(is_control_socket(name, 4_026_531_840), "{name}");
            assert!(!is_control_socket(name, 531_840), "{name}");
        }
        for other in ["subnet.env", "a@1.lock", "a@1", "1.sock", "@.sock"] {
            assert!(!is_control_socket(other, 1), "{other}");
        }
    }

    #[test]
    fn no_two_prefixes_share_a_directory() {
        let prefixes = ["/a/b", "/a_b", "/a.b", "/a%b", "/a-b", "/ab", "/a/b/c", "/é"];
        let directories: BTreeSet<_> = prefixes.iter().map(|prefix| default_pin_dir(prefix)).collect();
        assert_eq!(directories.len(), prefixes.len());
        assert!(directories.iter().all(|path| path.components().count() == 6));
    }

    #[test]
    fn every_network_and_namespace_has_a_socket_of_its_own() {
        let socket = control_socket("/coreos.com/network", 4_026_531_840);
        assert_eq!(socket.to_str(), Some("/run/flannel/coreos%2ecom_network@4026531840.sock"));
        assert_ne!(control_socket("/coreos.com/network", 1), socket);
        assert_ne!(control_socket("/other", 4_026_531_840), socket);
    }

    #[test]
    fn locks_of_networks_and_devices_never_meet() {
        let lock = network_lock("/coreos.com/network/", 1);
        assert_eq!(lock.to_str(), Some("/run/flannel/coreos%2ecom_network@1.lock"));
        assert_eq!(device_lock("flannel.1", 1).to_str(), Some("/run/flannel/device.flannel.1@1.lock"));
        assert_ne!(network_lock("/device.flannel.1", 1), device_lock("flannel.1", 1));
    }
}
