//! What a container runtime leaves a daemon of, where the manifest is one that was made for stock flannel.

use std::path::Path;

/// The release of stock flannel whose manifest it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// 0.13: `/run/flannel` alone is the host's, and the image can be written to.
    Of0_13,
    /// 0.20 to 0.28: `/run/xtables.lock`, too; and here the image cannot be written to.
    Of0_28,
}

/// Makes the mounts, gives up every capability but those of stock's manifests, and becomes the command. `$1` is the
/// directory that stays writable, `$2` whether everything else does. The host's `/run`, its BPF file system, state and
/// machine id are not the container's, and settings of the kernel are read-only.
const ENTER: &str = r#"
set -e
files=$1 image=$2
shift 2
mkdir -p /run/flannel
mount --bind "$files" "$files"
mount --bind /run/flannel /mnt
mount -t tmpfs run /run
mkdir /run/flannel
mount --move /mnt /run/flannel
mount -t tmpfs -o ro nothing /sys/fs/bpf
mount -t tmpfs state /var/lib
mount --bind /dev/null /etc/machine-id
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
if [ "$image" = read-only ]; then
    touch /run/xtables.lock
    mount --bind /run/xtables.lock /run/xtables.lock
    for place in /run /var/lib /; do mount -o remount,bind,ro "$place"; done
fi
exec setpriv --bounding-set=-all,+net_admin,+net_raw --inh-caps=-all --ambient-caps=-all "$@"
"#;

impl Manifest {
    /// The words before a command that run it so; of files it keeps `directory`.
    #[must_use]
    pub fn words(self, directory: &Path) -> Vec<String> {
        let image = if self == Self::Of0_13 { "writable" } else { "read-only" };
        let directory = directory.display().to_string();
        ["unshare", "--mount", "--propagation=private", "sh", "-c", ENTER, "container", &directory, image]
            .map(str::to_owned)
            .to_vec()
    }
}
