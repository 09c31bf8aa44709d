//! The names of those of the daemon's conditions that others than the daemon act upon.

/// Flannel's device and programs are in place, and the underlay is there.
pub const DATAPATH: &str = "datapath in place";

/// The host forwards what comes by its pods' bridges and by flannel's device.
pub const FORWARDING: &str = "packets forwarded";

/// Every route table of the cloud sends what is for this host's pods to this host, which may forward it.
pub const CLOUD_ROUTES: &str = "cloud routes in place";
