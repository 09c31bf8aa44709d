//! The command lines.

pub mod flannelctl;
pub mod flanneld;
pub mod report;
