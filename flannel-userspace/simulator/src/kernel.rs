//! A machine whose kernel is played: it outlives its daemons, breaks, and is changed by others.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flannel_common::Mac;
use flannel_control::kernel::{Heard, Kernel, KernelError, NodeContext};
use flannel_model::device::{Device, DeviceSpec, Segmenter};
use flannel_model::family::{PerFamily, Subnets};
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::VxlanFormat;
use ipnetwork::IpNetwork;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::Notify;

/// Index of the underlay's interface.
const UNDERLAY: u32 = 2;

/// A machine. Clones are the same one.
#[derive(Clone)]
pub struct Machine {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// What the kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing.
    None,
    /// One request in three, whatever it is.
    Some,
    /// Every device.
    Devices,
    /// Every program.
    Programs,
}

struct State {
    /// `None` if the interface has lost its address.
    underlay: Option<Underlay>,
    /// Flannel's own devices.
    devices: Vec<Own>,
    /// Index of the one by which packets leave.
    present: Option<u32>,
    /// Index of that of the former format of VXLAN.
    former: Option<u32>,
    address: Option<IpAddr>,
    last_index: u32,
    objects: BTreeSet<Object>,
    /// What programs forward over.
    built_for: Option<Links>,
    is_attached: bool,
    changes: VecDeque<Change>,
    refusal: Refusal,
    /// One that is never taken.
    refused: Option<Object>,
    puts: usize,
    /// What daemons removed lately.
    removed: BTreeSet<Object>,
    /// The last byte of its Ethernet address, which no other machine has.
    number: u8,
    dice: StdRng,
}

/// Whether what a daemon knows leads the same way as what there is. One that was killed may know nothing of a former
/// device, which is then left.
pub fn are_same_way(known: &Links, is: Links) -> bool {
    let former = if known.former.v4.is_some() { is.former } else { PerFamily::NONE };
    known.are_same_way(&Links { former, ..is })
}

/// A device of flannel's.
#[derive(Clone)]
struct Own {
    device: Device,
    format: Option<VxlanFormat>,
}

impl Machine {
    /// A machine with that underlay.
    pub fn new(underlay: Underlay, seed: u64) -> Self {
        let state = State {
            number: underlay.mac.0[5],
            underlay: Some(underlay),
            devices: Vec::new(),
            present: None,
            former: None,
            address: None,
            last_index: 10,
            objects: BTreeSet::new(),
            built_for: None,
            is_attached: true,
            changes: VecDeque::new(),
            refusal: Refusal::None,
            refused: None,
            puts: 0,
            removed: BTreeSet::new(),
            dice: StdRng::seed_from_u64(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), changed: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, change: Change) {
        self.state().changes.push_back(change);
        self.changed.notify_one();
    }

    /// The kernel for a daemon that starts.
    pub fn kernel(&self) -> Simulated {
        self.state().changes.clear();
        Simulated(self.clone())
    }

    /// What the kernel refuses from now on.
    pub fn set_refusal(&self, refusal: Refusal) {
        self.state().refusal = refusal;
    }

    /// Gives the underlay's interface another address, or none.
    pub fn set_underlay(&self, underlay: Option<Underlay>) {
        let index = {
            let mut state = self.state();
            let index = underlay.as_ref().or(state.underlay.as_ref()).map_or(0, |underlay| underlay.index);
            state.underlay = underlay;
            index
        };
        self.announce(Change::Interface(index));
    }

    /// Does not take `object` from now on.
    pub fn refuse(&self, object: Object) {
        self.state().refused = Some(object);
    }

    /// The underlay, if there is one.
    pub fn underlay(&self) -> Option<Underlay> {
        self.state().underlay.clone()
    }

    /// The links as they are, if there is an underlay.
    pub fn links(&self) -> Option<Links> {
        let state = self.state();
        state.links()
    }

    /// Deletes flannel's device with everything on it.
    pub fn delete_device(&self) {
        let gone = {
            let mut state = self.state();
            let gone = state.present.take();
            if let Some(index) = gone {
                state.remove_device(index);
                state.address = None;
            }
            gone
        };
        if let Some(index) = gone {
            self.announce(Change::Interface(index));
        }
    }

    /// Detaches the programs, which nobody announces.
    pub fn detach(&self) {
        self.state().is_attached = false;
    }

    /// Removes one of the objects, whichever `choice` falls on; returns it.
    pub fn remove_any(&self, choice: usize) -> Option<Object> {
        let object = {
            let mut state = self.state();
            let netlink: Vec<Object> =
                state.objects.iter().filter(|object| on(object).is_some()).cloned().collect();
            let object = netlink.get(choice.checked_rem(netlink.len())?)?.clone();
            state.objects.remove(&object);
            object
        };
        self.announce(Change::Object { object: object.clone(), present: false });
        Some(object)
    }

    /// Removes an object.
    pub fn remove(&self, object: &Object) {
        if self.state().objects.remove(object) {
            self.announce(Change::Object { object: object.clone(), present: false });
        }
    }

    /// Adds something that looks like ours.
    pub fn add(&self, object: Object) {
        self.state().objects.insert(object.clone());
        self.announce(Change::Object { object, present: true });
    }

    /// Everything of ours.
    pub fn objects(&self) -> BTreeSet<Object> {
        self.state().objects.clone()
    }

    /// The address of flannel's device.
    pub fn address(&self) -> Option<IpAddr> {
        self.state().address
    }

    /// The links programs forward over, if they are attached.
    pub fn built_for(&self) -> Option<Links> {
        let state = self.state();
        state.built_for.clone().filter(|_| state.is_attached)
    }

    /// What daemons have removed since this was asked last.
    pub fn take_removed(&self) -> BTreeSet<Object> {
        std::mem::take(&mut self.state().removed)
    }

    /// How many objects were put so far.
    pub fn puts(&self) -> usize {
        self.state().puts
    }
}

/// The interface an object is on; nothing for an entry of the programs' table.
fn on(object: &Object) -> Option<u32> {
    match object {
        Object::Neighbour { device, .. } | Object::Fdb { device, .. } | Object::Route { device, .. } => {
            Some(*device)
        }
        Object::Peer { .. } => None,
    }
}

/// The kernel of a machine, for its daemon.
pub struct Simulated(Machine);

impl State {
    fn refuse(&mut self) -> Result<(), KernelError> {
        if self.refusal == Refusal::Some && self.dice.random_ratio(1, 3) {
            return Err(KernelError::refused("the kernel refuses"));
        }
        Ok(())
    }

