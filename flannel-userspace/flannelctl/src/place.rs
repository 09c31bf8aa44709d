//! Which network's datapath, files and etcd a command is about.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use flannel_control::socket::Settings;
use flannel_datapath::{PinDir, Tables};
use flannel_model::config::place::DEFAULT_ETCD_PREFIX;
use flannel_model::config::{default_pin_dir, default_state_file};
use flannel_registry::etcd::{self, Etcd, Password};
use nix::unistd::geteuid;

use super::exit::{Code, Failure};
use super::output::Printer;

/// Which network's maps to read.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The network's prefix in etcd, from which the defaults of --pin-dir and --state-file are made.
    #[arg(
        long,
        env = "FLANNELD_ETCD_PREFIX",
        default_value = DEFAULT_ETCD_PREFIX,
        value_name = "PREFIX",
        global = true
    )]
    pub(super) etcd_prefix: String,
    /// Where flanneld has pinned its maps [default: below /sys/fs/bpf, made from the prefix].
    #[arg(long, env = "FLANNELD_PIN_DIR", value_name = "DIR", global = true)]
    pin_dir: Option<PathBuf>,
}

impl Place {
    /// Where maps and links are pinned.
    pub(super) fn pin_dir(&self) -> PathBuf {
        self.pin_dir.clone().unwrap_or_else(|| default_pin_dir(&self.etcd_prefix))
    }

    /// Whether that is not to be made from the prefix.
    pub(super) const fn names_pin_dir(&self) -> bool {
        self.pin_dir.is_some()
    }

    /// The maps.
    ///
    /// # Errors
    /// They do not exist, or cannot be read; the error says what to do.
    pub(super) fn tables(&self) -> anyhow::Result<Tables> {
        let pin_dir = self.pin_dir();
        let place = pin_dir.display();
        if !pin_dir.is_dir() {
            let failure = if geteuid().is_root() {
                let message =
                    format!("no datapath at {place}: is flanneld running? `--pin-dir` names another place");
                Failure::new(Code::NoDatapath, message)
            } else {
                let message = format!("cannot see a datapath at {place}: run flannelctl as root");
                Failure::new(Code::NotPermitted, message)
            };
            return Err(failure.into());
        }
        if !PinDir::maps(&pin_dir).is_dir() {
            let message = format!(
                "the datapath at {place} has no maps in the layout of this version: use the flannelctl that came with \
                 the flanneld that made it, or start the flanneld of this version"
            );
            return Err(Failure::new(Code::OtherLayout, message).into());
        }
        Tables::open_to_read(&pin_dir).with_context(|| {
            format!(
                "no readable datapath of the network {} at {}: is flanneld running?",
                self.etcd_prefix,
                pin_dir.display()
            )
        })
    }
}

/// Where the last known leases are.
#[derive(Clone, Debug, Args)]
pub(super) struct StateFile {
    /// File of the last known leases [default: the running flanneld's, else below /var/lib/flannel-ebpf].
    #[arg(long, env = "FLANNELD_STATE_FILE", value_name = "FILE")]
    state_file: Option<PathBuf>,
}

impl StateFile {
    /// Where it is, if the running daemon was told `settings`.
    pub(super) fn path(&self, place: &Place, settings: Option<&Settings>) -> PathBuf {
        let of_daemon = || Some(settings?.state_file.clone());
        self.state_file.clone().or_else(of_daemon).unwrap_or_else(|| default_state_file(&place.etcd_prefix))
    }
}

/// How to reach etcd, with flanneld's flags; without endpoints etcd is not asked.
#[derive(Clone, Args)]
#[command(next_help_heading = "etcd")]
pub(super) struct EtcdFlags {
    /// Client URLs of etcd, separated by commas; without any, etcd is not asked.
    #[arg(long, env = "FLANNELD_ETCD_ENDPOINTS", value_name = "URLS", hide_env_values = true)]
    etcd_endpoints: Option<String>,
    /// Private key of the client certificate, a PEM file.
    #[arg(long, env = "FLANNELD_ETCD_KEYFILE", value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// Client certificate for etcd, a PEM file.
    #[arg(long, env = "FLANNELD_ETCD_CERTFILE", value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// Authorities that may have signed etcd's certificate, a PEM file [default: the system's].
    #[arg(long, env = "FLANNELD_ETCD_CAFILE", value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// User of etcd's access control.
    #[arg(long, env = "FLANNELD_ETCD_USERNAME", value_name = "NAME")]
    etcd_username: Option<String>,
    /// Password of that user; prefer the variable or --etcd-password-file.
    #[arg(long, env = "FLANNELD_ETCD_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    etcd_password: Option<String>,
    /// File whose first line is the password of that user.
    #[arg(long, env = "FLANNELD_ETCD_PASSWORD_FILE", value_name = "FILE", conflicts_with = "etcd_password")]
    etcd_password_file: Option<PathBuf>,
}

impl fmt::Debug for EtcdFlags {
    /// Without the password, and without endpoints, whose URLs may contain one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdFlags").finish_non_exhaustive()
    }
}

impl EtcdFlags {
    /// How etcd is reached, if it is to be asked.
    ///
    /// # Errors
    /// The file with the password cannot be read.
    pub(super) fn options(&self, prefix: &str) -> anyhow::Result<Option<etcd::Options>> {
        let Some(endpoints) = self.etcd_endpoints.as_deref().filter(|text| !text.trim().is_empty()) else {
            return Ok(None);
        };
        Ok(Some(etcd::Options {
            endpoints: endpoints.split(',').map(str::to_owned).collect(),
            prefix: prefix.to_owned(),
            key_file: self.etcd_keyfile.clone(),
            cert_file: self.etcd_certfile.clone(),
            ca_file: self.etcd_cafile.clone(),
            username: self.etcd_username.clone(),
            password: self.given_password(),
        }))
    }

    fn given_password(&self) -> Option<Password> {
        match &self.etcd_password_file {
            Some(path) => Some(Password::File(path.clone())),
            None => self.etcd_password.clone().map(Password::Literal),
        }
    }

    /// The password, if one is given that can be read.
    pub(super) fn password(&self) -> Option<String> {
        self.given_password()?.read().ok()
    }

    /// etcd, if it is to be asked.
    ///
    /// # Errors
    /// The flags contradict each other.
    pub(super) fn registry(&self, prefix: &str) -> anyhow::Result<Option<Etcd>> {
        Ok(self.options(prefix)?.map(Etcd::new).transpose()?)
    }
}

/// What every command works with.
pub(super) struct Context<'a> {
    /// Which network it is about.
    pub(super) place: &'a Place,
    /// Shows the answer.
    pub(super) printer: Printer,
}
