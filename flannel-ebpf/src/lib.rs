//! The packet logic.
#![no_std]
