//! Bad input: one clear error that names the thing and the next move, a status that is not 0, and nothing left behind.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::Daemon,
    initramfs, paths,
    snapshot::Snapshot,
    space::{NOBODY, Space, told},
    vmm, xml,
};

/// An error in one line, perhaps with a hint, that names these things.
fn is_clear(output: &Output, names: &[&str]) -> Result<()> {
    ensure!(!output.status.success(), "it was not refused: {}", told(output));
    ensure!(output.status.code().is_some(), "it crashed: {}", told(output));
    let said = String::from_utf8_lossy(&output.stderr);
    for name in names {
        ensure!(said.contains(name), "'{name}' is not named:\n{said}");
    }
    ensure!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "a panic is no message:\n{said}");
    ensure!(said.lines().count() <= 4, "too many words:\n{said}");
    Ok(())
}

/// Defining and creating this must be refused; names what must be named.
fn refuses_network(text: &str, names: &[&str]) -> Result<()> {
    let mut netd = Daemon::new("bad")?;
    netd.create(&xml::nat("blue", "blue0", 120))?;
    let file = netd.file("bad.xml", text)?;
    let before = (netd.ok(&["net-list", "--all"])?, netd.host.sh("nft list ruleset; ip -o link; ip route")?);
    is_clear(&netd.netd(&["net-create", &file])?, names)?;
    is_clear(&netd.netd(&["net-define", &file])?, names).or_else(|error| {
        // What clashes only while both run may be defined, as with virsh.
        if netd.ok(&["net-list", "--all", "--name"])?.contains("bad") {
            is_clear(&netd.netd(&["net-start", "bad"])?, names)?;
            netd.ok(&["net-undefine", "bad"]).map(drop)
        } else {
            Err(error)
        }
    })?;
    let after = (netd.ok(&["net-list", "--all"])?, netd.host.sh("nft list ruleset; ip -o link; ip route")?);
    assert_eq!(before, after);
    netd.finish()
}

#[test]
fn broken_xml_is_refused_with_its_line() -> Result<()> {
    refuses_network("<network>\n  <name>bad</name>\n  <ip address='192.168.121.1'\n</network>\n", &["line 4"])
}

#[test]
fn an_unknown_element_is_refused_by_name_and_line() -> Result<()> {
    let text =
        xml::network("bad", "bad0", "<forward mode='nat'/>", 121, "  <virtualport type='midonet'>\n  </virtualport>\n");
    let line = format!("line {}", text.lines().position(|line| line.contains("virtualport")).context("a line")? + 1);
    refuses_network(&text, &["midonet", &line])
}

#[test]
fn an_overlapping_subnet_is_refused_and_names_the_other_network() -> Result<()> {
    refuses_network(&xml::nat("bad", "bad0", 120), &["192.168.120.0/24", "blue"])
}

#[test]
fn a_subnet_the_host_uses_already_is_refused_and_names_the_interface() -> Result<()> {
    let host = Space::new("used")?;
    host.sh("ip link add office0 type bridge; ip address add 192.168.122.7/30 dev office0; ip link set office0 up")?;
    let mut netd = Daemon::on(host)?;
    let file = netd.file("bad.xml", &xml::nat("bad", "bad0", 122))?;
    is_clear(&netd.netd(&["net-create", &file])?, &["192.168.122.", "office0"])?;
    netd.finish()
}

#[test]
fn a_file_that_is_not_there_is_named() -> Result<()> {
    let mut netd = Daemon::new("nofile")?;
    is_clear(&netd.netd(&["net-define", "/no/such.xml"])?, &["/no/such.xml", "No such file"])?;
    netd.finish()
}

#[test]
fn a_second_daemon_on_the_same_directories_is_refused_and_the_first_goes_on() -> Result<()> {
    let mut netd = Daemon::new("second")?;
    netd.ok(&["net-start", "default"])?;
    let output = netd.daemon_command()?.output()?;
    is_clear(&output, &["already", &netd.pid()?.to_string()])?;
    assert_eq!(netd.ok(&["net-list", "--name"])?.trim(), "default");
    netd.finish()
}

