//! The kernel as the control plane sees it: an interface that carries packets, a device, objects, programs.
//!
//! Everything the control plane does to a host goes through [`Kernel`], so that it can run against a simulated one.

use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use flannel_model::device::{Device, DeviceSpec};
use flannel_model::family::Subnets;
use flannel_model::object::{Change, Object};
use flannel_model::underlay::{Hop, Links, Underlay};
use flannel_model::vxlan::VxlanFormat;
use ipnetwork::IpNetwork;

use crate::backend::{Backend, Unsuitable};

/// What this host is in the network.
#[derive(Debug)]
pub struct NodeContext {
    /// What a peer becomes.
    pub backend: Box<dyn Backend>,
    /// The whole network of each family that is served.
    pub networks: Subnets,
    /// The subnets this host leases.
    pub subnets: Subnets,
}

/// When packets of a peer arrived last, and how it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The peer's subnet.
    pub subnet: IpNetwork,
    /// How long ago the last one did, if any did.
    pub last: Option<Duration>,
    /// The same of those in the former format of VXLAN.
    pub former: Option<Duration>,
    /// The format of VXLAN in which programs send to it.
    pub sent: Option<VxlanFormat>,
}

/// One host's kernel. Nothing here decides what should be in it.
pub trait Kernel: Send + 'static {
    /// The underlay as it is now. While the interface of `current` has its address, it stays; otherwise it is chosen
    /// again, as at the start.
    ///
    /// # Errors
    /// [`KernelError::NoUnderlay`] where none can be chosen.
    fn underlay(
        &mut self,
        current: Option<&Underlay>,
    ) -> impl Future<Output = Result<Underlay, KernelError>> + Send;

    /// The device as it is; `None` if it is missing.
    ///
    /// # Errors
    /// The kernel refused.
    fn find_device(
        &mut self,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<Option<Device>, KernelError>> + Send;

    /// The device, made if it is missing, adopted as it is if it fits.
    ///
    /// # Errors
    /// Its name belongs to something else; the kernel refused.
    fn ensure_device(
        &mut self,
        spec: &DeviceSpec,
    ) -> impl Future<Output = Result<Device, KernelError>> + Send;

    /// Has the device called `name` for this daemon alone.
    ///
    /// # Errors
    /// Another daemon has it.
    fn claim(&mut self, name: &str) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// The device of the former format of VXLAN, made if it is missing. It is the device that has taken packets so far,
    /// which makes room for that of `present` if both are called the same.
    ///
    /// # Errors
    /// The kernel refused.
    fn keep_former(
        &mut self,
        former: &DeviceSpec,
        present: &DeviceSpec,
    ) -> impl Future<Output = Result<Device, KernelError>> + Send;

    /// Removes the device of a former format of VXLAN. Absence is success.
    ///
    /// # Errors
    /// The kernel refused.
    fn remove_former(&mut self, former: &Device) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// When packets of each peer that programs know arrived last, on a host that leases `subnets`.
    ///
    /// # Errors
    /// The kernel refused.
    fn heard(&mut self, subnets: &Subnets) -> Result<Vec<Heard>, KernelError>;

    /// Gives `device` the address `own` alone, as a /32 or /128, and takes every other one inside `network` from it.
    ///
    /// # Errors
    /// The kernel refused.
    fn ensure_address(
        &mut self,
        device: &Device,
        own: IpAddr,
        network: IpNetwork,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// Makes programs forward over `links`. The former ones stay until all new ones are loaded, and if the kernel
    /// refuses.
    ///
    /// # Errors
    /// The kernel refused.
    fn build(&mut self, context: &NodeContext, links: &Links) -> Result<(), KernelError>;

    /// Keeps the programs of the last [`Kernel::build`] in their places.
    ///
    /// # Errors
    /// The kernel refused.
    fn hold(&mut self) -> Result<(), KernelError>;

    /// Whether nobody has detached a program.
    fn is_whole(&self) -> bool;

    /// Whether programs have a table of peers.
    fn has_programs(&self) -> bool;

    /// Updates the pods' ports for the programs.
    ///
    /// # Errors
    /// The kernel refused.
    fn find_pods(&mut self) -> impl Future<Output = Result<(), KernelError>> + Send;

    /// To be called when the table of peers is complete: replaces programs of another build.
    ///
    /// # Errors
    /// The kernel refused.
    fn take_over(&mut self) -> Result<(), KernelError>;

    /// Everything of ours, in order, on a host that leases `subnets`: those of peers are as long.
    ///
    /// # Errors
    /// The kernel refused.
    fn list(&mut self, subnets: &Subnets) -> impl Future<Output = Result<Vec<Object>, KernelError>> + Send;

    /// Puts each of `objects`, which are in order, there, in the place of one with the same key, kind by kind. Returns
    /// those that could not be put.
    fn put(&mut self, objects: &[Object]) -> impl Future<Output = Vec<(Object, KernelError)>> + Send;

    /// Removes exactly `objects`, which are in order, not their replacements, in the reverse order of kinds. Returns
    /// those that could not be removed.
    fn remove(&mut self, objects: &[Object]) -> impl Future<Output = Vec<(Object, KernelError)>> + Send;

    /// How each of `addresses` is reached.
    ///
    /// # Errors
    /// The kernel refused.
    fn hops(
        &self,
        addresses: &[IpAddr],
        underlay: &Underlay,
    ) -> impl Future<Output = Result<Vec<Hop>, KernelError>> + Send;

    /// The next change in the kernel's tables. Dropping the future loses nothing.
    fn change(&mut self) -> impl Future<Output = Change> + Send;
}

type Source = Box<dyn Error + Send + Sync>;

/// The kernel, or this host's state, does not allow something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no underlay.
    #[error("the underlay is gone; waiting for it")]
    NoUnderlay(#[source] Source),
    /// The backend cannot work with the underlay as it is now.
    #[error(transparent)]
    Unsuitable(#[from] Unsuitable),
    /// The device an object belongs to does not exist.
    #[error(transparent)]
    MissingDevice(Source),
    /// Anything else.
    #[error(transparent)]
    Refused(Source),
}

impl KernelError {
    /// What the kernel answered.
    pub fn refused(source: impl Into<Source>) -> Self {
        Self::Refused(source.into())
    }

    /// Whether the device an object belongs to does not exist.
    #[must_use]
    pub const fn is_missing_device(&self) -> bool {
        matches!(self, Self::MissingDevice(_))
    }
}
