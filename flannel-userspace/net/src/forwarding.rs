//! Whether the host forwards packets of IPv4. The kernel asks the interface by which a packet came
//! (`ip_route_input_slow`, `IN_DEV_FORWARD`); `net.ipv4.ip_forward` sets all of them, and what new ones begin with.

use std::fs;
use std::io;

const ALL: &str = "/proc/sys/net/ipv4/ip_forward";

/// Those of `interfaces` that are there and do not forward what comes by them. In the calling thread's network
/// namespace.
#[must_use]
pub fn not_forwarding<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let is_off = |name: &&str| fs::read_to_string(of(name)).is_ok_and(|value| value.trim() == "0");
    interfaces.into_iter().filter(is_off).collect()
}

/// Has every interface forward, and those that come.
///
/// # Errors
/// The setting cannot be written, as in a container that sees /proc/sys read-only.
pub fn forward() -> io::Result<()> {
    fs::write(ALL, "1")
}

fn of(interface: &str) -> String {
    format!("/proc/sys/net/ipv4/conf/{interface}/forwarding")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{forward, not_forwarding, of};
    use crate::namespace::{ip, on_host};

    #[test]
    fn every_interface_that_does_not_forward_is_found() {
        on_host(async |_, _| {
            ip("link add cni0 type bridge");
            let off = || not_forwarding(["cni0", "eth0", "docker0"]);
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
            assert_eq!(off(), ["cni0", "eth0"]);
            forward().unwrap();
            assert!(off().is_empty());
            fs::write(of("cni0"), "0").unwrap();
            assert_eq!(off(), ["cni0"]);
        });
    }
}
