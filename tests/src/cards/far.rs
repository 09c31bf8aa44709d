//! The far machine: orders and answers over the wire, each a line of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Side;
use super::machine::{Machine, address_of};
use super::order::{Obey, Order};
use crate::wait;

/// Where the far machine listens.
const PORT: u16 = 7000;
/// How long the other machine may take to boot.
const BOOT: Duration = Duration::from_secs(30);
/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds without a word after which the other machine is asked whether it is there, and between questions.
const SILENCE: u32 = 20;

/// The far machine, as the near one sees it.
#[derive(Debug)]
pub(super) struct Far(Line);

/// A connection with lines of JSON.
#[derive(Debug)]
struct Line {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Far {
    /// Waits until it is there.
    pub(super) fn meet() -> Result<Self> {
        let address = SocketAddrV4::new(address_of(Side::Far), PORT);
        let stream = wait::until("the far machine", BOOT, || {
            Ok(TcpStream::connect_timeout(&address.into(), Duration::from_secs(1))?)
        })?;
        stream.set_read_timeout(Some(wait::stretched(PATIENCE)))?;
        Ok(Self(Line::new(stream)?))
    }
}

impl Obey for Far {
    fn obey(&mut self, order: &Order) -> Result<Value> {
        self.0.write(order)?;
        let answer: Option<Result<Value, String>> =
            self.0.read().with_context(|| format!("no answer to {order:?}"))?;
        match answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => bail!("on the far machine: {error}"),
            None => bail!("the far machine is gone"),
        }
    }
}

/// Follows orders until one ends it, or the near machine is gone.
pub(super) fn serve(mut machine: Machine) -> Result<()> {
    let listener = TcpListener::bind((address_of(Side::Far), PORT)).context("cannot listen for orders")?;
    listener.set_nonblocking(true)?;
    let (stream, _) = wait::until("the near machine", BOOT, || Ok(listener.accept()?))?;
    stream.set_nonblocking(false)?;
    let mut line = Line::new(stream)?;
    while let Some(order) = line.read::<Order>()? {
        let answer = machine.obey(&order).map_err(|error| format!("{error:#}"));
        line.write(&answer)?;
        if matches!(order, Order::End) {
            break;
        }
    }
    Ok(())
}

impl Line {
    fn new(stream: TcpStream) -> Result<Self> {
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &SILENCE)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &SILENCE)?;
        Ok(Self { writer: stream.try_clone()?, reader: BufReader::new(stream) })
    }

    fn write(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        Ok(self.writer.write_all(&line)?)
    }

    /// Nothing at the end of the connection.
    fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::{Line, Order};

    #[test]
    fn orders_and_answers_come_as_they_were_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = Line::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap()).unwrap();
        let mut far = Line::new(listener.accept().unwrap().0).unwrap();
        near.write(&Order::Ctl("status\nall".to_owned())).unwrap();
        let order: Order = far.read().unwrap().unwrap();
        assert!(matches!(order, Order::Ctl(text) if text == "status\nall"));
        far.write(&Err::<(), _>("refused")).unwrap();
        let answer: Result<(), String> = near.read().unwrap().unwrap();
        assert_eq!(answer, Err("refused".to_owned()));
        drop(far);
        assert!(near.read::<Order>().unwrap().is_none());
    }
}
