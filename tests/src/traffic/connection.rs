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
    join(from, to, &listener, address)
}

/// The same to a port of `to` by another address, which the network translates.
pub(super) fn connect_by(
    from: &Endpoint,
    to: &Endpoint,
    port: u16,
    address: SocketAddr,
) -> Result<(TcpStream, TcpStream)> {
    let listener = to.namespace.within(|| Ok(TcpListener::bind((to.address, port))?))?;
    join(from, to, &listener, address)
}

fn join(
    from: &Endpoint,
    to: &Endpoint,
    listener: &TcpListener,
    address: SocketAddr,
) -> Result<(TcpStream, TcpStream)> {
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
