//! The files for name look-ups on the host, in a directory that may be another program's too.

use std::{fs, process::Stdio};

use super::{
    guest::Guest,
    harness::{Space, entries, wait_for},
};

#[test]
fn files_for_name_look_ups_go_where_they_are_asked_for_and_touch_no_others() {
    let space = Space::new();
    let directory = space.path("nss");
    fs::create_dir(&directory).unwrap();
    let (foreign, text) = (directory.join("virbr7.status"), "[]\n");
    fs::write(&foreign, text).unwrap();
    let mut command = space.daemon_command("");
    let mut daemon = command.arg("--nss-dir").arg(&directory).stderr(Stdio::null()).spawn().unwrap();
    let socket = space.path("run/netd.sock");
    wait_for("the daemon's socket", || std::os::unix::net::UnixStream::connect(&socket).is_ok());

    space.start("default");
    let ours = ["virbr0.macs", "virbr0.status", "virbr7.status"];
    wait_for("the files", || entries(&directory) == ours);
    let mut guest = Guest::plug(&space, "default", "vm1");
    guest.lease();
    let said = |ending: &str, what: &str| {
        fs::read_to_string(directory.join(format!("virbr0.{ending}"))).is_ok_and(|text| text.contains(what))
    };
    wait_for("the lease to be there", || said("status", &guest.address.to_string()) && said("macs", "\"vm1\""));
    assert!(!space.path("run/dnsmasq").exists());
    // Everyone may read them.
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory.join("virbr0.status")).unwrap().permissions());
    assert_eq!(mode & 0o444, 0o444);
    space.destroy("default");
    wait_for("the files to go", || entries(&directory) == ["virbr7.status"]);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), text);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
