//! Which machine this is.

use std::fs;

use flannel_common::Mac;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What the machine's identifier is hashed with, so that the result says nothing of the identifier: machine-id(5) wants
/// it kept confidential, and other hosts and the registry read the result.
const APPLICATION: [u8; 16] = *b"flannel-ebpf\x00\x00\x00\x01";

/// Bytes of the hash that are used, as many as the identifier has.
const LEN: usize = 16;

/// Which machine this is: two hosts never have both the same identifier and the same Ethernet address, even if one is a
/// copy of the other, and a host keeps them over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity(String);

impl Identity {
    /// The identity of a host whose underlay has this Ethernet address.
    #[must_use]
    pub fn of(mac: Mac) -> Self {
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Self::from_machine_id(machine.trim(), mac)
    }

    fn from_machine_id(machine: &str, mac: Mac) -> Self {
        match hashed(machine) {
            Some(machine) => Self(format!("machine {machine} with Ethernet address {mac}")),
            None => Self(format!("machine without identifier with Ethernet address {mac}")),
        }
    }

    /// As other hosts see it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The identifier by a keyed hash, as `sd_id128_get_machine_app_specific(3)` has it; nothing where there is none.
fn hashed(machine: &str) -> Option<String> {
    let key = hex::decode(machine).ok().filter(|key| !key.is_empty())?;
    let mut hash = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    hash.update(&APPLICATION);
    Some(hex::encode(&hash.finalize().into_bytes()[..LEN]))
}

#[cfg(test)]
mod tests {
    use flannel_common::Mac;

    use super::Identity;

    const MACHINE: &str = "0123456789abcdef0123456789abcdef";
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    #[test]
    fn the_identifier_of_the_machine_is_not_told() {
        let identity = Identity::from_machine_id(MACHINE, MAC);
        assert!(!identity.as_str().contains("0123456789"), "{identity:?}");
        assert!(identity.as_str().ends_with("with Ethernet address 02:00:00:00:00:01"), "{identity:?}");
        assert_eq!(identity, Identity::from_machine_id(MACHINE, MAC), "it stays the same");
    }

    #[test]
    fn copies_differ_by_their_card_and_machines_by_their_identifier() {
        let of = |machine, last| Identity::from_machine_id(machine, Mac([2, 0, 0, 0, 0, last]));
        assert_ne!(of(MACHINE, 1), of(MACHINE, 2));
        assert_ne!(of(MACHINE, 1), of("1123456789abcdef0123456789abcdef", 1));
        assert_ne!(of("", 1), of("", 2));
        assert_eq!(of("uninitialized", 1), of("", 1), "systemd writes that before the first boot is over");
    }
}
