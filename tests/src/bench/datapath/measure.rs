//! What is measured on a path.

use std::time::Duration;

use anyhow::Result;

use super::lab::Way;
use super::link::Link;
use crate::traffic::{Ends, flood, latency, throughput};

/// A figure of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Bits per second over one TCP connection.
    OneStream,
    /// Bits per second over four.
    FourStreams,
    /// CPU seconds per gigabyte over four.
    CpuPerGigabyte,
    /// Seconds for one byte there and back, both ends on one CPU, the median.
    LatencyP50,
    /// The 99th percentile.
    LatencyP99,
    /// The median with a CPU for each end.
    LatencyApart,
    /// Small datagrams received per second.
    PacketRate,
    /// Share of small datagrams sent that are lost.
    Loss,
    /// CPU seconds per small datagram received, all together.
    CpuPerPacket,
    /// The part of the thread that sends.
    CpuSender,
    /// The part of the thread that receives.
    CpuReceiver,
    /// The part of the kernel's threads and of proxies.
    CpuBetween,
}

impl Measure {
    /// All of them, in the order of the tables.
    pub const ALL: &[Self] = &[
        Self::OneStream,
        Self::FourStreams,
        Self::CpuPerGigabyte,
        Self::LatencyP50,
        Self::LatencyP99,
        Self::LatencyApart,
        Self::PacketRate,
        Self::Loss,
        Self::CpuPerPacket,
        Self::CpuSender,
        Self::CpuReceiver,
        Self::CpuBetween,
    ];

    /// Its name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneStream => "tcp-1",
            Self::FourStreams => "tcp-4",
            Self::CpuPerGigabyte => "cpu-per-gigabyte",
            Self::LatencyP50 => "latency-p50",
            Self::LatencyP99 => "latency-p99",
            Self::LatencyApart => "latency-apart",
            Self::PacketRate => "packet-rate",
            Self::Loss => "loss",
            Self::CpuPerPacket => "cpu-per-packet",
            Self::CpuSender => "cpu-sender",
            Self::CpuReceiver => "cpu-receiver",
            Self::CpuBetween => "cpu-between",
        }
    }

    /// For people, in a few words.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::OneStream => "TCP, one connection",
            Self::FourStreams => "TCP, four connections",
            Self::CpuPerGigabyte => "CPU time per gigabyte, four connections",
            Self::LatencyP50 => "One byte there and back on one CPU, median",
            Self::LatencyP99 => "One byte there and back on one CPU, 99th percentile",
            Self::LatencyApart => "One byte there and back, a CPU for each end, median",
            Self::PacketRate => "Datagrams of 64 bytes received per second",
            Self::Loss => "Share of datagrams lost when sent as fast as can be",
            Self::CpuPerPacket => "CPU time per datagram received",
            Self::CpuSender => "CPU time per datagram: the sending thread",
            Self::CpuReceiver => "CPU time per datagram: the receiving thread",
            Self::CpuBetween => "CPU time per datagram: the kernel's threads and proxies",
        }
    }

    /// Its unit, and what the value is multiplied by to be in it.
    #[must_use]
    pub const fn unit(self) -> (&'static str, f64) {
        match self {
            Self::OneStream | Self::FourStreams => ("Gbit/s", 1e-9),
            Self::CpuPerGigabyte => ("s/GB", 1.0),
            Self::LatencyP50 | Self::LatencyP99 | Self::LatencyApart => ("µs", 1e6),
            Self::PacketRate => ("kpkt/s", 1e-3),
            Self::Loss => ("%", 1e2),
            Self::CpuPerPacket | Self::CpuSender | Self::CpuReceiver | Self::CpuBetween => ("ns", 1e9),
        }
    }

    /// A value for people.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        let (unit, factor) = self.unit();
        let scaled = value * factor;
        let digits = match self {
            Self::OneStream | Self::FourStreams if scaled < 1.0 => {
                return format!("{:.1} Mbit/s", scaled * 1e3);
            }
            Self::OneStream | Self::FourStreams | Self::CpuPerGigabyte => 2,
            Self::LatencyP50 | Self::LatencyP99 | Self::LatencyApart | Self::Loss => 1,
            _ => 0,
        };
        format!("{scaled:.digits$} {unit}")
    }
}

/// What is done to measure: each step takes its time on every path before the next step begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    OneStream,
    FourStreams,
    Latency,
    LatencyApart,
    Flood,
}

impl Step {
    const ALL: [Self; 5] =
        [Self::OneStream, Self::FourStreams, Self::Latency, Self::LatencyApart, Self::Flood];

    /// The steps of a link.
    pub(super) const fn of(link: Link) -> &'static [Self] {
        match link {
            Link::Veth | Link::Wire => &Self::ALL,
            Link::Slow => &[Self::OneStream, Self::Latency],
        }
    }

    /// Takes it once, for `time`.
    pub(super) fn take(self, way: &Way, time: Duration) -> Result<Vec<(Measure, f64)>> {
        let Way { from, to, between, .. } = way;
        Ok(match self {
            Self::OneStream => vec![(Measure::OneStream, throughput(from, to, 1, time, between)?.rate())],
            Self::FourStreams => {
                let through = throughput(from, to, 4, time, between)?;
                let per_gigabyte = through.cpu.total().as_secs_f64() / (through.bytes as f64 / 1e9);
                vec![(Measure::FourStreams, through.rate()), (Measure::CpuPerGigabyte, per_gigabyte)]
            }
            Self::Latency => {
                let latency = latency(from, to, time, Ends::Together)?;
                vec![
                    (Measure::LatencyP50, latency.p50.as_secs_f64()),
                    (Measure::LatencyP99, latency.p99.as_secs_f64()),
                ]
            }
            Self::LatencyApart => {
                let latency = latency(from, to, time, Ends::Apart)?;
                vec![(Measure::LatencyApart, latency.p50.as_secs_f64())]
            }
            Self::Flood => {
                let flood = flood(from, to, time, between)?;
                let per_packet = |cpu: Duration| cpu.as_secs_f64() / flood.received as f64;
                vec![
                    (Measure::PacketRate, flood.rate()),
                    (Measure::Loss, flood.loss()),
                    (Measure::CpuPerPacket, per_packet(flood.cpu.total())),
                    (Measure::CpuSender, per_packet(flood.cpu.senders)),
                    (Measure::CpuReceiver, per_packet(flood.cpu.receivers)),
                    (Measure::CpuBetween, per_packet(flood.cpu.between)),
                ]
            }
        })
    }
}
