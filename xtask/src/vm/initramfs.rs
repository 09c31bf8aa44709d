//! The files of a guest, as an archive that the kernel unpacks into its memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// How often a link may lead to another one.
const MAX_LINKS: usize = 16;

/// Files by their paths in the guest.
#[derive(Default)]
pub struct Initramfs {
    entries: BTreeMap<PathBuf, Entry>,
}

enum Entry {
    Folder,
    /// A file of this machine.
    File(PathBuf),
    Text {
        bytes: Vec<u8>,
        is_program: bool,
    },
    Link(PathBuf),
}

impl Initramfs {
    /// With the folders and links of a system whose /bin is /usr/bin.
    pub fn new() -> Self {
        let mut this = Self::default();
        for folder in ["bin", "sbin", "lib", "lib64"] {
            this.folder(&format!("/usr/{folder}"));
            this.entries.insert(Path::new("/").join(folder), Entry::Link(format!("usr/{folder}").into()));
        }
        for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/lib", "/root", "/etc"] {
            this.folder(folder);
        }
        this.entries.insert("/var/run".into(), Entry::Link("/run".into()));
        this
    }

    pub fn folder(&mut self, guest: &str) {
        self.insert(Path::new(guest), Entry::Folder);
    }

    /// A text of our own.
    pub fn text(&mut self, guest: &str, text: &str, is_program: bool) {
        self.insert(Path::new(guest), Entry::Text { bytes: text.as_bytes().to_vec(), is_program });
    }

    /// A file of this machine under another name. Links are followed.
    pub fn file(&mut self, host: &Path, guest: &Path) -> Result<()> {
        if !host.is_file() {
            bail!("there is no file {} for the guest", host.display());
        }
        self.insert(guest, Entry::File(host.to_owned()));
        Ok(())
    }

    /// A file of this machine under its own name, with the links that lead to it.
    pub fn mirror(&mut self, host: &Path) -> Result<()> {
        let mut path = host.to_owned();
        for _ in 0..MAX_LINKS {
            let is_link = fs::symlink_metadata(&path)
                .with_context(|| format!("cannot find {} for the guest", path.display()))?
                .is_symlink();
            // The folder may be a link itself: /lib of a system is.
            let folder = path.parent().unwrap_or(Path::new("/"));
            let folder =
                fs::canonicalize(folder).with_context(|| format!("cannot find {}", folder.display()))?;
            let target = fs::read_link(&path);
            let guest = folder.join(path.file_name().unwrap_or_default());
            if !is_link {
                return self.file(&path, &guest);
            }
            let target = target.with_context(|| format!("cannot read the link {}", path.display()))?;
            self.insert(&guest, Entry::Link(target.clone()));
            path = folder.join(target);
        }
        bail!("{} leads from link to link", host.display())
    }

    /// All files of a folder of this machine, and of folders below, under their own names.
    pub fn mirror_folder(&mut self, host: &Path) -> Result<()> {
        for entry in fs::read_dir(host).with_context(|| format!("cannot list {}", host.display()))? {
            let path = entry.with_context(|| format!("cannot list {}", host.display()))?.path();
            if path.is_dir() { self.mirror_folder(&path)? } else { self.mirror(&path)? }
        }
        Ok(())
    }

    /// A link, unless there is something of that name.
    pub fn link(&mut self, guest: &Path, target: &Path) {
        if !self.entries.contains_key(&merged(guest)) {
            self.insert(guest, Entry::Link(target.to_owned()));
        }
    }

    fn insert(&mut self, guest: &Path, entry: Entry) {
        let guest = merged(guest);
        for folder in guest.ancestors().skip(1).filter(|folder| *folder != Path::new("/")) {
            self.entries.entry(folder.to_owned()).or_insert(Entry::Folder);
        }
        self.entries.insert(guest, entry);
    }

    /// Writes the archive, in which folders stand before what is in them.
    pub fn write(&self, mut output: impl Write) -> Result<()> {
        for (number, (path, entry)) in (1..).zip(&self.entries) {
            let name = path.strip_prefix("/").unwrap_or(path).to_string_lossy();
            let builder = NewcBuilder::new(&name).ino(number);
            entry.write(builder, &mut output).with_context(|| format!("cannot pack {}", path.display()))?;
        }
        trailer(output).context("cannot end the initramfs")?;
        Ok(())
    }
}

