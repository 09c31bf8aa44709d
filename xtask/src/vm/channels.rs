//! What a guest says, on several sockets at once.

use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context as _, Result};

use super::qemu::CONSOLE;

/// Where something is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The kernel's console.
    Console,
    /// How far the guest is: a line `started`, and a line `exit CODE`.
    Status,
    /// The command's.
    Stdout,
    Stderr,
}

impl Stream {
    /// Those that are ports of virtio-serial.
    pub const PORTS: [Self; 3] = [Self::Status, Self::Stdout, Self::Stderr];

    /// The name of its port, and of its socket.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Console => CONSOLE,
            Self::Status => "status",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Listens in `folder`. What comes is received in order for each stream; the end of all is the end of the receiver.
pub fn listen(folder: &Path) -> Result<Receiver<(Stream, Vec<u8>)>> {
    let (sender, receiver) = channel();
    for stream in [Stream::Console].into_iter().chain(Stream::PORTS) {
        let path = folder.join(stream.name());
        let listener =
            UnixListener::bind(&path).with_context(|| format!("cannot listen at {}", path.display()))?;
        let sender = sender.clone();
        thread::spawn(move || pass_on(stream, &listener, &sender));
    }
    Ok(receiver)
}

/// Ends with the connection, with the receiver, or with this process where qemu never connects.
fn pass_on(stream: Stream, listener: &UnixListener, sender: &Sender<(Stream, Vec<u8>)>) {
    let Ok((mut connection, _)) = listener.accept() else { return };
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        if sender.send((stream, buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}
