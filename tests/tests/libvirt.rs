//! netd-libvirtd's sockets: found without an option, never taken from anybody, handed over by systemd, for those who may;
//! what a client sees while netd is slow or restarted; what only newer clients ask for.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    front_door::{FrontDoor, READ_ONLY, SOCKET},
    paths,
    space::{NOBODY, Running, Space, User, told},
    trixie,
    wait::{self, PATIENCE},
};

/// Longer than a client is silent before it is asked whether it lives.
const SILENCE: Duration = Duration::from_secs(60);

fn door(host: &Space, args: &[&str]) -> Result<Command> {
    let mut command = host.command(paths::program("netd-libvirtd")?);
    command.args(args).env_remove("NOTIFY_SOCKET").stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command)
}

/// What it says when it does not start.
fn refused(host: &Space, args: &[&str]) -> Result<String> {
    let mut running = Running(door(host, args)?.spawn()?);
    let status = wait::until("it refuses to start", PATIENCE, || Ok(running.0.try_wait()?))?;
    let mut said = String::new();
    running.0.stderr.take().context("stderr")?.read_to_string(&mut said)?;
    ensure!(status.code() == Some(1), "{status}: {said}");
    Ok(said)
}

fn virsh_as(host: &Space, user: Option<User>, args: &[&str]) -> Result<Output> {
    let mut command = host.command_as(user, paths::tool("virsh")?);
    command.args(args).env("HOME", "/nonexistent").env_remove("LIBVIRT_DEFAULT_URI");
    command.output().context("cannot run virsh")
}

