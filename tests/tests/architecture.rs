//! The house rules a program can see: who imports whom, which files touch the world, that the map is true.
//!
//! Reads the source tree as text; runs nothing but `cargo metadata`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Who may depend on whom inside the workspace. A new arrow is a decision, not an edit: see `docs/decisions`.
const ALLOWED_IMPORTS: [(&str, &[&str]); 7] = [
    ("nat", &[]),
    ("dhcp", &[]),
    ("netd-api", &[]),
    ("netd", &["dhcp", "nat", "netd-api"]),
    ("netd-libvirtd", &["netd-api"]),
    ("vmm", &["netd-api"]),
    ("tests", &["dhcp", "netd-api"]),
];

/// Crates whose types cross the borders of other crates: two versions in the tree would not fit together.
const ONE_VERSION: [&str; 13] = [
    "acpi_tables",
    "kvm-bindings",
    "kvm-ioctls",
    "linux-loader",
    "netlink-packet-core",
    "netlink-packet-route",
    "netlink-sys",
    "rtnetlink",
    "virtio-bindings",
    "virtio-queue",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
];

/// Calls that reach the kernel, the disk, the clock or another process. Only files whose first line says `EDGE` make them.
const WORLD: [&str; 12] = [
    "Command::new",
    "File::open",
    "File::create",
    "Instant::now",
    "OpenOptions::new",
    "SystemTime::now",
    "TcpListener::bind",
    "UdpSocket::bind",
    "UnixListener::bind",
    "UnixStream::connect",
    "std::env::var",
    "thread::sleep",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is inside the workspace").to_owned()
}

/// Every `.rs` file of the product crates, with its path relative to the root. Test files are left out.
fn product_sources() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a readable source tree") {
            let path = entry.expect("a readable directory entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    for dir in ["netd/src", "netd/api/src", "netd/libvirt/src", "vmm/src", "dhcp/src", "nat/src"] {
        walk(&root().join(dir), &mut paths);
    }
    let is_test = |p: &Path| p.components().any(|c| c.as_os_str().to_str().is_some_and(|s| s.starts_with("test")));
    let relative = |p: PathBuf| p.strip_prefix(root()).expect("inside the root").to_owned();
    paths
        .into_iter()
        .map(|p| (relative(p.clone()), p))
        .filter(|(name, _)| !is_test(name))
        .map(|(name, p)| (name.display().to_string(), fs::read_to_string(p).expect("UTF-8 source")))
        .collect()
}

/// The part of a source file before its unit tests.
fn without_unit_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn is_edge(text: &str) -> bool {
    text.lines().next().is_some_and(|first| first.starts_with("//! EDGE"))
}

#[test]
fn crates_import_only_whom_the_design_allows() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED_IMPORTS.into_iter().collect();
    assert_eq!(members, allowed.keys().copied().collect(), "a crate came or went: update the rule and ARCHITECTURE.md");
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let import = dependency["name"].as_str().expect("a name");
            if members.contains(import) && import != name {
                assert!(allowed[name].contains(&import), "{name} must not import {import}");
            }
        }
    }
}

#[test]
fn the_tree_holds_one_version_of_each_shared_crate() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for name in ONE_VERSION {
        let line = format!("name = \"{name}\"");
        let versions = lock.lines().filter(|l| *l == line).count();
        assert_eq!(versions, 1, "{versions} versions of {name} in Cargo.lock");
    }
}

#[test]
fn only_edge_files_touch_the_world() {
    let mut offenders = Vec::new();
    for (name, text) in product_sources() {
        if is_edge(&text) {
            continue;
        }
        let code = without_unit_tests(&text);
        for (number, line) in code.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            if let Some(call) = WORLD.iter().find(|call| line.contains(*call)) {
                offenders.push(format!("{name}:{}: {call}", number + 1));
            }
        }
    }
    assert!(offenders.is_empty(), "not an edge (first line `//! EDGE: …`), yet it calls:\n{}", offenders.join("\n"));
}

#[test]
fn every_edge_is_on_the_map_and_every_path_on_the_map_exists() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named: BTreeSet<&str> = map
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.contains('/') && !word.contains(' ') && !word.starts_with('/') && !word.contains("..."))
        .collect();
    assert!(named.len() > 20, "the map names only {} paths: was its form changed?", named.len());
    let missing: Vec<_> = named.iter().filter(|path| !root().join(path).exists()).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md names what is not there: {missing:?}");
    let unlisted: Vec<_> = product_sources()
        .into_iter()
        .filter(|(name, text)| is_edge(text) && !named.contains(name.as_str()))
        .map(|(name, _)| name)
        .collect();
    assert!(unlisted.is_empty(), "edges that ARCHITECTURE.md does not list: {unlisted:?}");
}

#[test]
fn every_source_file_opens_with_what_it_is_for() {
    let silent: Vec<_> =
        product_sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert!(silent.is_empty(), "files without a first `//!` line: {silent:?}");
}
