//! Whether every program is in its place, looked up at each scrape.

use std::fmt;
use std::io;
use std::path::PathBuf;

use flannel_net::{Netlink, OpenError};
use flannel_observe::{Source, Writer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use thiserror::Error;
use tokio::runtime::Builder;

use crate::hooks::{Hook, hooks};
use crate::{DatapathError, Tables};

/// Asks the kernel at each scrape.
#[derive(Debug)]
pub(super) struct AttachmentCollector {
    pin_dir: PathBuf,
    reads: Source,
}

/// The places of programs cannot be read.
#[derive(Debug, Error)]
enum Unknown {
    #[error("cannot start a runtime")]
    Runtime(#[from] io::Error),
    #[error(transparent)]
    Netlink(#[from] OpenError),
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

impl AttachmentCollector {
    pub(super) const fn new(pin_dir: PathBuf, reads: Source) -> Self {
        Self { pin_dir, reads }
    }

    /// Scrapes run on a thread that may block, outside of any runtime.
    fn read(&self) -> Result<Vec<Hook>, Unknown> {
        let node = Tables::open(&self.pin_dir)?.node()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Ok(hooks(&Netlink::open()?, &self.pin_dir, &node).await?) })
    }
}

impl Collector for AttachmentCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(programs) = self.reads.read(self.read()) else { return Ok(()) };
        let series = programs.into_iter().map(|hook| {
            let labels = [
                ("program", hook.program),
                ("interface", hook.interface.name.unwrap_or_else(|| "gone".to_owned())),
                ("mechanism", hook.mechanism.unwrap_or_else(|| "none".to_owned())),
                ("required", hook.required.to_string()),
            ];
            (labels, u64::from(hook.attached))
        });
        Writer(encoder).gauges(
            "program_attached",
            "1 while a program is attached where it should be; the tunnel needs those that are required.",
            series,
        )
    }
}
