//! Captures, with tcpdump as the judge of the files.

use std::{
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::PermissionsExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{libc, sys::signal::Signal};
use tests::{
    daemon::Daemon,
    paths,
    space::{NETD_GROUP, Running, User, told},
    station::Station,
    wait::{self, PATIENCE},
};

/// `netd capture` with these arguments, running.
fn capture(netd: &Daemon, args: &[&str]) -> Result<Running> {
    Ok(Running(command(netd)?.args(args).spawn()?))
}

fn command(netd: &Daemon) -> Result<Command> {
    let mut command = netd.host.command(paths::program("netd")?);
    command.env("NETD_SOCKET", netd.socket()).env("TZ", "UTC").arg("capture");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Waits until the file begins as a capture does, which it does once the sockets are open.
fn begun(file: &str) -> Result<()> {
    let is_there = || Ok(std::fs::metadata(file).is_ok_and(|file| file.len() > 0));
    wait::until_true("the capture has begun", PATIENCE, is_there)
}

/// Ends a capture as Ctrl-C does; what it said.
fn interrupt(mut running: Running) -> Result<String> {
    running.signal(Signal::SIGINT);
    ended(&mut running)
}

fn ended(running: &mut Running) -> Result<String> {
    let status = wait::until("the capture ends", PATIENCE, || Ok(running.0.try_wait()?))?;
    let mut said = String::new();
    running.0.stderr.take().context("a pipe")?.read_to_string(&mut said)?;
    ensure!(status.success(), "{said}");
    Ok(said)
}

/// What tcpdump reads in the file; it must find nothing wrong with it.
fn tcpdump(netd: &Daemon, args: &[&str], file: &str) -> Result<Vec<String>> {
    let output =
        netd.host.command(paths::tool("tcpdump")?).args(["-n", "--nano"]).args(args).args(["-r", file]).output()?;
    ensure!(output.status.success(), "tcpdump: {}", told(&output));
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.lines().all(|line| line.starts_with("reading from file")), "tcpdump: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn pings(station: &Station, count: u32, to: &str) -> Result<()> {
    let count = count.to_string();
    station.space.run("ping", &["-n", "-c", &count, "-i", "0.02", "-W", "1", to]).map(drop)
}

fn path(netd: &Daemon, name: &str) -> Result<String> {
    Ok(netd.host.dir().join(name).to_str().context("a UTF-8 path")?.to_owned())
}

#[test]
fn a_guests_packets_are_in_the_file_once_with_times_names_and_directions() -> Result<()> {
    let mut netd = Daemon::new("guest")?;
    netd.ok(&["net-start", "default"])?;
    let (one, two) = (Station::plug(&netd, "default", "vm1")?, Station::plug(&netd, "default", "vm2")?);
    let (first, second) = (one.lease()?, two.lease()?);
    let file = path(&netd, "vm1.pcapng")?;
    let running = capture(&netd, &["vm1", "-w", &file])?;
    begun(&file)?;
    pings(&one, 3, &second)?;
    pings(&two, 1, "192.168.122.1")?;
    wait::until_true("the pings are in the file", PATIENCE, || {
        Ok(tcpdump(&netd, &["icmp"], &file).is_ok_and(|lines| lines.len() >= 6))
    })?;
    let said = interrupt(running)?;
    assert!(said.contains(" packets captured\n0 packets dropped by the kernel\n"), "{said}");

    let icmp = tcpdump(&netd, &["icmp"], &file)?;
    assert_eq!(icmp.len(), 6, "three there, three back, and nobody else's: {icmp:#?}");
    let requests = tcpdump(&netd, &["icmp[0] = 8"], &file)?;
    assert!(requests.iter().all(|line| line.contains(&format!("{first} > {second}"))), "{requests:#?}");
    let nanoseconds: Vec<&str> = icmp.iter().filter_map(|line| line.split(' ').next()?.split('.').nth(1)).collect();
    assert!(nanoseconds.iter().all(|digits| digits.len() == 9), "{icmp:#?}");
    assert!(nanoseconds.iter().any(|digits| !digits.ends_with("000")), "{icmp:#?}");
    let bytes = std::fs::read(&file)?;
    let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    let port = one.port.as_ref().context("a port")?;
    assert!(has(port.interface.as_bytes()) && has(b"guest vm1, network default"));
    let record = |address: &str, name: &[u8]| -> Result<Vec<u8>> {
        Ok([&address.parse::<std::net::Ipv4Addr>()?.octets()[..], name, &[0]].concat())
    };
    assert!(has(&record(&first, b"vm1")?) && has(&record(&second, b"vm2")?), "names of both ends");
    // epb_flags: the requests came in, unicast to another; the replies went out.
    let flagged = |flags: u8| bytes.windows(12).filter(|w| *w == [2, 0, 4, 0, flags, 0, 0, 0, 0, 0, 0, 0]).count();
    assert!(flagged(2) >= 3 && flagged(1 | 4 << 2) >= 3, "{} out, {} in", flagged(2), flagged(1 | 4 << 2));
    assert_eq!(std::fs::metadata(&file)?.permissions().mode() & 0o777, 0o600, "what guests say is not for everyone");
    drop((one, two));
    netd.finish()
}

#[test]
fn a_networks_ports_are_captured_those_that_come_later_too() -> Result<()> {
    let mut netd = Daemon::new("network")?;
    netd.ok(&["net-start", "default"])?;
    let one = Station::plug(&netd, "default", "vm1")?;
    one.lease()?;
    let file = path(&netd, "default.pcapng")?;
    let running = capture(&netd, &["default", "-w", &file])?;
    begun(&file)?;
    let two = Station::plug(&netd, "default", "vm2")?;
    let second = two.lease()?;
    wait::until_true("both ports' packets are in the file", PATIENCE, || {
        pings(&two, 1, "192.168.122.1")?;
        pings(&one, 1, "192.168.122.1")?;
        let bytes = std::fs::read(&file)?;
        let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        let from = format!("icmp and src {second}");
        Ok(has(b"guest vm1,") && has(b"guest vm2,") && !tcpdump(&netd, &[&from], &file).unwrap_or_default().is_empty())
    })?;
    // A port that goes ends nothing.
    drop(one);
    pings(&two, 1, "192.168.122.1")?;
    interrupt(running)?;
    assert!(!tcpdump(&netd, &["arp or icmp"], &file)?.is_empty());
    drop(two);
    netd.finish()
}

#[test]
fn standard_output_goes_through_a_pipe_while_it_is_captured() -> Result<()> {
    let mut netd = Daemon::new("pipe")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    station.lease()?;
    let interface = station.port.as_ref().context("a port")?.interface.clone();
    let mut running = capture(&netd, &[&interface, "-w", "-", "--snaplen", "64"])?;
    let from: Stdio = running.0.stdout.take().context("a pipe")?.into();
    let mut reader = {
        // Gone with the block, and with it our own copy of the pipe.
        let mut tcpdump = netd.host.command(paths::tool("tcpdump")?);
        tcpdump.args(["-n", "-l", "-c", "2", "-r", "-", "icmp"]).stdin(from);
        Running(tcpdump.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    };
    wait::until("tcpdump has seen enough", PATIENCE, || {
        station.space.run("ping", &["-n", "-c", "1", "-s", "1000", "-W", "1", "192.168.122.1"])?;
        Ok(reader.0.try_wait()?)
    })?;
    let mut text = String::new();
    reader.0.stdout.take().context("a pipe")?.read_to_string(&mut text)?;
    assert!(text.contains("ICMP echo request") && text.contains("length 1008"), "the original length: {text}");
    // Nobody reads any more: it ends by itself, and is content.
    let said = ended(&mut running)?;
    assert!(said.contains("captured"), "{said}");
    drop(station);
    netd.finish()
}

#[test]
fn a_ring_keeps_the_newest_and_a_count_ends_it() -> Result<()> {
    let mut netd = Daemon::new("ring")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    station.lease()?;
    let (ring, counted) = (path(&netd, "ring.pcapng")?, path(&netd, "counted.pcapng")?);
    let mut few = capture(&netd, &["virbr0", "-w", &counted, "--count", "5"])?;
    // Sockets are open once something is in a file; a ring's file is empty until the end.
    let mut keeps = capture(&netd, &["vm1", "-w", &ring, "--ring", "1", "--count", "2500"])?;
    wait::until("the rings are full", PATIENCE, || {
        let flood = ["-n", "-q", "-f", "-c", "500", "-s", "1400", "192.168.122.1"];
        station.space.run("ping", &flood)?;
        Ok(keeps.0.try_wait()?)
    })?;
    let said = ended(&mut keeps)?;
    assert!(
        said.starts_with("2500 packets captured\n") && said.contains(" older packets left out of the ring\n"),
        "{said}"
    );
    let size = std::fs::metadata(&ring)?.len();
    assert!((500_000..=(1 << 20) + 4096).contains(&size), "{size}");
    let kept = tcpdump(&netd, &[], &ring)?.len();
    assert!((400..1000).contains(&kept), "{kept}");
    assert!(ended(&mut few)?.starts_with("5 packets captured\n"));
    assert_eq!(tcpdump(&netd, &[], &counted)?.len(), 5);
    drop(station);
    netd.finish()
}

/// Reads everything that is there.
fn frames(socket: &OwnedFd) -> usize {
    let mut buffer = [0; 2048];
    std::iter::from_fn(|| nix::unistd::read(socket, &mut buffer).ok()).count()
}

#[test]
fn who_is_given_a_socket_hears_that_interface_and_no_other_with_it() -> Result<()> {
    let mut netd = Daemon::new("locked")?;
    netd.ok(&["net-start", "default"])?;
    let station = Station::plug(&netd, "default", "vm1")?;
    station.lease()?;
    let port = station.port.as_ref().context("a port")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (_, socket) = runtime.block_on(async {
        let mut client = netd_api::Client::connect(&netd.socket()).await?;
        client.open_capture(&port.interface, 128).await
    })?;
    pings(&station, 1, "192.168.122.1")?;
    wait::until_true("the port is heard", PATIENCE, || Ok(frames(&socket) > 0))?;

    // SO_DETACH_FILTER takes a value that says nothing.
    let value: libc::c_int = 0;
    // SAFETY: pointer and length are of one live value, which the call only reads.
    let detached = unsafe {
        let (value, size) = ((&raw const value).cast(), size_of_val(&value) as libc::socklen_t);
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_DETACH_FILTER, value, size)
    };
    assert_eq!((detached, nix::errno::Errno::last()), (-1, nix::errno::Errno::EPERM), "the filter is locked");

    // Bound to all interfaces and both directions: still nothing but the port.
    // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
    let mut everywhere: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    everywhere.sll_family = libc::AF_PACKET as u16;
    everywhere.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the pointer and length are of one live sockaddr_ll, which bind only reads.
    let bound = unsafe {
        let size = size_of_val(&everywhere) as libc::socklen_t;
        libc::bind(socket.as_raw_fd(), (&raw const everywhere).cast(), size)
    };
    assert_eq!(bound, 0);
    station.space.ip("link set eth0 down")?;
    wait::until_true("the port is quiet", PATIENCE, || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(frames(&socket) == 0)
    })?;
    netd.host.run("ping", &["-n", "-c", "3", "-i", "0.02", "127.0.0.1"])?;
    assert_eq!(frames(&socket), 0, "loopback is none of its business");
    station.space.ip("link set eth0 up")?;
    wait::until_true("the port is heard again", PATIENCE, || {
        pings(&station, 1, "192.168.122.1")?;
        Ok(frames(&socket) > 0)
    })?;
    drop(station);
    netd.finish()
}

#[test]
fn what_cannot_be_captured_is_said_and_leaves_no_file() -> Result<()> {
    let mut netd = Daemon::new("refused")?;
    netd.ok(&["net-start", "default"])?;
    let file = path(&netd, "none.pcapng")?;
    let said = netd.refused(&["capture", "nobody", "-w", &file])?;
    assert!(said.contains("'nobody'") && said.contains("port-list"), "{said}");
    // An interface of the host that is none of ours.
    assert!(netd.refused(&["capture", "lo", "-w", &file])?.contains("'lo'"));
    assert!(!Path::new(&file).exists());
    for words in [&["--ring", "0"][..], &["--count", "0"], &["--snaplen", "10"], &["--seconds", "0"]] {
        let output = netd.netd(&[&["capture", "default", "-w", &file], words].concat())?;
        assert!(!output.status.success(), "{words:?}");
    }
    let said = netd.refused(&["capture", "default", "--seconds", "1", "-w", "/dev/full"])?;
    assert!(said.contains("No space left on device"), "{said}");

    // The socket for everyone gives no sockets; a member of the group needs no more than that.
    let run = |user: User, file: &str| {
        let mut command = netd.host.command_as(Some(user), paths::program("netd")?);
        command.env("NETD_SOCKET", netd.socket()).args(["capture", "default", "--seconds", "1", "-w", file]);
        Ok::<_, anyhow::Error>(command.output()?)
    };
    let stranger = run(User { uid: 65_533, gid: 65_533, groups: [65_533; 2] }, "/dev/null")?;
    assert!(!stranger.status.success(), "{}", told(&stranger));
    let member = run(User { uid: 65_533, gid: 65_533, groups: [NETD_GROUP; 2] }, "/dev/null")?;
    assert!(member.status.success(), "{}", told(&member));
    netd.finish()
}
