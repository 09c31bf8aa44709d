//! A packet and a table of peers outside the kernel, for tests and for tools that explain the path of a packet.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use flannel_common::maps::Peer;
use flannel_common::wire::EthernetHeader;
use flannel_common::{Ip4, Reason};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::frame::{Encapsulation, Frame, SendFrame};
use crate::peers::Peers;

const ETHERNET: usize = EthernetHeader::LEN as usize;

impl Frame for Vec<u8> {
    fn len(&self) -> u32 {
        u32::try_from(Self::len(self)).unwrap_or(u32::MAX)
    }

    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason> {
        let rest = self.get(offset as usize..).ok_or(Reason::Truncated)?;
        T::read_from_prefix(rest).map(|(value, _)| value).map_err(|_| Reason::Truncated)
    }

    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: &T) -> Result<(), Reason> {
        let rest = self.get_mut(offset as usize..).ok_or(Reason::AdjustFailed)?;
        value.write_to_prefix(rest).map_err(|_| Reason::AdjustFailed)
    }

    fn remove(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        let end = ETHERNET + encapsulation.overhead() as usize;
        if Self::len(self) < end {
            return Err(Reason::AdjustFailed);
        }
        self.drain(ETHERNET..end);
        Ok(())
    }
}

impl SendFrame for Vec<u8> {
    fn insert(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        if Self::len(self) < ETHERNET {
            return Err(Reason::AdjustFailed);
        }
        self.splice(ETHERNET..ETHERNET, (0..encapsulation.overhead()).map(|_| 0));
        Ok(())
    }

    /// Zero for every flow: the kernel's hash depends on a random key of the machine.
    fn flow_hash(&mut self) -> u32 {
        0
    }
}

/// The table of peers.
#[derive(Clone, Debug, Default)]
pub struct Table {
    peers: HashMap<Ip4, Cell<Peer>>,
    sources: HashSet<Ip4>,
}

impl Table {
    /// Makes `peer` the holder of the subnet with this first address.
    pub fn insert(&mut self, subnet: Ip4, peer: Peer) {
        self.sources.insert(peer.public_ip);
        self.peers.insert(subnet, Cell::new(peer));
    }
}

impl Peers for Table {
    fn peer(&self, subnet: Ip4) -> Option<Peer> {
        self.peers.get(&subnet).map(Cell::get)
    }

    fn is_source(&self, address: Ip4) -> bool {
        self.sources.contains(&address)
    }

    /// The first second.
    fn now(&self) -> u32 {
        1
    }

    fn note_whole(&self, subnet: Ip4, public_ip: Ip4, whole: u32) {
        if let Some(peer) = self.peers.get(&subnet).filter(|peer| peer.get().public_ip == public_ip) {
            peer.set(Peer { whole, ..peer.get() });
        }
    }
}