    fn links(&self) -> Option<Links> {
        let device = |index: Option<u32>| PerFamily {
            v4: index.and_then(|index| self.device(index)).cloned(),
            v6: None,
        };
        let (devices, former) = (device(self.present), device(self.former));
        self.underlay.clone().map(|underlay| Links { underlay, devices, former })
    }

    fn device(&self, index: u32) -> Option<&Device> {
        self.devices.iter().map(|own| &own.device).find(|device| device.index == index)
    }

    fn remove_device(&mut self, index: u32) {
        self.devices.retain(|own| own.device.index != index);
        self.objects.retain(|object| on(object) != Some(index));
    }

    /// The device of that specification, made if there is none of its format. One of another format that has its name is
    /// renamed: the kernel's device would be replaced, or makes room before.
    fn ensure(&mut self, spec: &DeviceSpec) -> Device {
        let (mac, format) = match spec {
            DeviceSpec::Vxlan(spec) => (spec.mac, Some(VxlanFormat { vni: spec.vni, port: spec.port })),
            DeviceSpec::Udp { .. } => (None, None),
        };
        if let Some(Own { device, .. }) = self.devices.iter_mut().find(|own| own.format == format) {
            device.mtu = spec.mtu();
            device.mac = mac.unwrap_or(device.mac);
            device.name = spec.name();
            return device.clone();
        }
        self.last_index += 3;
        let index = self.last_index;
        // Random addresses of two hosts are never the same in practice.
        let random = Mac([2, 0, 0, self.number, self.dice.random(), self.dice.random()]);
        let segmenter = match spec {
            DeviceSpec::Udp { .. } => Some(Segmenter { entrance: index + 1, exit: index + 2 }),
            DeviceSpec::Vxlan(_) => None,
        };
        let device =
            Device { name: spec.name(), index, mac: mac.unwrap_or(random), mtu: spec.mtu(), segmenter };
        self.devices.push(Own { device: device.clone(), format });
        device
    }

    fn put(&mut self, object: &Object) -> Result<(), KernelError> {
        self.refuse()?;
        if self.refused.as_ref() == Some(object) {
            return Err(KernelError::refused("the kernel refuses"));
        }
        let index = on(object);
        let exists = |index| {
            self.device(index).is_some()
                || self.underlay.as_ref().is_some_and(|underlay| underlay.index == index)
        };
        if index.is_some_and(|index| !exists(index)) {
            return Err(KernelError::MissingDevice("no such device".into()));
        }
        let (first, last) = object.place();
        let before: Vec<Object> = self.objects.range(first..=last).cloned().collect();
        before.iter().for_each(|before| {
            self.objects.remove(before);
        });
        self.puts += 1;
        self.objects.insert(object.clone());
        Ok(())
    }
}

impl Kernel for Simulated {
    async fn underlay(&mut self, _: Option<&Underlay>) -> Result<Underlay, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        state.underlay.clone().ok_or_else(|| KernelError::NoUnderlay("no address".into()))
    }

