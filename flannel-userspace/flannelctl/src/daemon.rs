//! The running flanneld, as it answers over its control socket.

use std::fs;
use std::path::{Path, PathBuf};

use flannel_control::file;
use flannel_control::socket::{self, AskError, Request, Settings, Status, Told, ask};
use serde::de::DeserializeOwned;

use super::exit::{Code, Failure};
use super::place::Place;

/// A daemon that runs.
#[derive(Debug)]
pub(super) struct Daemon {
    socket: PathBuf,
    /// Its process, where that can be seen from here.
    pub(super) pid: Option<u32>,
    /// What it says of itself; or why that cannot be had.
    pub(super) told: Result<Box<Status>, String>,
}

impl Daemon {
    /// The daemon of a pin directory; none where none answers. A process that has the network's socket and is silent is
    /// one, too.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(super) async fn find(place: &Place) -> anyhow::Result<Option<Self>> {
        let mut silent = None;
        for socket in sockets(place)? {
            match ask::<Status>(&socket, Request::Status).await {
                Ok(Told { pid, answer }) if answer.settings.pin_dir == place.pin_dir() => {
                    let pid = pid.or(Some(answer.pid));
                    return Ok(Some(Self { socket, pid, told: Ok(Box::new(answer)) }));
                }
                Ok(_) | Err(AskError::Nobody { .. } | AskError::Ended { .. }) => {}
                Err(error @ AskError::Io { .. }) => return Err(error.into()),
                Err(error) => {
                    let pid = if let AskError::Silent { pid, .. } = &error { *pid } else { None };
                    silent.get_or_insert(Self { socket, pid, told: Err(error.to_string()) });
                }
            }
        }
        Ok(silent)
    }

    /// The same for who can do nothing without it.
    ///
    /// # Errors
    /// None answers.
    pub(super) async fn get(place: &Place) -> anyhow::Result<Self> {
        let socket = socket::path(&place.etcd_prefix)?;
        let nobody = || {
            let message = format!(
                "no flanneld answers at {}: is it running, in this network namespace? `--etcd-prefix` names another \
                 network; the log of a flanneld that has no socket says why",
                socket.display()
            );
            Failure::new(Code::NoDaemon, message)
        };
        Ok(Self::find(place).await?.ok_or_else(nobody)?)
    }

    /// Tells it something, and returns its answer.
    ///
    /// # Errors
    /// It does not do it.
    pub(super) async fn tell<A: DeserializeOwned>(&self, request: Request) -> anyhow::Result<A> {
        Ok(ask(&self.socket, request).await?.answer)
    }

    /// What it was told, if it says so.
    pub(super) fn settings(&self) -> Option<&Settings> {
        self.told.as_ref().ok().map(|status| &status.settings)
    }
}

/// The socket of the network; and where a pin directory is named, which may be another network's, those of all networks
/// in this network namespace.
fn sockets(place: &Place) -> anyhow::Result<Vec<PathBuf>> {
    let own = socket::path(&place.etcd_prefix)?;
    let others = if place.names_pin_dir() { neighbours(&own) } else { Vec::new() };
    Ok(std::iter::once(own.clone()).chain(others.into_iter().filter(|other| *other != own)).collect())
}

fn neighbours(socket: &Path) -> Vec<PathBuf> {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    let Some((_, namespace)) = name.rsplit_once('@') else { return Vec::new() };
    let is_of_namespace = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.rsplit_once('@').is_some_and(|(_, other)| other == namespace)
    };
    let entries = fs::read_dir(file::directory_of(socket)).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_of_namespace).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::neighbours;

    #[test]
    fn sockets_of_one_namespace_are_neighbours() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a@1.sock", "b@1.sock", "b@11.sock", "subnet.env"] {
            File::create(path(name)).unwrap();
        }
        let mut found = neighbours(&path("c@1.sock"));
        found.sort();
        assert_eq!(found, [path("a@1.sock"), path("b@1.sock")]);
    }
}
