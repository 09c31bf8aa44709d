//! flannelctl
fn main() {}
