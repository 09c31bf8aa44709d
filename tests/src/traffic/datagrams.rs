//! Datagrams one by one: whether each arrives, as long as it was and with the content it had.

use std::net::{SocketAddr, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use super::Endpoint;
use super::transfer::noise;
use crate::wait;

/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two calls that send.
const PAUSE: Duration = Duration::from_micros(500);
/// More than a datagram can carry.
const LONGEST: usize = 1 << 16;

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Datagrams {
    /// Number of calls that send.
    pub count: usize,
    /// Bytes of payload with each.
    pub payload: usize,
    /// Bytes at which the kernel cuts them into datagrams (`UDP_SEGMENT`); one datagram each where there are none.
    pub segment: Option<u16>,
}

impl Datagrams {
    /// Bytes of payload of all together.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        (self.count * self.payload) as u64
    }

    /// Sends them, each when the one before has arrived.
    ///
    /// # Errors
    /// One does not arrive, or with other boundaries or another content.
    pub fn send(&self, from: &Endpoint, to: &Endpoint) -> Result<()> {
        let socket = |end: &Endpoint| {
            end.namespace.within(|| Ok(UdpSocket::bind((end.address, 0))?)).context("no socket")
        };
        let (near, far) = (socket(from)?, socket(to)?);
        far.set_read_timeout(Some(wait::stretched(PATIENCE)))?;
        setsockopt(&near, sockopt::SndBuf, &(4 * LONGEST))?;
        if let Some(segment) = self.segment {
            setsockopt(&near, sockopt::UdpGsoSegment, &i32::from(segment))?;
        }
        let (address, noise) = (far.local_addr()?, noise());
        (0..self.count).try_for_each(|number| {
            sleep(PAUSE);
            // Each begins elsewhere in the noise, so that one in the place of another shows.
            let content = noise.get(number * 13 % LONGEST..).unwrap_or_default();
            let content = content.get(..self.payload).context("not as much noise")?;
            self.send_one(content, (&near, address), &far).with_context(|| {
                format!("number {number} of {} bytes, {} -> {}", self.payload, from.name, to.name)
            })
        })
    }

    fn send_one(&self, content: &[u8], (near, to): (&UdpSocket, SocketAddr), far: &UdpSocket) -> Result<()> {
        ensure!(near.send_to(content, to)? == content.len(), "not all was sent");
        let mut buffer = vec![0; LONGEST];
        for expected in content.chunks(self.segment.map_or(LONGEST, usize::from)) {
            let length = far.recv(&mut buffer).context("nothing arrived")?;
            ensure!(length == expected.len(), "{length} bytes arrived instead of {}", expected.len());
            ensure!(buffer.starts_with(expected), "another content arrived");
        }
        Ok(())
    }
}
