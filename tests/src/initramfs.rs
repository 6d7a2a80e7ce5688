//! EDGE: builds the test guest's initramfs: busybox, the cloud kernel's virtio modules, our `/init`.
//!
//! It reads Debian's packages and writes one file under `.cache/`, again only when an input changed. What the guest
//! does once it runs is in `tests/guest/init`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    cpio::Archive,
    paths::{self, Flavour, Kernel},
};

/// What a stock guest needs before it can reach anything: modules are loaded in this order, each after what it
/// depends on.
const MODULES: [&str; 6] = ["virtio_pci", "virtio_net", "virtio_blk", "virtio-rng", "button", "evdev"];

const INIT: &str = include_str!("../guest/init");
const UDHCPC: &str = include_str!("../guest/udhcpc");
const POWER_BUTTON: &str = "#!/bin/sh\necho 'guest: power button' >/dev/console\nexec poweroff\n";

/// What a guest boots from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestImage {
    /// Debian's stock cloud kernel, a bzImage.
    pub kernel: PathBuf,
    /// Our initramfs.
    pub initrd: PathBuf,
}

/// The guest image for the newest cloud kernel, built if it is not there or older than what it is made of.
pub fn guest_image() -> Result<GuestImage> {
    let kernel = paths::kernel(Flavour::Cloud)?;
    let busybox = paths::tool("busybox")?;
    let modules = load_order(&kernel, &MODULES)?;
    let directory = paths::cache().join("guest");
    let initrd = directory.join(format!("initrd-{}.img", kernel.version));
    let stamp = directory.join(format!("initrd-{}.stamp", kernel.version));
    let inputs = fingerprint(modules.iter().chain([&busybox]))?;
    if !(initrd.is_file() && fs::read_to_string(&stamp).is_ok_and(|old| old == inputs)) {
        let archive = build(&busybox, &modules)?;
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        replace(&initrd, &archive)?;
        replace(&stamp, inputs.as_bytes())?;
    }
    Ok(GuestImage { kernel: kernel.image, initrd })
}

/// Changes when any input does: its path, size or time, or a script that is built in.
///
/// Paths without symbolic links: `/bin/busybox` here may be `/usr/bin/busybox` in the lab, by another PATH.
fn fingerprint<'a>(inputs: impl Iterator<Item = &'a PathBuf>) -> Result<String> {
    let mut text = String::new();
    for path in inputs {
        let path = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
        let meta = fs::metadata(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text += &format!("{} {} {}\n", path.display(), meta.len(), meta.mtime());
    }
    Ok(text + INIT + UDHCPC + POWER_BUTTON)
}

/// Writes a file so that whoever opens it sees the old or the new contents, never half.
fn replace(path: &Path, contents: &[u8]) -> Result<()> {
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, contents).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot rename to {}", path.display()))
}

fn build(busybox: &Path, modules: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/bin", "/dev", "/etc", "/etc/acpi", "/etc/acpi/PWRF", "/modules"] {
        archive.directory(directory);
    }
    archive.character_device("/dev/console", 5, 1);
    archive.character_device("/dev/null", 1, 3);
    archive.file("/bin/busybox", 0o755, &static_busybox(busybox)?);
    archive.file("/init", 0o755, INIT.as_bytes());
    archive.file("/etc/udhcpc", 0o755, UDHCPC.as_bytes());
    archive.file("/etc/acpi/PWRF/00000080", 0o755, POWER_BUTTON.as_bytes());
    let mut order = String::new();
    for path in modules {
        let name = module_name(path);
        archive.file(&format!("/modules/{name}"), 0o644, &uncompressed(path)?);
        order += &name;
        order.push('\n');
    }
    archive.file("/modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// busybox as a file; one that needs shared libraries would not start in the guest.
fn static_busybox(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let loader = b"/lib64/ld-linux";
    let dynamic = bytes.windows(loader.len()).any(|window| window == loader);
    ensure!(!dynamic, "{} is not static: install the package busybox-static (`make setup`)", path.display());
    Ok(bytes)
}

/// `virtio_net.ko` for `/lib/modules/…/virtio_net.ko.xz`.
fn module_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.split(".ko").next().unwrap_or_default();
    format!("{stem}.ko")
}

fn uncompressed(path: &Path) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|ext| ext.to_str()) {
        Some("ko") => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => bail!("{} is no kernel module this program can unpack", path.display()),
    };
    let output = Command::new(paths::tool(unpacker)?).arg("-dc").arg(path).output()?;
    ensure!(output.status.success(), "cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Modules of the guest's kernel with all they need, by file name and unpacked, in the order to load them.
pub fn modules(wanted: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
    let files = load_order(&paths::kernel(Flavour::Cloud)?, wanted)?;
    files.iter().map(|path| Ok((module_name(path), uncompressed(path)?))).collect()
}

/// The files of these modules and all they need, in the order to load them.
fn load_order(kernel: &Kernel, wanted: &[&str]) -> Result<Vec<PathBuf>> {
    let read = |name: &str| {
        let path = kernel.modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let order = order_from(&dependencies, &builtin, wanted)
        .with_context(|| format!("kernel {} lacks a driver guests need", kernel.version))?;
    Ok(order.into_iter().map(|path| kernel.modules.join(path)).collect())
}

/// Reads `modules.dep` (`path: path…`, each line's dependencies in the order opposite to loading).
fn order_from(dependencies: &str, builtin: &str, wanted: &[&str]) -> Result<Vec<String>> {
    let lines: BTreeMap<String, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(Path::new(path)), (path, needs.split_whitespace().collect())))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let file = format!("{name}.ko");
        let Some((path, needs)) = lines.get(&file) else {
            let inside = builtin.lines().any(|line| module_name(Path::new(line)) == file);
            ensure!(inside, "no module {name}");
            continue;
        };
        for step in needs.iter().rev().chain([path]) {
            if !order.iter().any(|known| known == step) {
                order.push((*step).to_owned());
            }
        }
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/v/virtio_net.ko: kernel/f/failover.ko kernel/v/virtio.ko kernel/v/ring.ko\n\
                                kernel/v/virtio_blk.ko.xz: kernel/v/virtio.ko kernel/v/ring.ko\n\
                                kernel/v/ring.ko:\n";

    #[test]
    fn modules_load_after_what_they_depend_on_and_only_once() {
        let order = order_from(DEPENDENCIES, "", &["virtio_net", "virtio_blk"]).unwrap();
        assert_eq!(
            order,
            [
                "kernel/v/ring.ko",
                "kernel/v/virtio.ko",
                "kernel/f/failover.ko",
                "kernel/v/virtio_net.ko",
                "kernel/v/virtio_blk.ko.xz"
            ]
        );
    }

    #[test]
    fn a_driver_inside_the_kernel_needs_no_module_and_one_nowhere_is_an_error() {
        assert_eq!(order_from("", "kernel/d/evdev.ko\n", &["evdev"]).unwrap(), Vec::<String>::new());
        let error = order_from("", "", &["evdev"]).unwrap_err();
        assert_eq!(error.to_string(), "no module evdev");
    }
}
