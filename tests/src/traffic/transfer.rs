//! A file: many bytes over one connection, and whether they arrived as they were sent.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use sha2::{Digest as _, Sha256};

use super::connection::{connect, connect_by};
use super::{ChecksumErrors, Endpoint};

const CHUNK: usize = 256 * 1024;

/// What was transferred.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes, equal at both ends by their SHA-256.
    pub bytes: u64,
    /// From the first byte to the last.
    pub time: Duration,
}

impl Transfer {
    /// Bits per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64()
    }
}

/// Sends pseudo-random bytes from one machine to another.
///
/// # Errors
/// The connection fails; what arrived is not what was sent; a kernel on the path counted a wrong checksum.
pub fn transfer(from: &Endpoint, to: &Endpoint, bytes: u64) -> Result<Transfer> {
    transfer_over(from, to, bytes, || connect(from, to))
}

/// The same to `port` of `to` by another address, which the network translates.
///
/// # Errors
/// As [`transfer`].
pub fn transfer_by(
    from: &Endpoint,
    to: &Endpoint,
    port: u16,
    address: SocketAddr,
    bytes: u64,
) -> Result<Transfer> {
    transfer_over(from, to, bytes, || connect_by(from, to, port, address))
}

fn transfer_over(
    from: &Endpoint,
    to: &Endpoint,
    bytes: u64,
    connect: impl FnOnce() -> Result<(TcpStream, TcpStream)>,
) -> Result<Transfer> {
    let errors_before = ChecksumErrors::of(&[from, to])?;
    let (near, far) = connect()?;
    let begin = Instant::now();
    let sending = thread::spawn(move || send_file(near, bytes));
    let received = receive_file(far);
    let sent = sending.join().map_err(|_| anyhow!("the sender panicked"))?;
    let time = begin.elapsed();
    let (sent, (count, received)) = (sent.context("cannot send")?, received.context("cannot receive")?);
    ensure!(count == bytes, "{count} of {bytes} bytes arrived");
    ensure!(sent == received, "the bytes that arrived are not those that were sent");
    ChecksumErrors::of(&[from, to])?.check_none_since(&errors_before)?;
    Ok(Transfer { bytes, time })
}

/// Sends pseudo-random bytes to the end of a connection, and returns their SHA-256.
pub(crate) fn send_file(mut stream: TcpStream, bytes: u64) -> Result<[u8; 32]> {
    let data = noise();
    let (mut digest, mut left, mut start) = (Sha256::new(), bytes, 0);
    while left > 0 {
        // Each chunk begins elsewhere in the noise, so that one chunk in the place of another shows.
        start = (start + 7919) % CHUNK;
        let chunk = &data[start..][..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        digest.update(chunk);
        stream.write_all(chunk)?;
        left -= chunk.len() as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    // The other end closes when it has read everything.
    stream.read_exact(&mut [0]).err().context("the receiver answered")?;
    Ok(digest.finalize().into())
}

/// Receives to the end of a connection: how many bytes, and their SHA-256.
pub(crate) fn receive_file(mut stream: TcpStream) -> Result<(u64, [u8; 32])> {
    let mut buffer = vec![0; CHUNK];
    let (mut digest, mut count) = (Sha256::new(), 0);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok((count, digest.finalize().into())),
            length => {
                digest.update(&buffer[..length]);
                count += length as u64;
            }
        }
    }
}

/// Bytes without a pattern, the same in every run (xorshift64*).
pub(super) fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_ne_bytes()
    });
    words.take(2 * CHUNK / 8).flatten().collect()
}