impl Entry {
    fn write(&self, builder: NewcBuilder, output: &mut impl Write) -> Result<()> {
        match self {
            Self::Folder => {
                write(builder.mode(0o755).set_mode_file_type(ModeFileType::Directory), &[], output)
            }
            Self::Link(target) => {
                let target = target.to_string_lossy();
                write(
                    builder.mode(0o777).set_mode_file_type(ModeFileType::Symlink),
                    target.as_bytes(),
                    output,
                )
            }
            Self::Text { bytes, is_program } => {
                let mode = if *is_program { 0o755 } else { 0o644 };
                write(builder.mode(mode).set_mode_file_type(ModeFileType::Regular), bytes, output)
            }
            Self::File(host) => {
                let mut file = File::open(host)?;
                let metadata = file.metadata()?;
                let builder = builder.mode(metadata.permissions().mode() & 0o7777);
                let size = u32::try_from(metadata.len()).context("the file is too large")?;
                let mut entry = builder.set_mode_file_type(ModeFileType::Regular).write(&mut *output, size);
                io::copy(&mut file, &mut entry)?;
                entry.finish()?;
                Ok(())
            }
        }
    }
}

fn write(builder: NewcBuilder, bytes: &[u8], output: &mut impl Write) -> Result<()> {
    let mut entry = builder.write(output, u32::try_from(bytes.len())?);
    entry.write_all(bytes)?;
    entry.finish()?;
    Ok(())
}

/// The path in a system whose /bin, /sbin, /lib and /lib64 are those of /usr.
fn merged(path: &Path) -> PathBuf {
    let is_moved = ["/bin/", "/sbin/", "/lib/", "/lib64/"]
        .iter()
        .any(|folder| path.to_string_lossy().starts_with(folder));
    if is_moved { Path::new("/usr").join(path.strip_prefix("/").unwrap_or(path)) } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::io::{Cursor, Read as _};
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use cpio::NewcReader;

    use super::Initramfs;

    /// Names, modes and contents, in the order of the archive.
    fn unpacked(initramfs: &Initramfs) -> Vec<(String, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        initramfs.write(&mut bytes).unwrap();
        let mut rest = Cursor::new(bytes);
        let mut entries = Vec::new();
        loop {
            let mut reader = NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return entries;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            entries.push((reader.entry().name().to_owned(), reader.entry().mode(), content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_stand_before_their_files_and_links_before_what_they_lead_to() {
        let mut initramfs = Initramfs::new();
        initramfs.text("/flannel/deep/er/init", "#!", true);
        initramfs.text("/bin/tool", "x", true);
        let entries = unpacked(&initramfs);
        let at = |name: &str| entries.iter().position(|(found, ..)| found == name).unwrap();
        assert!(at("flannel") < at("flannel/deep") && at("flannel/deep/er") < at("flannel/deep/er/init"));
        assert_eq!(entries[at("flannel/deep/er/init")].1, 0o100_755);
        assert_eq!(entries[at("bin")], ("bin".to_owned(), 0o120_777, b"usr/bin".to_vec()));
        assert_eq!(entries[at("usr/bin/tool")].2, b"x");
    }

    #[test]
    fn a_program_comes_with_the_links_that_lead_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().canonicalize().unwrap().join(name);
        fs::write(path("multi"), "program").unwrap();
        symlink("multi", path("variant")).unwrap();
        symlink(path("variant"), path("iptables")).unwrap();
        let mut initramfs = Initramfs::new();
        initramfs.mirror(&path("iptables")).unwrap();
        let entries: BTreeMap<String, Vec<u8>> = unpacked(&initramfs)
            .into_iter()
            .map(|(name, _, content)| (format!("/{name}"), content))
            .collect();
        let content =
            |name: &str| String::from_utf8(entries[&path(name).display().to_string()].clone()).unwrap();
        assert_eq!(content("iptables"), path("variant").display().to_string());
        assert_eq!((content("variant"), content("multi")), ("multi".to_owned(), "program".to_owned()));
    }

    #[test]
    fn links_in_a_circle_and_missing_files_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        symlink("round", folder.path().join("round")).unwrap();
        let mut initramfs = Initramfs::new();
        assert!(initramfs.mirror(&folder.path().join("round")).is_err());
        assert!(initramfs.file(Path::new("/no/such/file"), Path::new("/a")).is_err());
    }

    #[test]
    fn what_is_there_is_not_replaced_by_a_link() {
        let mut initramfs = Initramfs::new();
        initramfs.text("/usr/bin/ip", "real", true);
        initramfs.link(Path::new("/bin/ip"), Path::new("/bin/busybox"));
        assert!(
            unpacked(&initramfs).iter().any(|(name, _, content)| name == "usr/bin/ip" && content == b"real")
        );
    }
}
