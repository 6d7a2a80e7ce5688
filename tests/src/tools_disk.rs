//! EDGE: a disk for guests with what their initramfs has not got: socat with its libraries, and more of the kernel's
//! modules. Made anew for each test that wants one, as an ext4 image.
//!
//! In the guest it is mounted on `/t` and used by two scripts: `/t/load` loads the modules, `/t/socat` is socat.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{initramfs, paths};

/// Modules for the devices that only some tests use.
const MODULES: [&str; 2] = ["virtio_balloon", "vmw_vsock_virtio_transport"];

/// Bytes of the image; what is not used takes no room on the host.
const SIZE: u64 = 64 << 20;

/// What the guest is told to run after the disk is there.
pub const MOUNT: &str = "mkdir /t && mount -t ext4 -o ro,noload /dev/vda /t && /t/load";

/// Makes the image.
pub fn build(image: &Path) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("lib"))?;
    let socat = paths::tool("socat")?;
    fs::copy(&socat, at("socat.bin")).context("cannot copy socat")?;
    for library in libraries(&socat)? {
        let name = Path::new(&library).file_name().context("a library without a name")?;
        fs::copy(&library, at("lib").join(name)).with_context(|| format!("cannot copy {library}"))?;
    }
    let mut load = String::from("#!/bin/sh\nset -e\n");
    for (name, contents) in initramfs::modules(&MODULES)? {
        fs::write(at(&name), contents)?;
        // What the initramfs has loaded already is there; anything else that fails is seen by who looks for the device.
        load += &format!("insmod /t/{name} 2>/dev/null || true\n");
    }
    let run = "#!/bin/sh\nexec /t/lib/ld-linux-x86-64.so.2 --library-path /t/lib /t/socat.bin \"$@\"\n";
    for (name, text) in [("load", load.as_str()), ("socat", run)] {
        fs::write(at(name), text)?;
        fs::set_permissions(at(name), Permissions::from_mode(0o755))?;
    }
    File::create(image)
        .and_then(|file| file.set_len(SIZE))
        .with_context(|| format!("cannot make {}", image.display()))?;
    let made = Command::new(paths::tool("mkfs.ext4")?).args(["-q", "-d"]).arg(dir.path()).arg(image).output()?;
    ensure!(made.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// The files of a program's libraries, its loader among them.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new(paths::tool("ldd")?).arg(program).output()?;
    ensure!(output.status.success(), "ldd {}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // `name => /path (address)`, or `/path (address)` for the loader.
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    Ok(text.lines().filter_map(path).collect())
}
