//! A host outside the kernel: a packet with what is known of its path, and what is learned.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use flannel_common::flow::{BypassEntry, Connection, Flow, FlowKey, IngressState, ticks};
use flannel_common::{Mac, Reason};
use flannel_ebpf::flows::{Entry, Flows};
use flannel_ebpf::frame::{Encapsulation, FlowFrame, Frame};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A packet at a hook.
#[derive(Clone)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub segment_len: u32,
    pub interface: u32,
    pub received_by: u32,
    pub mark: u32,
}

impl Packet {
    pub fn at(interface: u32, bytes: Vec<u8>) -> Self {
        Self { bytes, segment_len: 0, interface, received_by: interface, mark: 0 }
    }
}

pub const MTU: u32 = 1450;
pub const PRIORITY: u32 = 6;

impl Frame for Packet {
    fn len(&self) -> u32 {
        Frame::len(&self.bytes)
    }

    fn load<T: FromBytes>(&self, offset: u32) -> Result<T, Reason> {
        self.bytes.load(offset)
    }

    fn store<T: IntoBytes + Immutable>(&mut self, offset: u32, value: &T) -> Result<(), Reason> {
        self.bytes.store(offset, value)
    }

    fn remove(&mut self, encapsulation: Encapsulation) -> Result<(), Reason> {
        Frame::remove(&mut self.bytes, encapsulation)
    }
}

impl FlowFrame for Packet {
    fn segment_len(&self) -> u32 {
        self.segment_len
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn received_by(&self) -> u32 {
        self.received_by
    }

    fn mtu(&self) -> u32 {
        MTU
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn priority(&self) -> u32 {
        PRIORITY
    }
}

/// What is learned, and a clock that is set by hand.
pub struct Memory {
    pub flows: RefCell<HashMap<FlowKey, Rc<Cell<Flow>>>>,
    pub approved: RefCell<HashSet<Connection>>,
    pub announced: RefCell<Vec<Connection>>,
    pub stations: RefCell<HashSet<(u32, Mac)>>,
    pub now: Cell<u64>,
    pub generation: Cell<u32>,
}

impl Memory {
    pub fn new() -> Self {
        Self {
            flows: RefCell::default(),
            approved: RefCell::default(),
            announced: RefCell::default(),
            stations: RefCell::default(),
            now: Cell::new(1_000_000_000),
            generation: Cell::new(1),
        }
    }

    pub fn pass(&self, nanoseconds: u64) {
        self.now.set(self.now.get() + nanoseconds);
    }
}

impl Flows for Memory {
    type Entry = Slot;

    fn find(&self, key: &FlowKey) -> Option<Slot> {
        self.flows.borrow().get(key).cloned().map(Slot)
    }

    fn begin(&self, key: &FlowKey, _now: u64) -> Option<Slot> {
        self.flows.borrow_mut().insert(*key, Rc::new(Cell::new(Flow::default())));
        self.find(key)
    }

    fn forget(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
        self.approved.borrow_mut().remove(&key.connection());
    }

    fn is_approved(&self, connection: &Connection) -> bool {
        self.approved.borrow().contains(connection)
    }

    fn is_behind(&self, port: u32, station: Mac) -> bool {
        self.stations.borrow().contains(&(port, station))
    }

    fn announce(&self, connection: &Connection) {
        self.announced.borrow_mut().push(*connection);
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn generation(&self) -> u32 {
        self.generation.get()
    }
}

pub struct Slot(Rc<Cell<Flow>>);

impl Entry for Slot {
    fn get(&self) -> Flow {
        self.0.get()
    }

    fn is_of(&self, _key: &FlowKey) -> bool {
        true
    }

    fn enter(&self, entered: &IngressState, in_stack: u16, behind: u16) {
        self.0.set(Flow { entered: *entered, in_stack, behind, ..self.0.get() });
    }

    fn contest(&self, now: u64) {
        let flow = self.0.get();
        let left = BypassEntry { until: 0, ..flow.left };
        self.0.set(Flow { left, contested: ticks(now).max(1), ..flow });
    }

    fn drain(&self, in_stack: u16) {
        self.0.set(Flow { in_stack, ..self.0.get() });
    }

    fn finish_sample(&self) {
        let Flow { entered, .. } = self.0.get();
        self.0.set(Flow { entered: IngressState { fingerprint: 0, ..entered }, ..self.0.get() });
    }

    fn leave(&self, left: &BypassEntry) {
        self.0.set(Flow { left: *left, ..self.0.get() });
    }
}
