//! EDGE: Debian 13's virsh, from a root that `tests/setup` makes beside the machine's own Debian 12.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};

use crate::{paths, space::Space};

/// A directory on this host whose `virsh` is Debian 13's, with the loader and the libraries it was built for.
pub fn programs(host: &Space) -> Result<PathBuf> {
    let root = paths::cache().join("trixie");
    ensure!(root.join("usr/bin/virsh").is_file(), "no virsh in {}: run `make setup-bench`", root.display());
    let dir = host.dir().join("trixie");
    fs::create_dir_all(&dir)?;
    let [loader, libraries, virsh] = ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu", "usr/bin/virsh"]
        .map(|path| root.join(path).display().to_string());
    let script = format!("#!/bin/sh\nexec '{loader}' --argv0 virsh --library-path '{libraries}' '{virsh}' \"$@\"\n");
    fs::write(dir.join("script"), script)?;
    // By another program: what is open for writing cannot be run, and any other thread's child may have it open.
    let in_dir = |name: &str| dir.join(name).display().to_string();
    host.check("install", &["-m", "755", &in_dir("script"), &in_dir("virsh")])?;
    Ok(dir)
}
