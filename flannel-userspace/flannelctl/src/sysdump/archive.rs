//! A tar archive, compressed, whose files hold no secrets.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tar::{Builder, Header};

use super::secrets::Secrets;
use flate2::Compression;
use flate2::write::GzEncoder;

/// The archive while it is written.
pub(super) struct Archive {
    path: PathBuf,
    tar: Builder<GzEncoder<File>>,
    /// The one directory in it.
    directory: String,
    secrets: Secrets,
    /// Seconds since 1970, the time of every file.
    when: u64,
    files: Vec<String>,
}

impl Archive {
    /// Begins an archive for its owner alone.
    pub(super) fn create(path: &Path, directory: &str, when: u64, secrets: Secrets) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let tar = Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self {
            path: path.to_owned(),
            tar,
            directory: directory.to_owned(),
            secrets,
            when,
            files: Vec::new(),
        })
    }

    /// Adds a file.
    pub(super) fn add(&mut self, name: &str, text: &str) -> io::Result<()> {
        let text = self.secrets.remove(text);
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.when);
        self.tar.append_data(&mut header, format!("{}/{name}", self.directory), text.as_bytes())?;
        self.files.push(name.to_owned());
        Ok(())
    }

    /// Ends it, and returns where it is and what is in it.
    pub(super) fn finish(self) -> io::Result<(PathBuf, Vec<String>)> {
        let file = self.tar.into_inner()?.finish()?;
        file.sync_all()?;
        Ok((self.path, self.files))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Archive, Secrets};
    use flate2::read::GzDecoder;

    #[test]
    fn what_is_added_is_in_it_but_for_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump.tar.gz");
        let mut archive = Archive::create(&path, "dump", 1, Secrets::new().unwrap()).unwrap();
        archive.add("a.txt", "http://root:canary@etcd").unwrap();
        assert_eq!(archive.finish().unwrap(), (path.clone(), vec!["a.txt".to_owned()]));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let mut tar = tar::Archive::new(GzDecoder::new(File::open(&path).unwrap()));
        let mut entry = tar.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("dump/a.txt"));
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        assert_eq!(text, "http://(removed)@etcd");
    }

    #[test]
    fn nothing_that_is_there_is_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Archive::create(file.path(), "dump", 1, Secrets::new().unwrap()).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
