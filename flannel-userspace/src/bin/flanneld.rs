//! flanneld
fn main() {}
