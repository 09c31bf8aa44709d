//! The command lines.

pub mod flannelctl;
pub mod flanneld;

/// What every key in etcd begins with unless the user says otherwise: stock flannel's default.
const DEFAULT_ETCD_PREFIX: &str = "/coreos.com/network";
