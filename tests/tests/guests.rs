//! Stock guests on our vmm, plugged into our networks: the main job from end to end.
//!
//! The guests run Debian's cloud kernel as it is. Where this machine's KVM can't run them the file runs in the lab.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::{
    daemon::Daemon,
    guest::Guest,
    internet::{HOST, Internet, PAGE, WEB, WEB_NAME},
    on_kvm::on_kvm,
    space::Space,
    vmm::Machine,
    wait,
};

fn world() -> Result<(Daemon, Internet)> {
    let host = Space::new("guests")?;
    let internet = Internet::connect(&host)?;
    let netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    Ok((netd, internet))
}

/// The names of a process's threads.
fn threads(pid: u32) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        names.push(fs::read_to_string(entry?.path().join("comm"))?.trim().to_owned());
    }
    names.sort();
    Ok(names)
}

/// A line of `/proc/PID/status`.
fn status_line(pid: u32, key: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    Ok(line.trim_start_matches(':').trim().to_owned())
}

#[test]
fn two_stock_guests_lease_find_each_other_by_name_and_reach_the_internet() -> Result<()> {
    on_kvm(|| {
        let (mut netd, internet) = world()?;
        let mut vm1 = Machine::new("vm1").boot(&netd)?;
        let mut vm2 = Machine::new("vm2").cpus(2).boot(&netd)?;
        let ((address1, _), (address2, _)) = (vm1.lease()?, vm2.lease()?);
        assert_ne!(address1, address2);
        for (name, address) in [("vm1", &address1), ("vm2", &address2)] {
            assert!(netd.ok(&["domifaddr", name])?.contains(&format!("{address}/24")));
            assert!(netd.ok(&["net-dhcp-leases", "default"])?.contains(name));
        }
        // No privilege of any kind.
        assert_eq!(status_line(vm1.pid(), "Uid")?.split_whitespace().next(), Some("65534"));
        assert_eq!(status_line(vm1.pid(), "CapEff")?, "0000000000000000");
        let names = threads(vm2.pid())?;
        for name in ["vcpu0", "vcpu1", "net0"] {
            assert!(names.iter().any(|thread| thread == name), "no thread {name}: {names:?}");
        }

        assert_eq!(vm2.ok("nproc")?, "2");
        assert!(vm1.ok("ping -c 3 vm2")?.contains(&address2));
        assert!(vm2.ok("ping -c 3 vm1")?.contains(&address1));
        assert_eq!(vm1.ok(&format!("wget -q -O - http://{WEB_NAME}/"))?, PAGE.trim());
        let visit = internet.visits().pop().context("a visit")?;
        assert_eq!(visit.source.ip(), HOST);

        assert!(vm1.power_off()?.success());
        assert!(vm2.power_off()?.success());
        netd.finish()
    })
}

#[test]
fn a_killed_daemon_leaves_a_guests_connection_alone_and_the_next_one_knows_it() -> Result<()> {
    on_kvm(|| {
        let (mut netd, _internet) = world()?;
        let mut vm1 = Machine::new("vm1").boot(&netd)?;
        let (address, _) = vm1.lease()?;
        vm1.ok(&format!("(wget -q -O - http://{WEB}/ticks >/ticks; echo ended >>/ticks) &"))?;
        let ticks = |vm1: &mut Guest| anyhow::Ok(vm1.ok("grep -c tick /ticks || true")?.parse::<u32>()?);
        wait::until_true("the connection carries something", tests::guest::PATIENCE, || Ok(ticks(&mut vm1)? > 0))?;

        let ports = netd.json(&["port-list"])?;
        netd.kill()?;
        let before = ticks(&mut vm1)?;
        wait::until_true("it goes on without the daemon", tests::guest::PATIENCE, || Ok(ticks(&mut vm1)? > before))?;
        netd.start()?;
        assert_eq!(netd.ok(&["net-list", "--name"])?.trim(), "default");
        assert_eq!(netd.json(&["port-list"])?, ports);
        assert!(netd.ok(&["net-dhcp-leases", "default"])?.contains(&address));
        assert!(netd.ok(&["domifaddr", "vm1"])?.contains(&address));
        let before = ticks(&mut vm1)?;
        wait::until_true("it goes on after the restart", tests::guest::PATIENCE, || Ok(ticks(&mut vm1)? > before))?;
        assert_eq!(vm1.ok("grep -c ended /ticks || true")?, "0", "it is the same connection");

        // The new daemon serves the guest: it renews, and names are answered.
        let mark = vm1.mark();
        vm1.ok("killall -USR1 udhcpc")?;
        assert_eq!(vm1.lease_since(mark)?, address);
        assert!(vm1.ok("nslookup vm1 192.168.122.1")?.contains(&address));
        assert!(vm1.power_off()?.success());
        netd.finish()
    })
}

