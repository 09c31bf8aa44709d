//! Which interface carries the tunnel, and which address the lease announces.

use std::net::IpAddr;

use crate::family::Addresses;

/// How the user wants the interface of the underlay chosen. Nothing given means the interface of the
/// default route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceOptions {
    /// Names or addresses, in the order in which they are tried; the first that matches wins.
    pub iface: Vec<String>,
    /// Regular expressions, tried after every `iface`: against addresses first, then against names.
    pub iface_regex: Vec<String>,
    /// The interface by which this address is reached, tried last.
    pub iface_can_reach: Option<IpAddr>,
    /// The addresses the lease announces instead of the interface's own. Without any of the above they must
    /// be local ones, for then the interface is looked up by them.
    pub public: Addresses,
}