#[test]
fn a_client_without_a_daemon_says_where_it_looked_and_what_to_do() -> Result<()> {
    let host = Space::new("nodaemon")?;
    let socket = host.dir().join("netd.sock");
    let mut command = host.command(paths::program("netd")?);
    let output = command.env("NETD_SOCKET", &socket).args(["net-list"]).output()?;
    is_clear(&output, &[socket.to_str().context("UTF-8")?, "netd daemon"])
}

#[test]
fn an_ordinary_user_may_look_but_not_change_and_is_told_the_group() -> Result<()> {
    let mut netd = Daemon::new("user")?;
    let as_user = |args: &[&str], socket: &str| {
        let program = public_copy(&netd.host, "netd")?;
        let mut command = netd.host.command_as(Some(NOBODY), program);
        let output = command.env("NETD_SOCKET", netd.host.dir().join("run").join(socket)).args(args).output()?;
        anyhow::Ok(output)
    };
    is_clear(&as_user(&["net-start", "default"], "netd.sock")?, &["netd.sock", "group netd"])?;
    assert_eq!(netd.ok(&["net-list", "--name"])?.trim(), "");
    netd.finish()
}

#[test]
fn a_daemon_without_privileges_says_what_it_lacks() -> Result<()> {
    let host = Space::new("unprivileged")?;
    let before = Snapshot::take(&host)?;
    let dir = host.dir().join("own");
    fs::create_dir(&dir)?;
    fs::set_permissions(&dir, Permissions::from_mode(0o777))?;
    let mut command = host.command_as(Some(NOBODY), public_copy(&host, "netd")?);
    command.arg("daemon");
    for option in ["--config-dir", "--state-dir", "--runtime-dir"] {
        command.arg(option).arg(dir.join(&option[2..]));
    }
    is_clear(&output_within(&mut command)?, &["root"])?;
    assert_eq!(fs::read_dir(&dir)?.count(), 0, "it left files behind");
    Snapshot::take(&host)?.same_as(&before)
}

