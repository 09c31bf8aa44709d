//! Measurements, each a program of its own.

pub mod control;
pub mod datapath;
pub mod lookup;
pub mod paper;