fn virsh(host: &Space, args: &[&str]) -> Result<String> {
    let output = virsh_as(host, None, args)?;
    ensure!(output.status.success(), "virsh {}: {}", args.join(" "), told(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn inode(host: &Space, path: &str) -> Result<u64> {
    host.inside(|| Ok(fs::metadata(path)?.ino()))
}

#[test]
fn a_path_that_another_server_has_is_left_to_it() -> Result<()> {
    let host = Space::new("owned")?;
    host.inside(|| Ok(fs::create_dir("/run/libvirt")?))?;
    let listen = format!("UNIX-LISTEN:{SOCKET},fork");
    let other = host.command(paths::tool("socat")?).args([&listen, "EXEC:cat"]).spawn()?;
    let other = Running(other);
    wait::until_true("the other server listens", PATIENCE, || Ok(inode(&host, SOCKET).is_ok()))?;
    let before = inode(&host, SOCKET)?;
    let said = refused(&host, &[])?;
    let owner = format!("{SOCKET} belongs to socat (pid {})", other.0.id());
    for part in [owner.as_str(), "uri_default", "LIBVIRT_DEFAULT_URI", "?socket="] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(inode(&host, SOCKET)?, before);
    assert!(inode(&host, READ_ONLY).is_err(), "it made one of its two sockets");
    // What its own advice says works beside the other one.
    let mut beside = Running(door(&host, &["--socket", "/run/netd/libvirt-sock"])?.stderr(Stdio::null()).spawn()?);
    let uri = "qemu:///system?socket=/run/netd/libvirt-sock";
    wait::until_true("a client is served", PATIENCE, || {
        Ok(virsh_as(&host, None, &["-c", uri, "uri"])?.status.success())
    })?;
    let mut by_variable = host.command(paths::tool("virsh")?);
    let said = by_variable.env("LIBVIRT_DEFAULT_URI", uri).env("HOME", "/nonexistent").arg("hostname").output()?;
    assert!(said.status.success(), "{}", told(&said));
    beside.signal(Signal::SIGTERM);
    wait::until("it ends", PATIENCE, || Ok(beside.0.try_wait()?))?;
    assert!(inode(&host, "/run/netd/libvirt-sock").is_err(), "it left its socket behind");
    // Dead, the other one has no claim any more.
    drop(other);
    let mut mine = Running(door(&host, &[])?.stderr(Stdio::null()).spawn()?);
    wait::until_true("a client is served", PATIENCE, || Ok(virsh_as(&host, None, &["uri"])?.status.success()))?;
    let said = refused(&host, &[])?;
    assert!(said.contains("another netd-libvirtd listens on"), "{said}");
    // Killed, it leaves its sockets, which the next one replaces.
    mine.signal(Signal::SIGKILL);
    wait::until("it ends", PATIENCE, || Ok(mine.0.try_wait()?))?;
    let left = inode(&host, SOCKET)?;
    let _again = Running(door(&host, &[])?.stderr(Stdio::null()).spawn()?);
    wait::until_true("a client is served again", PATIENCE, || Ok(virsh_as(&host, None, &["uri"])?.status.success()))?;
    assert_ne!(inode(&host, SOCKET)?, left);
    Ok(())
}

#[test]
fn what_is_no_socket_is_kept() -> Result<()> {
    let host = Space::new("file")?;
    let path = host.dir().join("precious");
    fs::write(&path, "text")?;
    let said = refused(&host, &["--socket", path.to_str().context("UTF-8")?])?;
    assert!(said.contains("is no socket, and is not removed"), "{said}");
    assert_eq!(fs::read_to_string(&path)?, "text");
    Ok(())
}

#[test]
fn who_may_do_what_is_the_sockets_to_say() -> Result<()> {
    let mut door = FrontDoor::new("access")?;
    let groups = fs::read_to_string("/etc/group")?;
    let libvirt = groups.lines().find_map(|line| line.strip_prefix("libvirt:")?.split(':').nth(1)?.parse().ok());
    let libvirt: u32 = libvirt.context("no group 'libvirt' on this machine: run `make setup-bench`")?;
    let (mode, group) = door.host().inside(|| {
        let is = fs::metadata(SOCKET)?;
        Ok((is.permissions().mode() & 0o777, is.gid()))
    })?;
    assert_eq!((mode, group), (0o660, libvirt));
    let member = User { groups: [libvirt, libvirt], ..NOBODY };
    let system = ["-c", "qemu:///system"];
    let as_user = |user, args: &[&str]| virsh_as(door.host(), Some(user), &[&system, args].concat());
    let said = as_user(member, &["net-start", "default"])?;
    assert!(said.status.success(), "{}", told(&said));
    let said = as_user(NOBODY, &["net-list"])?;
    assert!(!said.status.success() && told(&said).contains("Permission denied"), "{}", told(&said));
    let said = as_user(NOBODY, &["-r", "net-list"])?;
    assert!(said.status.success() && told(&said).contains("default"), "{}", told(&said));
    let said = as_user(NOBODY, &["-r", "net-destroy", "default"])?;
    assert!(told(&said).contains("read only access prevents virNetworkDestroy"), "{}", told(&said));
    door.finish()
}

#[test]
fn sockets_that_systemd_made_are_used_as_they_are_named() -> Result<()> {
    let mut door = FrontDoor::new("activated")?;
    door.stop()?;
    let (full, look) = (door.host().dir().join("full"), door.host().dir().join("look"));
    let mut command = door.host().command(paths::tool("systemd-socket-activate")?);
    command.arg("-l").arg(&full).arg("-l").arg(&look).arg("--fdname=libvirt:libvirt-ro");
    command.args(["-E", "NETD_SOCKET"]).env("NETD_SOCKET", door.netd.socket());
    // As its unit has it: root without any of root's rights.
    command.arg(paths::tool("setpriv")?).args(["--no-new-privs", "--bounding-set", "-all", "--inh-caps=-all"]);
    command.arg(paths::program("netd-libvirtd")?).stderr(Stdio::null());
    let mut running = Running(command.spawn()?);
    let uri = |path: &Path| format!("qemu:///system?socket={}", path.display());
    wait::until_true("systemd's stand-in listens", PATIENCE, || Ok(full.exists() && look.exists()))?;
    assert!(virsh(door.host(), &["-c", &uri(&full), "net-start", "default"])?.contains("started"));
    let status = fs::read_to_string(format!("/proc/{}/status", running.0.id()))?;
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(virsh(door.host(), &["-r", "-c", &uri(&look), "net-list"])?.contains("default"));
    // The client does not know that it may only look, and is told.
    let said = virsh_as(door.host(), None, &["-c", &uri(&look), "net-destroy", "default"])?;
    assert!(told(&said).contains("read only access prevents virNetworkDestroy"), "{}", told(&said));
    assert!(inode(door.host(), SOCKET).is_err(), "it made a socket of its own");
    running.signal(Signal::SIGTERM);
    wait::until("it ends", PATIENCE, || Ok(running.0.try_wait()?))?;
    door.start()?;
    door.finish()
}

#[test]
fn its_units_are_ones_that_systemd_takes() -> Result<()> {
    let host = Space::new("units")?;
    let program = paths::program("netd-libvirtd")?;
    let mut files = Vec::new();
    for name in ["netd-libvirtd.service", "netd-libvirtd.socket", "netd-libvirtd-ro.socket"] {
        let unit = fs::read_to_string(paths::repository().join("packaging").join(name))?;
        let here = unit.replace("/usr/local/bin/netd-libvirtd", program.to_str().context("UTF-8")?);
        // Its manual page, and netd's own unit, are not installed on a machine that only builds.
        let elsewhere = |line: &&str| !line.starts_with("Documentation=") && !line.contains("netd.service");
        let here: String = here.lines().filter(elsewhere).map(|line| format!("{line}\n")).collect();
        let file = host.dir().join(name);
        fs::write(&file, here)?;
        files.push(file.to_str().context("UTF-8")?.to_owned());
    }
    let names: Vec<&str> = files.iter().map(String::as_str).collect();
    let output = host.run("systemd-analyze", &[&["verify"], &names[..]].concat())?;
    assert_eq!((output.status.success(), told(&output).contains("netd-libvirtd")), (true, false), "{}", told(&output));
    Ok(())
}

/// A client of few words.
struct Few {
    stream: UnixStream,
    serial: u32,
}

impl Few {
    fn come(door: &FrontDoor) -> Result<Self> {
        let stream = door.connect(Path::new(SOCKET))?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut few = Few { stream, serial: 0 };
        few.call(1, &[0; 8])?;
        assert_eq!(few.reply()?.2, 0, "not opened");
        Ok(few)
    }

    fn call(&mut self, procedure: u32, args: &[u8]) -> Result<u32> {
        self.serial += 1;
        let length = u32::try_from(28 + args.len())?;
        let words = [length, 0x2000_8086, 1, procedure, 0, self.serial, 0];
        let head: Vec<u8> = words.into_iter().flat_map(u32::to_be_bytes).collect();
        self.stream.write_all(&[&head, args].concat())?;
        Ok(self.serial)
    }

    /// Program, serial, status and payload of what comes next.
    fn reply(&mut self) -> Result<(u32, u32, u32, Vec<u8>)> {
        let mut head = [0; 28];
        self.stream.read_exact(&mut head)?;
        let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let mut payload = vec![0; usize::try_from(word(0))? - 28];
        self.stream.read_exact(&mut payload)?;
        Ok((word(4), word(20), word(24), payload))
    }
}

const LOOKUP_BY_NAME: u32 = 46;
const CREATE: u32 = 39;
const IS_ACTIVE: u32 = 152;
const SUPPORTS_FEATURE: u32 = 60;

#[test]
fn a_slow_call_holds_up_nobody_not_even_its_own_connection() -> Result<()> {
    let mut door = FrontDoor::new("slow")?;
    let hooks = door.netd.config_dir().join("hooks");
    fs::create_dir_all(&hooks)?;
    let (hook, go) = (hooks.join("network"), door.host().dir().join("go"));
    // It gives up after a time that nobody waits for, so that nothing hangs where the test fails.
    let wait_for_go =
        format!("#!/bin/sh\nn=0; until [ -e {} ] || [ $n = 200 ]; do n=$((n+1)); sleep 0.1; done\n", go.display());
    fs::write(&hook, wait_for_go)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;

    let mut few = Few::come(&door)?;
    few.call(LOOKUP_BY_NAME, b"\0\0\0\x07default\0")?;
    let network = few.reply()?.3;
    let slow = few.call(CREATE, &network)?;
    for _ in 0..3 {
        let quick = few.call(IS_ACTIVE, &network)?;
        let (_, serial, status, payload) = few.reply()?;
        assert_eq!((serial, status, payload), (quick, 0, vec![0; 4]), "the slow call came first");
    }
    assert!(virsh(door.host(), &["net-list", "--inactive"])?.contains("default"));
    fs::write(&go, "")?;
    let (_, serial, status, _) = few.reply()?;
    assert_eq!((serial, status), (slow, 0));
    assert!(virsh(door.host(), &["net-list"])?.contains("default"));
    door.finish()
}

#[test]
fn more_calls_than_are_answered_at_once_are_all_answered() -> Result<()> {
    const CALLS: u32 = 2000;
    let mut door = FrontDoor::new("burst")?;
    let mut few = Few::come(&door)?;
    few.call(LOOKUP_BY_NAME, b"\0\0\0\x07default\0")?;
    let network = few.reply()?.3;
    let mut writer = Few { stream: few.stream.try_clone()?, serial: few.serial };
    let written = std::thread::spawn(move || (0..CALLS).try_for_each(|_| writer.call(IS_ACTIVE, &network).map(drop)));
    let mut answered = std::collections::BTreeSet::new();
    for _ in 0..CALLS {
        let (_, serial, status, payload) = few.reply()?;
        assert_eq!((status, payload), (0, vec![0; 4]));
        answered.insert(serial);
    }
    assert_eq!(answered, (few.serial + 1..=few.serial + CALLS).collect());
    written.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    drop(few);
    door.finish()
}

#[test]
fn only_a_client_that_can_answer_is_asked_whether_it_lives() -> Result<()> {
    const KEEPALIVE: u32 = 0x6b65_6570;
    let mut door = FrontDoor::new("alive")?;
    let (mut answers, mut silent) = (Few::come(&door)?, Few::come(&door)?);
    answers.call(SUPPORTS_FEATURE, &[0, 0, 0, 10])?;
    assert_eq!(answers.reply()?.3, [0, 0, 0, 1]);
    let (program, _, _, payload) = answers.reply()?;
    assert_eq!((program, payload), (KEEPALIVE, Vec::new()));
    // The other one was quiet for longer, and nothing came but what it asks for now.
    let serial = silent.call(66, &[])?;
    let (program, answered, ..) = silent.reply()?;
    assert_eq!((program, answered), (0x2000_8086, serial));
    // A ping of a client is answered.
    let ping: Vec<u8> = [28, KEEPALIVE, 1, 1, 2, 0, 0].into_iter().flat_map(u32::to_be_bytes).collect();
    silent.stream.write_all(&ping)?;
    assert_eq!(silent.reply()?.0, KEEPALIVE);
    drop((answers, silent));
    door.finish()
}

#[test]
fn clients_stay_connected_while_netd_is_restarted_and_hear_of_what_happens_then() -> Result<()> {
    let mut door = FrontDoor::new("restarted")?;
    let mut few = Few::come(&door)?;
    few.call(LOOKUP_BY_NAME, b"\0\0\0\x07default\0")?;
    let network = few.reply()?.3;
    let heard = door.host().dir().join("heard");
    let mut listener = door.host().command(paths::tool("virsh")?);
    listener.args(["net-event", "--loop", "--event", "lifecycle"]).stdin(Stdio::piped());
    let listener: Child = listener.env("HOME", "/nonexistent").stdout(fs::File::create(&heard)?).spawn()?;
    let listener = Running(listener);
    // Whether it listens shows in what it hears.
    wait::until_true("an event is heard", PATIENCE, || {
        virsh(door.host(), &["net-start", "default"])?;
        virsh(door.host(), &["net-destroy", "default"])?;
        Ok(fs::read_to_string(&heard)?.contains("event 'lifecycle' for network default: Stopped"))
    })?;
    door.netd.stop()?;
    wait::until_true("it is noticed", PATIENCE, || Ok(door.log().contains("no events for now")))?;
    door.netd.start()?;
    few.call(IS_ACTIVE, &network)?;
    assert_eq!((few.reply()?.2, fs::write(&heard, "")?), (0, ()), "the connection went with netd");
    wait::until_true("events are heard again", PATIENCE, || {
        virsh(door.host(), &["net-start", "default"])?;
        virsh(door.host(), &["net-destroy", "default"])?;
        Ok(fs::read_to_string(&heard)?.contains("network default: Started"))
    })?;
    drop(listener);
    // Without netd the answer names it.
    door.netd.stop()?;
    let said = virsh_as(door.host(), None, &["net-list"])?;
    assert!(told(&said).contains("failed to connect to netd at"), "{}", told(&said));
    door.netd.start()?;
    door.finish()
}

#[test]
fn titles_descriptions_and_metadata_are_kept_for_those_clients_that_know_them() -> Result<()> {
    const URI: &str = "http://example.org/x";
    let mut door = FrontDoor::new("metadata")?;
    let newer = trixie::programs(door.host())?.join("virsh");
    let newer = newer.to_str().context("UTF-8")?;
    let say = |args: &[&str]| -> Result<String> {
        let output = door.host().command(newer).args(args).env("HOME", "/nonexistent").output()?;
        ensure!(output.status.success(), "virsh {}: {}", args.join(" "), told(&output));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let heard = door.host().dir().join("heard");
    let mut listener = door.host().command(newer);
    listener.args(["net-event", "--loop", "--event", "metadata-change"]).stdin(Stdio::piped());
    let listener: Child = listener.env("HOME", "/nonexistent").stdout(fs::File::create(&heard)?).spawn()?;
    let listener = Running(listener);
    let hears = |what: &str| {
        wait::until_true(what, PATIENCE, || {
            Ok(fs::read_to_string(&heard)?.contains(&format!("event 'metadata-change' for network default: {what}")))
        })
    };
    wait::until_true("it listens", PATIENCE, || {
        say(&["net-desc", "default", "--title", "A title"])?;
        Ok(fs::read_to_string(&heard)?.contains("type title, uri <null>"))
    })?;
    assert_eq!(say(&["net-desc", "default"])?, "No description for network: default");
    assert_eq!(say(&["net-desc", "default", "Some", "words"])?, "Network description updated successfully");
    hears("type description, uri <null>")?;
    assert_eq!(say(&["net-desc", "default"])?, "Some words");
    assert!(say(&["net-list", "--all", "--title"])?.ends_with("A title"));
    say(&["net-metadata", "default", URI, "--key", "x", "--set", "<a b='1'>c</a>"])?;
    hears(&format!("type element, uri {URI}"))?;
    say(&["net-start", "default"])?;
    // Live and in the definition it is not the same from now on.
    say(&["net-metadata", "default", URI, "--remove", "--live"])?;
    assert_eq!(say(&["net-metadata", "default", URI, "--live"])?, "");
    assert_eq!(say(&["net-metadata", "default", URI, "--config"])?, "<a b='1'>c</a>");
    say(&["net-destroy", "default"])?;
    let output = door.host().command(newer).args(["net-desc", "default", "--live"]).output()?;
    assert!(told(&output).contains("Requested operation is not valid: network is not running"), "{}", told(&output));
    drop(listener);
    door.finish()
}