#[test]
fn a_host_without_nft_is_told_which_package_to_install() -> Result<()> {
    let host = Space::new("nonft")?;
    let before = Snapshot::take(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.host.sh("mount -t tmpfs empty /usr/sbin; ! command -v nft")?;
    is_clear(&netd.netd(&["net-start", "default"])?, &["nft", "nftables"])?;
    netd.host.sh("umount /usr/sbin")?;
    assert!(!netd.host.ip("-o link")?.contains("virbr0"), "the half-made bridge is still there");
    netd.stop()?;
    Snapshot::take(&netd.host)?.same_as(&before)?;
    netd.finish_stopped()
}

/// A program where everybody may run it.
fn public_copy(host: &Space, name: &str) -> Result<std::path::PathBuf> {
    let to = host.dir().join(name);
    if !to.exists() {
        paths::copy_program(&paths::program(name)?, &to)?;
    }
    Ok(to)
}

/// The output of a program that may wrongly go on: it is ended after a few seconds.
fn output_within(command: &mut Command) -> Result<Output> {
    use std::{process::Stdio, time::Duration};
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let ended = tests::wait::until("the program ends", Duration::from_secs(10), || Ok(child.try_wait()?));
    if ended.is_err() {
        child.kill()?;
    }
    Ok(child.wait_with_output()?)
}

/// Runs `vmm run` with these words after a kernel that is there.
fn vmm_run(host: &Space, words: &[&str]) -> Result<Output> {
    let image = initramfs::guest_image()?;
    let mut command = vmm::vmm(host)?;
    command.args(["run", "--name", "vm1", "--console", "none"]);
    if !words.contains(&"--kernel") {
        command.arg("--kernel").arg(&image.kernel);
    }
    output_within(command.args(words))
}

#[test]
fn a_kernel_that_is_not_there_or_is_none_is_named() -> Result<()> {
    let host = Space::new("nokernel")?;
    let before = Snapshot::take(&host)?;
    is_clear(&vmm_run(&host, &["--kernel", "/no/vmlinuz"])?, &["/no/vmlinuz", "No such file"])?;
    is_clear(&vmm_run(&host, &["--kernel", "/etc/passwd"])?, &["/etc/passwd"])?;
    is_clear(&vmm_run(&host, &["--initrd", "/no/initrd"])?, &["/no/initrd", "No such file"])?;
    Snapshot::take(&host)?.same_as(&before)
}

#[test]
fn a_disk_image_that_is_not_there_is_named() -> Result<()> {
    let host = Space::new("nodisk")?;
    let before = Snapshot::take(&host)?;
    is_clear(&vmm_run(&host, &["--disk", "/no/disk.raw"])?, &["/no/disk.raw", "No such file"])?;
    Snapshot::take(&host)?.same_as(&before)
}

#[test]
fn no_kvm_is_said_with_the_next_move() -> Result<()> {
    let host = Space::new("nokvm")?;
    let before = Snapshot::take(&host)?;
    host.sh(&format!("mkdir {0}/dev; mount --bind {0}/dev /dev", host.dir().display()))?;
    is_clear(&vmm_run(&host, &[])?, &["/dev/kvm"])?;
    host.sh("umount /dev")?;
    host.sh("touch /run/kvm; chmod 600 /run/kvm; mount --bind /run/kvm /dev/kvm")?;
    is_clear(&vmm_run(&host, &[])?, &["/dev/kvm", "kvm"])?;
    Snapshot::take(&host)?.same_as(&before)
}

#[test]
fn a_guest_on_a_network_that_is_not_active_or_with_a_mac_in_use_is_refused() -> Result<()> {
    let mut netd = Daemon::new("mac")?;
    let run = |words: &[&str]| {
        let image = initramfs::guest_image()?;
        let mut command = vmm::vmm(&netd.host)?;
        command.env("NETD_SOCKET", netd.socket()).args(["run", "--name", "vm1", "--console", "none", "--kernel"]);
        output_within(command.arg(&image.kernel).args(words))
    };
    is_clear(&run(&["--network", "default"])?, &["network 'default' is not active"])?;
    is_clear(&run(&["--network", "nosuch"])?, &["nosuch"])?;
    netd.ok(&["net-start", "default"])?;
    let request = netd_api::PortRequest {
        network: "default".into(),
        guest: Some("other".into()),
        mac: Some("52:54:00:11:22:33".into()),
        queues: 1,
        guards: None,
        portgroup: None,
    };
    let port = netd_api::blocking::add_port(&netd.socket(), request)?;
    is_clear(&run(&["--network", "default,mac=52:54:00:11:22:33"])?, &["52:54:00:11:22:33"])?;
    assert_eq!(netd.json(&["port-list"])?.as_array().context("a list")?.len(), 1);
    drop(port);
    netd.finish()
}

#[test]
fn wrong_words_on_the_command_line_are_refused() -> Result<()> {
    let host = Space::new("words")?;
    for words in [
        &["run", "--name", "vm1"][..],
        &["run", "--name", "vm1", "--kernel", "/boot/x", "--cpus", "0"],
        &["run", "--name", "vm1", "--kernel", "/boot/x", "--memory", "much"],
        &["run", "--name", "vm1", "--kernel", "/boot/x", "--network", "default,colour=red"],
        &["fly"],
    ] {
        let output = vmm::vmm(&host)?.args(words).output()?;
        assert!(matches!(output.status.code(), Some(1 | 2)), "{words:?}: {}", told(&output));
        assert!(output.stderr.starts_with(b"error: "), "{words:?}: {}", told(&output));
    }
    let mut command = host.command(paths::program("netd")?);
    assert!(matches!(command.arg("net-fly").output()?.status.code(), Some(1 | 2)));
    Ok(())
}
