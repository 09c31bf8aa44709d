//! TCP connections whose two ends are in this process, each with a socket of its machine.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Endpoint;
use crate::wait;

/// How long connecting, a read or a write may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection: the end of `from`, which opened it, and the end of `to`.
pub(super) fn connect(from: &Endpoint, to: &Endpoint) -> Result<(TcpStream, TcpStream)> {
    let listener = to.namespace.within(|| Ok(TcpListener::bind((to.address, 0))?))?;
    let address: SocketAddr = listener.local_addr()?;
    let near = from
        .namespace
        .within(|| Ok(TcpStream::connect_timeout(&address, wait::stretched(PATIENCE))?))
        .with_context(|| format!("no connection from {} to {}", from.name, to.name))?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        limit(end)?;
    }
    Ok((near, far))
}

/// Has reads and writes fail that take too long.
pub(crate) fn limit(end: &TcpStream) -> Result<()> {
    end.set_read_timeout(Some(wait::stretched(PATIENCE)))?;
    end.set_write_timeout(Some(wait::stretched(PATIENCE)))?;
    Ok(())
}
