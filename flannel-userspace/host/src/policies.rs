//! Policies of IPsec that concern the tunnel: programs send and take its packets beside the stack, which would ask them.

use std::io;
use std::net::IpAddr;

use flannel_common::flow::Bypass;
use flannel_common::maps::{Carrier, Node};
use flannel_datapath::{Format, Spec};
use flannel_net::xfrm::{self, Policy, PolicyMonitor, Tunnel};
use flannel_observe::Limitation;
use tracing::{info, warn};

/// The policies as they were last read, and what follows from them.
pub(super) struct Policies {
    monitor: PolicyMonitor,
    known: Vec<Policy>,
    limitation: Limitation,
    /// Why they cannot be read.
    trouble: Option<String>,
}

/// A policy concerns packets of the tunnel, and there is no way by which it would be obeyed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the IPsec policy `{policy}` concerns tunnel packets to and from {peer}, and the udp backend has no device of the \
     kernel by which it would be obeyed: no tunnel packet is sent or taken; use the vxlan backend, or take the policy \
     away with `{}`",
    policy.remedy()
)]
pub(super) struct AgainstPolicy {
    policy: Policy,
    peer: IpAddr,
}

impl Policies {
    pub(super) fn open(limitation: Limitation) -> io::Result<Self> {
        let monitor = PolicyMonitor::open()?;
        Ok(Self { monitor, known: Vec::new(), limitation, trouble: None })
    }

    /// Waits until one comes, goes or changes.
    pub(super) async fn changed(&mut self) {
        self.monitor.changed().await;
    }

    /// Whether they are others than were last read.
    pub(super) fn are_outdated(&self) -> bool {
        xfrm::policies().is_ok_and(|now| now != self.known)
    }

    /// Reads them. While they cannot be read, those of the last time are obeyed.
    pub(super) fn read(&mut self) {
        let trouble = match xfrm::policies() {
            Ok(now) => {
                self.known = now;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = trouble.as_ref().filter(|_| self.trouble != trouble) {
            warn!(error, "cannot read the policies of IPsec; trying again");
        }
        self.trouble = trouble;
    }

    pub(super) const fn are_none(&self) -> bool {
        self.known.is_empty()
    }

    /// The policy that concerns packets of the tunnel of `spec` to and from one of `peers`, if there is one.
    pub(super) fn concerned(&self, spec: &Spec, peers: impl Iterator<Item = IpAddr>) -> Option<Concerned> {
        let format = spec.format?;
        let tunnel = Tunnel {
            local: spec.node.local_ip.into(),
            port: u16::try_from(spec.node.port).unwrap_or_default(),
        };
        let (policy, peer) = xfrm::first_concerned(&self.known, tunnel, peers)?;
        Some(Concerned { format, policy, peer })
    }

    /// Tells of it, once it is obeyed. The error says that nothing is carried for its sake.
    pub(super) fn tell(&self, concerned: Option<Concerned>) -> Result<(), AgainstPolicy> {
        let reason = concerned.as_ref().filter(|concerned| concerned.carrier() == Carrier::Stack).map(|concerned| {
            let Concerned { policy, peer, .. } = concerned;
            format!(
                "the IPsec policy `{policy}` concerns tunnel packets to and from {peer}, so the kernel's vxlan device and \
                 the stack carry all of them, more slowly; `{}` takes the policy away",
                policy.remedy()
            )
        });
        if self.limitation.set(reason.iter().cloned().collect()) {
            match reason {
                Some(reason) => warn!("programs no longer carry the tunnel's packets: {reason}"),
                None => {
                    info!("no IPsec policy concerns the tunnel any more: programs carry its packets again");
                }
            }
        }
        match concerned {
            Some(Concerned { format: Format::Udp { .. }, policy, peer }) => {
                Err(AgainstPolicy { policy, peer })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A policy, and what it concerns.
pub(super) struct Concerned {
    format: Format,
    policy: Policy,
    peer: IpAddr,
}

impl Concerned {
    /// Who may carry the packets then.
    pub(super) const fn carrier(&self) -> Carrier {
        match self.format {
            Format::Vxlan => Carrier::Stack,
            Format::Udp { .. } => Carrier::Nobody,
        }
    }
}

/// The same with another carrier. Unless programs are that, no flow bypasses the stack.
pub(super) fn carried_by(spec: &Spec, carrier: Carrier) -> Spec {
    let bypass = if carrier == Carrier::Programs { spec.node.bypass } else { Bypass::Off as u32 };
    Spec { node: Node { carrier: carrier as u16, bypass, ..spec.node }, ..spec.clone() }
}