#[test]
fn poweroff_reboot_and_the_power_button_do_what_they_say() -> Result<()> {
    on_kvm(|| {
        let (mut netd, _internet) = world()?;
        let mut vm1 = Machine::new("vm1").boot(&netd)?;
        let (address, _) = vm1.lease()?;
        vm1.shows("guest: ready")?;
        let mark = vm1.mark();
        vm1.type_line("run 0 reboot")?;
        vm1.shows_since(mark, "guest: reboot")?;
        assert_eq!(vm1.lease_since(mark)?, address, "the same guest after a reboot");

        vm1.shows_since(mark, "guest: ready")?;
        vm1.signal(Signal::SIGINT);
        vm1.shows_since(mark, "guest: power button")?;
        assert!(vm1.ends()?.success());

        // Twice means now, whatever the guest does.
        let mut vm2 = Machine::new("vm2").boot(&netd)?;
        vm2.shows("Linux version")?;
        vm2.signal(Signal::SIGINT);
        vm2.signal(Signal::SIGINT);
        vm2.ends()?;
        netd.finish()
    })
}

#[test]
fn disks_keep_what_is_written_and_read_only_ones_take_nothing() -> Result<()> {
    on_kvm(|| {
        let (mut netd, _internet) = world()?;
        let dir = netd.host.dir().join("disks");
        fs::create_dir(&dir)?;
        let disk = |name: &str| {
            let path = dir.join(name);
            fs::write(&path, vec![0; 8 << 20])?;
            nix::unistd::chown(&path, Some(65_534.into()), None)?;
            anyhow::Ok(path.to_str().context("UTF-8")?.to_owned())
        };
        let (data, fixed) = (disk("data.raw")?, disk("fixed.raw")?);
        let read_only = format!("{fixed},readonly");
        let mut vm1 = Machine::new("vm1").with(&["--disk", &data, "--disk", &read_only]).boot(&netd)?;
        vm1.ok("echo hello >/tmp-text; dd if=/tmp-text of=/dev/vda bs=512 seek=100 conv=sync,fsync 2>/dev/null")?;
        assert_eq!(vm1.ok("dd if=/dev/vda bs=512 skip=100 count=1 2>/dev/null | head -c 5")?, "hello");
        assert_eq!(
            vm1.ok("cat /sys/block/vda/size /sys/block/vdb/ro")?.split_whitespace().collect::<Vec<_>>(),
            ["16384", "1"]
        );
        assert_ne!(vm1.run("dd if=/tmp-text of=/dev/vdb conv=fsync")?.0, 0);
        assert!(vm1.ok("head -c 16 /dev/hwrng | wc -c")?.contains("16"));
        assert!(vm1.power_off()?.success());
        let written = fs::read(Path::new(&data))?;
        assert_eq!(&written[51_200..51_205], b"hello");
        assert!(fs::read(Path::new(&fixed))?.iter().all(|byte| *byte == 0));
        netd.finish()
    })
}

#[test]
fn a_guest_that_is_killed_leaves_no_port_behind() -> Result<()> {
    on_kvm(|| {
        let (mut netd, _internet) = world()?;
        let vm1 = Machine::new("vm1").boot(&netd)?;
        vm1.shows("guest: up")?;
        ensure!(netd.json(&["port-list"])?.as_array().context("a list")?.len() == 1);
        vm1.kill();
        netd.finish()
    })
}

#[test]
fn qemu_with_kvm_on_a_port_of_ours_is_one_more_guest() -> Result<()> {
    on_kvm(|| {
        let (mut netd, _internet) = world()?;
        let image = tests::initramfs::guest_image()?;
        let mut command: Command = netd.host.command(tests::paths::program("netd")?);
        command.env("NETD_SOCKET", netd.socket()).args(["port", "exec", "default", "--guest", "qemu1", "--"]);
        command.arg(tests::paths::tool("qemu-system-x86_64")?).args(["-enable-kvm", "-cpu", "host", "-m", "256"]);
        command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]);
        command.args(["-netdev", "tap,id=n0,fd=3", "-device", "virtio-net-pci,netdev=n0,romfile="]);
        command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(&image.initrd);
        command.args(["-append", "console=ttyS0 quiet guest.name=qemu1"]);
        let mut qemu = Guest::start("qemu1", &mut command)?;
        qemu.lease()?;
        assert!(qemu.ok("ping -c 1 192.168.122.1")?.contains("1 packets received"));
        assert!(qemu.power_off()?.success());
        netd.finish()
    })
}
