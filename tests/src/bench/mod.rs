//! Measurements, each a program of its own.

pub mod control;
pub mod datapath;
pub mod kubernetes;
pub mod lookup;
pub mod paper;
