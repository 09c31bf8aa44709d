//! Obeys policies of IPsec: which programs are loaded depends on whether one concerns packets of the tunnel.

use std::net::IpAddr;
use std::sync::Arc;

use flannel_common::maps::Carrier;
use flannel_control::kernel::{Kernel as _, KernelError};
use flannel_datapath::{Datapath, PinDir, Spec};
use flannel_model::object::Object;

use super::Host;
use super::policies::{AgainstPolicy, Concerned, carried_by};

impl Host {
    /// Loads the programs of `spec` so that no policy is passed by which concerns packets to and from `peers`. Returns
    /// the policy, if there is one, for which no packet is carried.
    pub(super) fn load(
        &mut self,
        pins: &Arc<PinDir>,
        spec: &Spec,
        peers: impl Iterator<Item = IpAddr>,
    ) -> Result<Option<AgainstPolicy>, KernelError> {
        let concerned = self.policies.concerned(spec, peers);
        let carrier = concerned.as_ref().map_or(Carrier::Programs, Concerned::carrier);
        if self.datapath.is_none() || self.wanted.as_ref() != Some(spec) || carrier != self.carrier {
            let spec = carried_by(spec, carrier);
            self.datapath =
                Some(Datapath::start(pins.clone(), spec, self.arrival).map_err(KernelError::refused)?);
            self.carrier = carrier;
        }
        Ok(self.policies.tell(concerned).err())
    }

    /// The same for the programs that are loaded, for their peers and `more`.
    pub(super) fn obey(&mut self, more: &[IpAddr]) -> Result<Option<AgainstPolicy>, KernelError> {
        if let Some(wanted) = &mut self.wanted {
            wanted.uplinks.clone_from(&self.uplinks);
        }
        let (Some(pins), Some(spec)) = (self.settings.pins.clone(), self.wanted.clone()) else {
            return Ok(None);
        };
        let mut peers = more.to_vec();
        if let Some(datapath) = self.datapath.as_mut().filter(|_| !self.policies.are_none()) {
            let known = datapath.tables().peers().map_err(KernelError::refused)?;
            peers.extend(known.into_values().map(|peer| IpAddr::V4(peer.public_ip)));
        }
        self.load(&pins, &spec, peers.into_iter())
    }

    /// The same before the peers among `objects` are put there.
    pub(super) async fn obey_before(&mut self, objects: &[Object]) -> Result<(), KernelError> {
        let address = |object: &Object| match object {
            Object::Peer { public_ip, .. } => Some(*public_ip),
            _ => None,
        };
        let arriving: Vec<IpAddr> = objects.iter().filter_map(address).collect();
        if arriving.is_empty() || self.policies.are_none() {
            return Ok(());
        }
        let before = self.carrier;
        self.obey(&arriving)?;
        // The programs at the pods' ports are other ones now.
        if self.carrier == before { Ok(()) } else { self.find_pods().await }
    }
}
