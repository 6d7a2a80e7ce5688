//! Both daemons as root, with no option, no configuration and nothing in the environment: what Debian's virsh finds then.

use std::{fs, os::unix::fs::PermissionsExt, process::Stdio};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use tests::{
    front_door::{READ_ONLY, SOCKET},
    libvirt, paths,
    space::{NOBODY, Running, Space, User, told},
    virsh::{
        compare,
        differences::Virsh,
        play::{self, Terminal},
    },
    wait::{self, PATIENCE},
};

/// A host whose directories are the machine's to look at, and its own to write to.
fn host(name: &str) -> Result<Space> {
    let host = Space::new(name)?;
    host.inside(|| {
        // In memory: not every file system can be the upper one of an overlay.
        let memory = host.dir().join("memory");
        fs::create_dir_all(&memory)?;
        mount(Some("tmpfs"), &memory, Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("mounting memory")?;
        for directory in ["etc", "var/lib"] {
            let [upper, work] = ["upper", "work"].map(|kind| memory.join(kind).join(directory));
            fs::create_dir_all(&upper)?;
            fs::create_dir_all(&work)?;
            fs::set_permissions(&upper, fs::Permissions::from_mode(0o755))?;
            let options = format!("lowerdir=/{directory},upperdir={},workdir={}", upper.display(), work.display());
            let target = format!("/{directory}");
            mount(Some("overlay"), &*target, Some("overlay"), MsFlags::empty(), Some(&*options))
                .with_context(|| format!("mounting {target}"))?;
        }
        Ok(())
    })?;
    Ok(host)
}

fn start(host: &Space, program: &str, args: &[&str]) -> Result<Running> {
    let log = fs::File::create(host.dir().join(format!("{program}.log")))?;
    let mut command = host.command(paths::program(program)?);
    command.args(args).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let child = command.stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Running(child.with_context(|| format!("cannot start {program}"))?))
}

#[test]
fn the_tutorials_lines_work_with_no_option_and_no_configuration() -> Result<()> {
    let host = host("plain")?;
    let _netd = start(&host, "netd", &["daemon"])?;
    let _door = start(&host, "netd-libvirtd", &[])?;
    wait::until_true("virsh gets an answer", PATIENCE, || Ok(host.run("virsh", &["net-list"])?.status.success()))?;
    let recorded = play::read("tutorials")?;
    let played = Terminal::new(&host)?.play(&recorded)?;
    compare::sessions("tutorials", Virsh::Debian12, &recorded, &played, &play::differences()?)?;
    host.check("virsh", &["net-destroy", "default"])?;

    // Others may look and change nothing, by the sockets' modes; members of the group `libvirt` may change things too.
    let as_user = |user: User, args: &[&str]| -> Result<_> {
        let mut command = host.command_as(Some(user), paths::tool("virsh")?);
        command.args(["-c", "qemu:///system"]).args(args).env("HOME", "/nonexistent").stdin(Stdio::null());
        Ok(command.output()?)
    };
    let listed = as_user(NOBODY, &["-r", "net-list", "--all", "--name"])?;
    ensure!(listed.status.success() && listed.stdout.starts_with(b"default\n"), "{}", told(&listed));
    let refused = as_user(NOBODY, &["-r", "net-start", "default"])?;
    assert!(told(&refused).contains("read only access prevents virNetworkCreate"), "{}", told(&refused));
    let refused = as_user(NOBODY, &["net-list"])?;
    assert!(
        told(&refused).contains(&format!("Failed to connect socket to '/var{SOCKET}': Permission denied")),
        "{}",
        told(&refused)
    );
    let group = host.sh("getent group libvirt || true")?;
    let group: Option<u32> = group.split(':').nth(2).and_then(|gid| gid.parse().ok());
    let group = group.context("no group libvirt on this machine: run `make setup-bench`")?;
    let member = User { groups: [group, NOBODY.gid], ..NOBODY };
    let started = as_user(member, &["net-start", "default"])?;
    ensure!(started.status.success(), "{}", told(&started));
    assert_eq!(host.sh(&format!("stat -c '%a %G' {SOCKET} {READ_ONLY}"))?, "660 libvirt\n666 libvirt\n");
    Ok(())
}

#[test]
fn the_path_of_a_libvirtd_is_left_to_it() -> Result<()> {
    let host = Space::new("owned")?;
    libvirt::prepare(&host)?;
    let libvirtd = libvirt::start(&host)?;
    let output = host.command(paths::program("netd-libvirtd")?).output()?;
    let said = told(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for wanted in ["/run/libvirt/libvirt-sock", "libvirtd", "?socket=", "uri_default", "LIBVIRT_DEFAULT_URI"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(libvirt::virsh(&host, &["net-list", "--all"])?.contains("default"), "libvirtd is as it was");
    // Beside it, on a path of its own: the ways it names are ways.
    let own = "/run/netd-test/libvirt-sock";
    let mut beside = host.command(paths::program("netd-libvirtd")?);
    let _beside = Running(beside.args(["--socket", own]).stderr(Stdio::null()).spawn()?);
    let uri = format!("qemu:///system?socket={own}");
    wait::until_true("it answers", PATIENCE, || Ok(host.run("virsh", &["-c", &uri, "uri"])?.status.success()))?;
    let there = host.command(paths::tool("virsh")?).arg("uri").env("LIBVIRT_DEFAULT_URI", &uri).output()?;
    assert!(told(&there).contains(own), "{}", told(&there));
    drop(libvirtd);
    libvirt::end_all(&host);
    Ok(())
}
