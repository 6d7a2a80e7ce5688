//! Files by TFTP for real clients: curl and busybox. Needs root and both; without them these tests fail.

mod lab;

use std::{
    fs::{self, Permissions},
    net::Ipv4Addr,
    os::unix::fs::{PermissionsExt, symlink},
};

use dhcp::{Services, config::TftpConfig};
use lab::{Guest, NETWORK, config, in_namespace, serve, until};

/// What curl ends with after an error of the server (curl(1)).
const NOT_FOUND: i32 = 68;
const ACCESS_VIOLATION: i32 = 69;

/// The network with files of this directory.
fn with_files(root: &std::path::Path) -> dhcp::config::NetworkConfig {
    let tftp = TftpConfig { address: Ipv4Addr::new(192, 168, 122, 1), root: root.to_owned(), mtu: None };
    dhcp::config::NetworkConfig { tftp: vec![tftp], ..config() }
}

/// A guest with an address.
async fn guest(services: &Services) -> Guest {
    let guest = Guest::new(1);
    let _client = guest.start(&format!("udhcpc -f -i eth0 -s {}", guest.path("hook").display()));
    until("the guest is bound", || guest.seen().contains("event=bound")).await;
    assert_eq!(services.leases(NETWORK).len(), 1);
    // The client says so and then configures it; it ends with this function.
    while !String::from_utf8_lossy(&guest.output("ip -4 address show dev eth0").await.stdout).contains("192.168.122.") {
    }
    guest
}

/// Bytes that are other in every block, and end in the middle of one.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 7 + at % 251) as u8).collect()
}

#[test]
fn rfc1350_rfc2348_rfc2349_files_come_whole_with_blocks_of_any_size() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("boot");
        fs::create_dir_all(root.join("deep")).unwrap();
        let sizes = [("empty", 0), ("one", 512), ("large", 3_000_001), ("deep/er", 1468 * 3)];
        for (name, size) in sizes {
            fs::write(root.join(name), content(size)).unwrap();
        }
        let services = serve(directory.path(), with_files(&root)).await;
        let guest = guest(&services).await;
        for (name, size) in sizes {
            for options in ["--tftp-no-options", "--tftp-blksize 8000", "--tftp-blksize 100"] {
                // Blocks of 100 bytes would be 30,000; and curl takes a size of 0, which is true, for a mistake.
                let too_many = size > 1_000_000 && options.ends_with(" 100");
                if too_many || size == 0 && options != "--tftp-no-options" {
                    continue;
                }
                let got = guest.path("got");
                let line = format!("curl -sS {options} -o {} tftp://192.168.122.1/{name}", got.display());
                let output = guest.output(&line).await;
                assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
                // curl makes no file of nothing.
                assert!(fs::read(&got).unwrap_or_default() == content(size), "{line}: other bytes");
                let _ = fs::remove_file(&got);
            }
        }
        // As ROMs write it.
        let got = guest.path("got");
        let line = format!("busybox tftp -g -b 1024 -r \\deep\\er -l {} 192.168.122.1", got.display());
        let output = guest.output(&line).await;
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read(&got).unwrap() == content(1468 * 3));
    });
}

#[test]
fn nothing_outside_the_root_nothing_unreadable_and_nothing_to_write() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("boot");
        fs::create_dir_all(root.join("folder")).unwrap();
        fs::write(directory.path().join("secret"), "s").unwrap();
        fs::write(root.join("there"), "there").unwrap();
        fs::write(root.join("private"), "p").unwrap();
        fs::set_permissions(root.join("private"), Permissions::from_mode(0o640)).unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(directory.path().join("secret"), root.join("out-absolute")).unwrap();
        symlink("/proc/self/environ", root.join("magic")).unwrap();
        symlink("there", root.join("inside")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
        let services = serve(directory.path(), with_files(&root)).await;
        let guest = guest(&services).await;
        let fetch = |name: &str| format!("curl -sS --path-as-is tftp://192.168.122.1/{name}");
        for name in ["there", "inside", "folder/../there", "/there"] {
            let output = guest.output(&fetch(name)).await;
            assert_eq!(String::from_utf8_lossy(&output.stdout), "there", "{name}");
        }
        for name in ["../secret", "folder/../../secret", "out", "out-absolute", "magic", "folder", "pipe", "", "nope"] {
            let output = guest.output(&fetch(name)).await;
            assert!(output.stdout.is_empty() && output.status.code() == Some(NOT_FOUND), "{name}: {output:?}");
        }
        let private = guest.output(&fetch("private")).await;
        assert_eq!(private.status.code(), Some(ACCESS_VIOLATION), "{private:?}");
        let put = format!("busybox tftp -p -l {} -r new 192.168.122.1", guest.path("hook").display());
        let output = guest.output(&put).await;
        assert!(!output.status.success() && !root.join("new").exists(), "{output:?}");

        // Another directory takes its place, and none at the end.
        let other = directory.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("there"), "elsewhere").unwrap();
        services.reconfigure(with_files(&other)).await.unwrap();
        let output = guest.output(&fetch("there")).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "elsewhere");
        let missing = services.reconfigure(with_files(&directory.path().join("missing"))).await.unwrap_err();
        assert!(missing.to_string().contains("/missing by TFTP on network 'default'"), "{missing}");
        let output = guest.output(&fetch("there")).await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), "elsewhere", "as it was");
        services.stop(NETWORK).await;
        assert!(std::net::UdpSocket::bind("192.168.122.1:69").is_ok(), "the port is free");
    });
}
