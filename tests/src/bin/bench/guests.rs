//! EDGE: a stock guest on vmm beside the same guest on QEMU: same kernel, same image, same network, in turns.
//!
//! Where KVM can't run guests on this machine all of it runs in the lab, both monitors in one lab run; there a second
//! is not a second, and only the ratios mean anything.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use tests::{
    daemon::Daemon,
    guest::Guest,
    initramfs,
    lab::{self, Job, Outcome},
    on_kvm::kvm_runs_guests,
    paths,
};

use crate::table::Table;

/// The argument by which this program knows that it was started in the lab.
pub(crate) const IN_LAB: &str = "--guests-in-lab";

const MEMORY_MIB: u64 = 256;

/// One boot: from exec to the kernel's first line, to user space, to the lease; and the monitor's own memory.
struct Boot {
    kernel: Duration,
    user_space: Duration,
    lease: Duration,
    overhead_kib: u64,
}

/// How a monitor's command line is made for a guest of this name.
type Monitor = fn(&Daemon, &str) -> Result<Command>;

/// One of the times of a boot.
type Part = fn(&Boot) -> Duration;

/// Boots guests here if this machine can, else in the lab.
pub(crate) fn boots(table: &mut Table, samples: usize) -> Result<()> {
    initramfs::guest_image()?;
    if kvm_runs_guests()? {
        return boot_in_turns(table, samples);
    }
    eprintln!("KVM cannot run guests here: guests are measured in the lab");
    let me = std::env::current_exe()?;
    let mut job = Job::new([me.as_os_str(), IN_LAB.as_ref(), samples.to_string().as_ref()]);
    job.timeout = Duration::from_secs(900);
    // Rows come out of the lab as text; everything else there is narration.
    let outcome = lab::run(&job, &mut |line| match Table::row_from(line) {
        Some(row) => table.add_row(row),
        None => eprintln!("  {line}"),
    })?;
    ensure!(outcome == Outcome::Exit(0), "{outcome}");
    Ok(())
}

/// The part that needs KVM.
pub(crate) fn boot_in_turns(table: &mut Table, samples: usize) -> Result<()> {
    let mut netd = Daemon::new("bench")?;
    netd.ok(&["net-start", "default"])?;
    let monitors: [(&str, Monitor); 3] =
        [("vmm", vmm), ("QEMU q35", |d, n| qemu(d, n, "q35")), ("QEMU microvm", |d, n| qemu(d, n, "microvm"))];
    let mut boots: [Vec<Boot>; 3] = [const { Vec::new() }; 3];
    for round in 0..samples {
        for ((name, command), boots) in monitors.iter().zip(&mut boots) {
            let guest = format!("{}{round}", name.replace(' ', "").to_lowercase());
            // The lab loses a guest of any monitor now and then (tests/README.md): told, and not counted.
            match boot(&mut command(&netd, &guest)?, &guest) {
                Ok(boot) => {
                    boots.push(boot);
                    eprintln!("booted {guest}");
                }
                Err(error) => eprintln!("lost: {guest}: {error:#}"),
            }
        }
    }
    netd.finish()?;
    for ((name, _), boots) in monitors.iter().zip(&boots) {
        ensure!(!boots.is_empty(), "no guest booted on {name}");
    }
    let [ours, peers @ ..] = &boots;
    let times = |boots: &[Boot], of: Part| boots.iter().map(of).collect::<Vec<_>>();
    for ((peer, _), theirs) in monitors[1..].iter().zip(peers) {
        let parts: [(&str, Part); 3] = [
            ("guest: exec to kernel's first line", |b| b.kernel),
            ("guest: exec to user space", |b| b.user_space),
            ("guest: exec to lease", |b| b.lease),
        ];
        for (what, of) in parts {
            table.add(what, peer, times(ours, of), times(theirs, of));
        }
        let memory = |boots: &[Boot]| boots.iter().map(|b| b.overhead_kib).collect::<Vec<_>>();
        table.add_memory("monitor's memory beyond the guest's", peer, memory(ours), memory(theirs));
    }
    Ok(())
}

fn boot(command: &mut Command, name: &str) -> Result<Boot> {
    let mut guest = Guest::start(name, command)?;
    let kernel = guest.shows("Linux version")?;
    let user_space = guest.shows("guest: up")?;
    let (_, lease) = guest.lease()?;
    let overhead_kib = overhead(guest.pid())?;
    guest.power_off()?;
    Ok(Boot { kernel, user_space, lease, overhead_kib })
}

fn files() -> Result<(String, String)> {
    let image = initramfs::guest_image()?;
    Ok((image.kernel.display().to_string(), image.initrd.display().to_string()))
}

fn vmm(netd: &Daemon, name: &str) -> Result<Command> {
    let (kernel, initrd) = files()?;
    let mut command = netd.host.command(paths::program("vmm")?);
    command.env("NETD_SOCKET", netd.socket()).args(["run", "--name", name, "--memory"]);
    command.arg(format!("{MEMORY_MIB}M")).args(["--cpus", "1", "--network", "default", "--console", "stdio"]);
    command.args(["--kernel", &kernel, "--initrd", &initrd, "--cmdline", &cmdline(name)]);
    Ok(command)
}

fn qemu(netd: &Daemon, name: &str, machine: &str) -> Result<Command> {
    let (kernel, initrd) = files()?;
    let machine = match machine {
        // PCI as on the other two, so that the same drivers load.
        "microvm" => "microvm,pcie=on,acpi=on,rtc=on",
        other => other,
    };
    let mut command = netd.host.command(paths::program("netd")?);
    command.env("NETD_SOCKET", netd.socket());
    command.args(["port", "exec", "default", "--guest", name, "--"]).arg(paths::tool("qemu-system-x86_64")?);
    command.args(["-enable-kvm", "-cpu", "host", "-M", machine, "-m", &format!("{MEMORY_MIB}M"), "-smp", "1"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.args(["-kernel", &kernel, "-initrd", &initrd, "-append", &cmdline(name)]);
    command.args(["-netdev", "tap,id=n0,fd=3", "-device", "virtio-net-pci,netdev=n0,romfile="]);
    Ok(command)
}

fn cmdline(name: &str) -> String {
    format!("console=ttyS0 guest.name={name}")
}

/// Resident memory of a process that is not its guest's, in KiB: all but the mapping as large as the guest.
fn overhead(pid: u32) -> Result<u64> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).context("the monitor's memory map")?;
    let mut total = 0;
    let mut size = 0;
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let value = |words: &mut std::str::SplitWhitespace<'_>| words.next().and_then(|w| w.parse::<u64>().ok());
        match words.next() {
            Some("Size:") => size = value(&mut words).unwrap_or_default(),
            Some("Rss:") if size < MEMORY_MIB * 1024 / 2 => total += value(&mut words).unwrap_or_default(),
            _ => {}
        }
    }
    Ok(total)
}
