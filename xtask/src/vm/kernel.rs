//! A kernel that can be booted: its image and its modules, unpacked from packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages::{Packages, output};
use crate::step;

/// How many files one command is given.
const AT_ONCE: usize = 500;

/// The list of modules that are no files, because the kernel has them in itself.
pub const BUILTIN: &str = "modules.builtin";

/// A packaged kernel, unpacked.
pub struct Kernel {
    /// What somebody asked for: `6.1`.
    pub name: String,
    /// What it calls itself (`uname -r`).
    pub release: String,
    pub image: PathBuf,
    /// The folder with `modules.dep`.
    pub modules: PathBuf,
}

impl Kernel {
    /// Unpacks what is not unpacked yet.
    pub fn unpack(name: &str, packages: &Packages) -> Result<Self> {
        let tree = packages.folder.join("tree");
        let mark = packages.folder.join("tree.sums");
        if !fs::read_to_string(&mark).is_ok_and(|unpacked| unpacked == packages.sums) {
            // The mark is written last: what was interrupted is begun again.
            remove(&mark, |path| fs::remove_file(path))?;
            remove(&tree, |path| fs::remove_dir_all(path))?;
            unpack(&packages.files, &tree)?;
            fs::write(&mark, &packages.sums).with_context(|| format!("cannot write {}", mark.display()))?;
        }
        Self::in_tree(name, &tree)
    }

    fn in_tree(name: &str, tree: &Path) -> Result<Self> {
        let modules = modules(tree)?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let images = [tree.join("boot").join(format!("vmlinuz-{release}")), modules.join("vmlinuz")];
        let Some(image) = images.into_iter().find(|path| path.is_file()) else {
            bail!(
                "the packages of {name} have modules of {release} and no vmlinuz: name the package of its image, too"
            );
        };
        if !modules.join(BUILTIN).is_file() {
            bail!(
                "the packages of {name} have no {BUILTIN}: name the package that has it, too, linux-base-{release}"
            );
        }
        Ok(Self { name: name.to_owned(), release, image, modules })
    }
}

fn remove(path: &Path, remove: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn unpack(packages: &[PathBuf], tree: &Path) -> Result<()> {
    for package in packages {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.arg("--extract").arg(package).arg(tree);
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        step::run(&format!("Unpacking {name}"), dpkg)?;
    }
    let modules = modules(tree)?;
    decompress(&modules)?;
    depmod(&modules)
}

/// The one folder of modules.
fn modules(tree: &Path) -> Result<PathBuf> {
    let mut found = Vec::new();
    for folder in ["lib/modules", "usr/lib/modules"] {
        for entry in fs::read_dir(tree.join(folder)).into_iter().flatten() {
            found.push(entry.context("cannot list modules")?.path());
        }
    }
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => bail!("the packages have no modules: name the package of the kernel's modules, too"),
        [one, other, ..] => bail!(
            "the packages are of two kernels, {} and {}: name those of one",
            one.display(),
            other.display()
        ),
    }
}

/// Decompresses modules, which not every kmod can read, and not every kernel loads from an initramfs.
fn decompress(modules: &Path) -> Result<()> {
    let files = files(modules)?;
    for (ending, program) in [("xz", "xz"), ("zst", "zstd"), ("gz", "gzip")] {
        let files: Vec<&PathBuf> =
            files.iter().filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
        for files in files.chunks(AT_ONCE) {
            let mut command = Command::new(program);
            command.args(["-d", "-q"]).args((program == "zstd").then_some("--rm")).arg("--").args(files);
            output(command)?;
        }
    }
    Ok(())
}

/// All files below a folder.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
            match entry.file_type().with_context(|| format!("cannot list {}", folder.display()))? {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(files)
}

/// Lists which modules need which others; packages leave that to their installation.
pub fn depmod(modules: &Path) -> Result<()> {
    // depmod looks for the modules of a release below lib/modules of a base.
    let base = modules.ancestors().nth(3).context("modules have no folder")?;
    let release = modules.file_name().context("modules have no folder")?;
    let mut depmod = Command::new("depmod");
    depmod.env("PATH", crate::workspace::search_path()).arg("-b").arg(base).arg(release);
    output(depmod)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::Kernel;

    fn write(tree: &Path, file: &str) {
        let path = tree.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn the_image_is_found_where_either_debian_puts_it() {
        for image in ["boot/vmlinuz-6.1-cloud", "lib/modules/6.1-cloud/vmlinuz"] {
            let tree = tempfile::tempdir().unwrap();
            write(tree.path(), "lib/modules/6.1-cloud/kernel/veth.ko");
            write(tree.path(), image);
            write(tree.path(), "lib/modules/6.1-cloud/modules.builtin");
            let kernel = Kernel::in_tree("6.1", tree.path()).unwrap();
            assert_eq!((&*kernel.release, kernel.image), ("6.1-cloud", tree.path().join(image)));
        }
    }

    #[test]
    fn packages_that_are_not_one_whole_kernel_are_refused() {
        let tree = tempfile::tempdir().unwrap();
        let refused = || Kernel::in_tree("mine", tree.path()).err().unwrap().to_string();
        assert!(refused().contains("no modules"), "{}", refused());
        write(tree.path(), "usr/lib/modules/6.8.0/kernel/veth.ko");
        assert!(refused().contains("no vmlinuz"), "{}", refused());
        write(tree.path(), "boot/vmlinuz-6.8.0");
        assert!(refused().contains("linux-base-6.8.0"), "{}", refused());
        write(tree.path(), "lib/modules/6.5.0/kernel/veth.ko");
        assert!(refused().contains("two kernels"), "{}", refused());
    }
}
