//! EDGE: where things are on this machine: the repository, its cache, the built programs, Debian's kernels.
//!
//! It looks, and it copies programs where they are needed elsewhere. Nothing else is changed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};

use crate::lab;

/// The root of the repository this crate was built from.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// What is made once and kept: the Python environment, guest images. Never under version control.
pub fn cache() -> PathBuf {
    repository().join(".cache")
}

/// A program of this workspace, built in the same profile as the caller.
pub fn program(name: &str) -> Result<PathBuf> {
    let me = env::current_exe().context("cannot tell where this program is")?;
    // Tests are in target/PROFILE/deps, programs in target/PROFILE.
    let found = me.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    let found = found
        .with_context(|| format!("no program '{name}' beside {}: run `cargo build --release` first", me.display()))?;
    if lab::inside() { in_memory(name, &found) } else { Ok(found) }
}

/// In the lab every page of a program comes over 9p, one by one, whenever it is needed; a copy in memory comes at once.
fn in_memory(name: &str, found: &Path) -> Result<PathBuf> {
    static COPYING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = env::temp_dir().join("programs");
    let copy = directory.join(name);
    if !copy.exists() {
        fs::create_dir_all(&directory)?;
        copy_program(found, &copy)?;
    }
    Ok(copy)
}

/// Copies a program by another program: a descriptor of ours that is open for writing would be inherited by whatever
/// another thread starts just then, and the copy could not be run while that lives (`ETXTBSY`).
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg(from).arg(to).status().context("cannot run cp")?;
    ensure!(status.success(), "cannot copy {} to {}", from.display(), to.display());
    Ok(())
}

/// A tool of the operating system, by the path to run it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let found = places.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("no program '{name}' on this machine: run `make setup`"))
}

/// A kernel of the distribution with its modules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says in it.
    pub version: String,
    /// The bzImage.
    pub image: PathBuf,
    /// `/lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `linux-image-amd64`: what the lab runs, with kvm-amd, bridge, nf_tables.
    Generic,
    /// `linux-image-cloud-amd64`: what guests run.
    Cloud,
}

/// The newest installed kernel of a flavour.
pub fn kernel(flavour: Flavour) -> Result<Kernel> {
    let mut found: Vec<Kernel> = fs::read_dir("/boot")
        .context("cannot list /boot")?
        .filter_map(|entry| {
            let image = entry.ok()?.path();
            let version = image.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
            let modules = Path::new("/lib/modules").join(&version);
            let wanted = match flavour {
                Flavour::Generic => version.ends_with("-amd64") && !version.ends_with("-cloud-amd64"),
                Flavour::Cloud => version.ends_with("-cloud-amd64"),
            };
            (wanted && modules.join("modules.dep").is_file()).then_some(Kernel { version, image, modules })
        })
        .collect();
    found.sort_by_key(|kernel| version_key(&kernel.version));
    let package = match flavour {
        Flavour::Generic => "linux-image-amd64",
        Flavour::Cloud => "linux-image-cloud-amd64",
    };
    match found.pop() {
        Some(kernel) => Ok(kernel),
        None => bail!("no kernel of package {package} in /boot: run `make setup`"),
    }
}

/// The numbers of a version, so that 6.1.0-9 sorts before 6.1.0-56.
fn version_key(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_sort_by_number_not_by_letter() {
        let mut versions = ["6.1.0-56-amd64", "6.1.0-9-amd64", "6.12.3-1-amd64", "6.2.0-1-amd64"];
        versions.sort_by_key(|version| version_key(version));
        assert_eq!(versions, ["6.1.0-9-amd64", "6.1.0-56-amd64", "6.2.0-1-amd64", "6.12.3-1-amd64"]);
    }
}
