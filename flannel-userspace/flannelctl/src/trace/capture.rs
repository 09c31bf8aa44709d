//! `flannelctl capture`: packets of the tunnel, outer and inner headers, for Wireshark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write, stdout};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use flannel_common::trace::{ARRIVED, Event, SNAP, TraceFilter};
use flannel_common::{Hook, Ip4, Reason, Verdict};
use flannel_datapath::time_of_day;
use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{PcapNgBlock as _, PcapNgWriter};

use super::packet::Packet;
use super::{End, Host, Stream, interface};
use crate::place::Context;

/// Time stamps in units of 10^-9 seconds.
const NANOSECONDS: u8 = 9;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Only packets to or from this peer: its subnet, an address in it, its public address or a name for it.
    #[arg(long, value_name = "NAME|SUBNET|IP")]
    peer: Option<String>,
    /// The file to write, which must not exist, in the format pcapng; `-` for standard output.
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    #[command(flatten)]
    end: End,
}

impl Arguments {
    pub(crate) async fn run(&self, context: &Context<'_>) -> anyhow::Result<ExitCode> {
        let tables = context.place.tables()?;
        let host = Host::read(&tables)?;
        if host.node.port == 0 {
            bail!(
                "this network has no tunnel whose packets could be captured: use tcpdump, or `flannelctl trace`"
            );
        }
        let peer = self.peer.as_deref().map(|who| host.peer(who)).transpose()?;
        let output: Box<dyn Write> = if self.write.as_os_str() == "-" {
            Box::new(stdout().lock())
        } else {
            Box::new(BufWriter::new(create(&self.write)?))
        };
        let mut file = Pcapng::begin(output)?;
        let mut stream = Stream::open(context, filter(peer.map(Ip4::from)), self.end)?;
        while let Some(event) = stream.next().await? {
            let bytes = event.bytes.get(..event.captured as usize).unwrap_or_default();
            if is_of_tunnel(bytes, &host) {
                file.add(&event, bytes)?;
                stream.counted();
            }
        }
        eprintln!("{} packets", file.packets);
        Ok(ExitCode::SUCCESS)
    }
}

/// A new file, for its owner alone: packets are secrets of those who send them.
fn create(path: &Path) -> anyhow::Result<File> {
    // The last component is not followed where it is a link (open(2), `O_EXCL`).
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| {
        format!(
            "cannot write {}: choose a file with -w that does not exist, or `-` to write elsewhere",
            path.display()
        )
    })
}

/// Packets in both directions: before a program removes the outer headers, and after one has added them.
fn filter(address: Option<Ip4>) -> TraceFilter {
    let forwards = Reason::ALL.iter().filter(|reason| reason.verdict() == Verdict::Forward);
    TraceFilter {
        reasons: forwards.fold(0, |bits, reason| bits | 1 << reason.number()),
        hooks: u32::MAX,
        every: 1,
        address: address.unwrap_or(Ip4::UNSPECIFIED),
        arrivals: 1,
        ..TraceFilter::default()
    }
}

/// Packets forwarded inwards have lost their outer headers, and were reported before that.
fn is_of_tunnel(bytes: &[u8], host: &Host) -> bool {
    Packet::read(bytes, &host.node).outer.is_some()
}

/// A file that grows.
struct Pcapng {
    writer: PcapNgWriter<Box<dyn Write>>,
    /// Number in the file by interface index.
    interfaces: BTreeMap<u32, u32>,
    packets: u64,
}

impl Pcapng {
    fn begin(output: Box<dyn Write>) -> anyhow::Result<Self> {
        let writer = PcapNgWriter::new(output).context("cannot write the capture")?;
        Ok(Self { writer, interfaces: BTreeMap::new(), packets: 0 })
    }

    fn add(&mut self, event: &Event, bytes: &[u8]) -> anyhow::Result<()> {
        let interface_id = self.interface(event.interface)?;
        let hook = Hook::ALL.iter().find(|hook| **hook as u32 == event.hook).map_or("?", |hook| hook.label());
        let fate = if event.reason == ARRIVED { "arrived" } else { "forwarded" };
        let comment = format!("{hook}: {fate}; {} segments", event.segments.max(1));
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: time_of_day(event.at)?,
            original_len: event.len,
            data: Cow::Borrowed(bytes),
            options: vec![EnhancedPacketOption::Comment(comment.into())],
        };
        self.writer.write_block(&block.into_block()).context("cannot write the capture")?;
        self.packets += 1;
        Ok(())
    }

    /// The number of an interface in the file, where it is described with its first packet.
    fn interface(&mut self, index: u32) -> anyhow::Result<u32> {
        if let Some(number) = self.interfaces.get(&index) {
            return Ok(*number);
        }
        let number = u32::try_from(self.interfaces.len()).context("too many interfaces")?;
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SNAP as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(interface(index).into()),
                InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
            ],
        };
        self.writer.write_block(&block.into_block()).context("cannot write the capture")?;
        self.interfaces.insert(index, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::create;

    #[test]
    fn a_capture_is_a_new_file_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.pcapng");
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "theirs").unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        symlink(directory.path().join("nowhere"), directory.path().join("dangling")).unwrap();
        for taken in [path.clone(), link, directory.path().join("dangling")] {
            let error = format!("{:#}", create(&taken).unwrap_err());
            assert!(error.contains("that does not exist"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }
}
