//! The command lines.

pub mod flannelctl;
pub mod report;
