//! The machine that qemu plays.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace;

/// The qemu program.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// A device beside those that every guest has, with what qemu calls its backend.
#[derive(Clone, Debug)]
pub struct Device {
    /// For example `stream,id=card,…`, what follows `-netdev`.
    pub netdev: String,
    /// For example `virtio-net-pci,netdev=card,mq=on,romfile=`, what follows `-device`. A device with a boot ROM needs
    /// `romfile=`: the ROMs may not be installed.
    pub device: String,
}

/// What the machine is.
#[derive(Clone, Debug, clap::Args)]
pub struct Machine {
    /// The guest's memory, which also holds its files
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    pub memory: u32,
    /// The guest's processors
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: u32,
    /// Runs guests by the processor itself (/dev/kvm) and not by emulation
    #[arg(long)]
    pub kvm: bool,
}

/// Tells the kernel to boot without a word, to end the guest where it panics or oopses, and to trust a slow clock.
/// Mitigations stay as they are: they decide what the kernel's verifier admits.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 oops=panic printk.devkmsg=on tsc=unstable nokaslr random.trust_cpu=on rdinit=/init";

impl Machine {
    /// The command that boots `image`. The console and each of `ports`, by its name, are connected to the socket of
    /// that name in `sockets`.
    pub fn command(
        &self,
        image: &Path,
        initramfs: &Path,
        sockets: &Path,
        ports: &[&str],
        devices: &[Device],
    ) -> Command {
        // However this process ends, the guest does, too.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL", "--"])
            .arg(workspace::find(PROGRAM).unwrap_or_else(|| PROGRAM.into()));
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35"]);
        qemu.args(if self.kvm { KVM } else { TCG });
        qemu.args(["-smp", &self.cpus.to_string(), "-m", &format!("{}M", self.memory)]);
        qemu.arg("-kernel").arg(image).arg("-initrd").arg(initramfs).args(["-append", KERNEL_COMMAND_LINE]);
        let socket = |name: &str| format!("socket,id={name},path={}", sockets.join(name).display());
        qemu.args(["-chardev", &socket(CONSOLE), "-serial", &format!("chardev:{CONSOLE}")]);
        qemu.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        for name in ports {
            qemu.args(["-chardev", &socket(name)]);
            qemu.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
        }
        for Device { netdev, device } in devices {
            qemu.args(["-netdev", netdev, "-device", device]);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        qemu
    }
}

const KVM: [&str; 4] = ["-accel", "kvm", "-cpu", "host"];
/// cmpxchg16b as qemu 7.2 emulates it damages the free lists of the kernel's `SLUB`, which uses it since 6.5
/// (`this_cpu_try_cmpxchg_freelist`) where the processor has it: most boots of some kernels then panic.
const TCG: [&str; 4] = ["-accel", "tcg,thread=multi", "-cpu", "qemu64,+rdrand,-cx16"];

/// The name of the kernel's console among sockets.
pub const CONSOLE: &str = "console";

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Device, KERNEL_COMMAND_LINE, Machine};
    use crate::step;

    #[test]
    fn ports_and_devices_are_connected() {
        let machine = Machine { memory: 512, cpus: 4, kvm: false };
        let device = Device {
            netdev: "tap,id=card,ifname=t0".to_owned(),
            device: "virtio-net-pci,netdev=card,romfile=".to_owned(),
        };
        let [image, initramfs, sockets] = ["/image", "/initramfs", "/s"].map(Path::new);
        let command = step::shown(&machine.command(image, initramfs, sockets, &["status"], &[device]));
        for words in [
            "-smp 4 -m 512M -kernel /image -initrd /initramfs",
            "-chardev socket,id=console,path=/s/console -serial chardev:console",
            "-chardev socket,id=status,path=/s/status -device virtserialport,chardev=status,name=status",
            "-netdev tap,id=card,ifname=t0 -device virtio-net-pci,netdev=card,romfile=",
        ] {
            assert!(command.contains(words), "{words} in {command}");
        }
    }

    #[test]
    fn mitigations_stay() {
        assert!(!KERNEL_COMMAND_LINE.contains("mitigations"));
    }
}