    async fn find_device(&mut self, spec: &DeviceSpec) -> Result<Option<Device>, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        Ok(state.devices.iter().map(|own| &own.device).find(|device| device.name == spec.name()).cloned())
    }

    async fn claim(&mut self, _: &str) -> Result<(), KernelError> {
        self.0.state().refuse()
    }

    async fn keep_former(&mut self, former: &DeviceSpec, _: &DeviceSpec) -> Result<Device, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        if state.refusal == Refusal::Devices {
            return Err(KernelError::refused("no device can be had"));
        }
        let device = state.ensure(former);
        state.former = Some(device.index);
        Ok(device)
    }

    async fn remove_former(&mut self, former: &Device) -> Result<(), KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        state.remove_device(former.index);
        state.former = state.former.filter(|index| *index != former.index);
        Ok(())
    }

    /// Everybody has sent something just now, as the present configuration wants it.
    fn heard(&mut self, _: &Subnets) -> Result<Vec<Heard>, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        let heard = |object: &Object| match object {
            Object::Peer { subnet, format, .. } => {
                Some(Heard { subnet: *subnet, last: Some(Duration::ZERO), former: None, sent: *format })
            }
            _ => None,
        };
        Ok(state.objects.iter().filter_map(heard).collect())
    }

    async fn ensure_device(&mut self, spec: &DeviceSpec) -> Result<Device, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        if state.refusal == Refusal::Devices {
            return Err(KernelError::refused("no device can be had"));
        }
        let device = state.ensure(spec);
        state.present = Some(device.index);
        Ok(device)
    }

    async fn ensure_address(&mut self, _: &Device, own: IpAddr, _: IpNetwork) -> Result<(), KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        state.address = Some(own);
        Ok(())
    }

    fn build(&mut self, _: &NodeContext, links: &Links) -> Result<(), KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        if state.refusal == Refusal::Programs {
            return Err(KernelError::refused("no program can be had"));
        }
        if state.links().is_none_or(|is| !are_same_way(links, is)) {
            return Err(KernelError::MissingDevice("no such device".into()));
        }
        state.built_for = Some(links.clone());
        state.is_attached = true;
        Ok(())
    }

    fn hold(&mut self) -> Result<(), KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        if !state.is_attached && state.refusal == Refusal::Programs {
            return Err(KernelError::refused("no program can be had"));
        }
        state.is_attached = true;
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.0.state().is_attached
    }

    fn has_programs(&self) -> bool {
        true
    }

    async fn find_pods(&mut self) -> Result<(), KernelError> {
        self.0.state().refuse()
    }

    fn take_over(&mut self) -> Result<(), KernelError> {
        self.0.state().refuse()
    }

    async fn list(&mut self, _: &Subnets) -> Result<Vec<Object>, KernelError> {
        let mut state = self.0.state();
        state.refuse()?;
        Ok(state.objects.iter().cloned().collect())
    }

    async fn put(&mut self, objects: &[Object]) -> Vec<(Object, KernelError)> {
        tokio::task::yield_now().await;
        let mut state = self.0.state();
        let refused = |object: &Object| state.put(object).err().map(|error| (object.clone(), error));
        objects.iter().filter_map(refused).collect()
    }

    async fn remove(&mut self, objects: &[Object]) -> Vec<(Object, KernelError)> {
        tokio::task::yield_now().await;
        let mut state = self.0.state();
        let mut refused = Vec::new();
        for object in objects {
            match state.refuse() {
                Ok(()) => {
                    state.objects.remove(object);
                    state.removed.insert(object.clone());
                }
                Err(error) => refused.push((object.clone(), error)),
            }
        }
        refused
    }

    async fn hops(&self, addresses: &[IpAddr], _: &Underlay) -> Result<Vec<Hop>, KernelError> {
        self.0.state().refuse()?;
        Ok(vec![Hop::Link; addresses.len()])
    }

    async fn change(&mut self) -> Change {
        loop {
            if let Some(change) = self.0.state().changes.pop_front() {
                return change;
            }
            self.0.changed.notified().await;
        }
    }
}

/// The underlay of a host after this number of moves.
pub fn underlay(host: usize, moves: u8) -> Underlay {
    let third = u8::try_from(host + 1).unwrap_or(u8::MAX);
    let address = Ipv4Addr::new(192, 168, third, 10 + moves);
    Underlay {
        name: "eth0".to_owned(),
        index: UNDERLAY,
        vrf: None,
        mtu: 1500,
        mac: Mac([2, 2, 0, 0, 0, third]),
        addresses: address.into(),
        public: address.into(),
        networks: Vec::new(),
    }
}
