//! Every device of the machine under a stock kernel's own drivers, and what is changed while the guest runs: by `vmm
//! control` and by the sockets that `vmm run` makes. One guest does it all, because a boot is dear in the lab.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{
    daemon::Daemon,
    guest::{Guest, PATIENCE},
    on_kvm::on_kvm,
    paths,
    space::Space,
    tools_disk,
    vmm::Machine,
    wait,
};

const MIB: u64 = 1 << 20;

/// `vmm control` on a guest's socket.
struct Control(PathBuf);

impl Control {
    fn ok(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(paths::program("vmm")?).arg("control").arg(&self.0).args(words).output()?;
        ensure!(output.status.success(), "vmm control {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json(&self, words: &[&str], key: &str) -> Result<Value> {
        Ok(serde_json::from_str::<Value>(&self.ok(words)?)?[key].take())
    }
}

/// Memory of a process that is in the host's memory, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

#[test]
fn a_stock_guest_uses_every_device_and_is_changed_while_it_runs() -> Result<()> {
    on_kvm(|| {
        let mut netd = Daemon::on(Space::new("devices")?)?;
        netd.ok(&["net-start", "default"])?;
        let dir = netd.host.dir().join("devices");
        fs::create_dir(&dir)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777))?;
        let path = |name: &str| dir.join(name);
        let word = |name: &str| path(name).display().to_string();
        tools_disk::build(&path("tools.raw"))?;
        fs::write(path("data.raw"), vec![0x55; 8 << 20])?;
        nix::unistd::chown(&path("data.raw"), Some(65_534.into()), None)?;
        let (tools, data) = (word("tools.raw") + ",readonly", word("data.raw") + ",serial=data-1,queues=2");
        let (control, vsock) = (word("control"), format!("cid=42,socket={}", word("vsock")));
        let machine = Machine::new("vm1").cpus(2).with(&["--disk", &tools, "--disk", &data]);
        let mut vm1 =
            machine.with(&["--system-serial", "ds=nocloud", "--control", &control, "--vsock", &vsock]).boot(&netd)?;
        let control = Control(control.into());
        vm1.lease()?;
        vm1.ok(tools_disk::MOUNT)?;

        disks(&mut vm1, &control, &path("data.raw"))?;
        memory(&mut vm1, &control)?;
        sockets(&mut vm1, &path("vsock"))?;
        link(&mut vm1, &control)?;
        confined(vm1.pid())?;
        let events = Command::new(paths::program("vmm")?)
            .arg("control")
            .arg(&control.0)
            .arg("events")
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        pauses(&mut vm1, &control)?;

        let mark = vm1.mark();
        control.ok(&["power-button"])?;
        vm1.shows_since(mark, "guest: power button")?;
        assert!(vm1.ends()?.success());
        let told = String::from_utf8(events.wait_with_output()?.stdout)?;
        let told: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        let last = told.iter().rev().take(2).map(|told| told["event"]["kind"].as_str().unwrap_or_default());
        assert_eq!(last.collect::<Vec<_>>(), ["ended", "power-button"]);
        assert!(!path("control").exists() && !path("vsock").exists());
        netd.finish()
    })
}

fn disks(vm1: &mut Guest, control: &Control, image: &Path) -> Result<()> {
    let system = vm1.ok("cd /sys/class/dmi/id && cat sys_vendor product_name product_serial")?;
    assert_eq!(system.lines().collect::<Vec<_>>(), ["netd", "vmm", "ds=nocloud"]);
    assert!(vm1.ok("head -c 16 /dev/hwrng | wc -c")?.contains("16"));
    let about = vm1.ok("cd /sys/block/vdb && cat serial && echo && cat queue/physical_block_size && ls mq | wc -l")?;
    assert_eq!(about.split_whitespace().collect::<Vec<_>>(), ["data-1", "4096", "2"]);
    assert_eq!(vm1.ok("cat /sys/block/vda/ro /sys/block/vda/queue/discard_max_bytes")?, "1\n0");
    let before = fs::metadata(image)?.blocks();
    vm1.ok("blkdiscard -o 1048576 -l 4194304 /dev/vdb")?;
    assert!(fs::metadata(image)?.blocks() <= before - 4 * 2048, "the image gave room back");
    assert_eq!(vm1.ok("dd if=/dev/vdb bs=1M skip=1 count=1 2>/dev/null | tr -d '\\0' | wc -c")?, "0");
    assert_eq!(vm1.ok("dd if=/dev/vdb bs=1M skip=5 count=1 2>/dev/null | tr -d 'U' | wc -c")?, "0");

    // Two MiB at one MiB a second take at least most of two seconds, and once the limit is lifted they need not.
    let reads =
        |control: &Control| anyhow::Ok(control.json(&["disks"], "disks")?[1]["read_bytes"].as_u64().context("bytes")?);
    let before = reads(control)?;
    control.ok(&["limit-disk", "1", "--bytes", "1M"])?;
    let begun = Instant::now();
    vm1.ok("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vdb of=/dev/null bs=1M skip=5 count=2 2>/dev/null")?;
    ensure!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert!(reads(control)? >= before + 2 * MIB);
    control.ok(&["limit-disk", "1"])?;
    Ok(())
}

fn memory(vm1: &mut Guest, control: &Control) -> Result<()> {
    let used = control.json(&["memory"], "memory")?;
    assert_eq!((used["size"].as_u64(), used["actual"].as_u64()), (Some(256 * MIB), Some(256 * MIB)));
    wait::until_true("the guest tells how it uses its memory", PATIENCE, || {
        let total = control.json(&["memory"], "memory")?["use"]["total"].as_u64();
        Ok(total.is_some_and(|total| (150 * MIB..256 * MIB).contains(&total)))
    })?;
    // What the guest frees returns by itself.
    vm1.ok("dd if=/dev/zero of=/big bs=1M count=60 2>/dev/null")?;
    let full = resident(vm1.pid())?;
    vm1.ok("rm /big")?;
    let pid = vm1.pid();
    wait::until_true("free pages return to the host", PATIENCE, || Ok(resident(pid)? + 40 * MIB < full))?;
    // What it is asked for it gives, and gets back.
    for wanted in [160, 256] {
        control.ok(&["memory", &format!("{wanted}M")])?;
        wait::until_true("the guest has what it is to have", PATIENCE, || {
            Ok(control.json(&["memory"], "memory")?["actual"].as_u64() == Some(wanted * MIB))
        })?;
    }
    Ok(())
}

fn sockets(vm1: &mut Guest, path: &Path) -> Result<()> {
    vm1.ok("(/t/socat VSOCK-LISTEN:5000,fork EXEC:cat >/dev/null 2>&1 &)")?;
    let (mut stream, mut line) = wait::until("somebody in the guest listens", PATIENCE, || {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(b"CONNECT 5000\n")?;
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone()?);
        Ok((reader.read_line(&mut line).unwrap_or(0) > 0).then_some((stream, line)))
    })?;
    ensure!(line.starts_with("OK "), "{line}");
    // More than either side keeps: both have to wait for the other.
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut writer = stream.try_clone()?;
    let bytes = sent.clone();
    let writing =
        thread::spawn(move || writer.write_all(&bytes).and_then(|()| writer.shutdown(std::net::Shutdown::Write)));
    let mut echoed = Vec::new();
    stream.read_to_end(&mut echoed)?;
    writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(echoed == sent, "{} bytes came back, and not the same", echoed.len());

    let mut name = path.as_os_str().to_owned();
    name.push("_6000");
    let listener = UnixListener::bind(&name)?;
    fs::set_permissions(&name, fs::Permissions::from_mode(0o777))?;
    let answering = thread::spawn(move || -> std::io::Result<String> {
        let (mut stream, _) = listener.accept()?;
        line.clear();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        stream.write_all(b"hello guest\n")?;
        Ok(line)
    });
    assert_eq!(vm1.ok("echo hello host | /t/socat -t 30 - VSOCK-CONNECT:2:6000")?, "hello guest");
    assert_eq!(answering.join().map_err(|_| anyhow::anyhow!("nobody called"))??, "hello host\n");
    assert_ne!(vm1.run("/t/socat - VSOCK-CONNECT:2:6001 </dev/null 2>/dev/null")?.0, 0, "nobody listens there");
    Ok(())
}

fn link(vm1: &mut Guest, control: &Control) -> Result<()> {
    let nic = control.json(&["nics"], "nics")?[0].take();
    let mac = nic["mac"].as_str().context("a MAC")?.to_owned();
    assert_eq!((nic["network"].as_str(), nic["link_up"].as_bool()), (Some("default"), Some(true)));
    assert!(nic["received"]["frames"].as_u64() > Some(0) && nic["sent"]["bytes"].as_u64() > Some(0));
    // A stock driver takes the control queue's commands: receive modes and tables, MAC, offloads, announcements.
    let features = vm1.ok("cat /sys/class/net/eth0/device/features")?;
    let has = |bit: usize| features.as_bytes().get(bit) == Some(&b'1');
    assert!([2, 16, 17, 18, 21, 23].into_iter().all(has), "{features}");
    vm1.ok("ip link set eth0 promisc on && ip link set eth0 promisc off")?;
    vm1.ok("ping -c 1 192.168.122.1")?;
    control.ok(&["link", &mac, "down"])?;
    assert_eq!(vm1.ok("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 1; done; echo down")?, "down");
    assert_ne!(vm1.run("ping -c 1 -W 2 192.168.122.1")?.0, 0);
    control.ok(&["link", &mac, "up"])?;
    assert_eq!(vm1.ok("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done; echo up")?, "up");
    vm1.ok("until ping -c 1 -W 2 192.168.122.1; do :; done")?;
    Ok(())
}

/// Every device's thread has given up what it does not need: by the process, by the CPU that started it, by itself.
fn confined(pid: u32) -> Result<()> {
    let mut filters = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let status = fs::read_to_string(path.join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")).context("no filters")?;
        filters.insert(fs::read_to_string(path.join("comm"))?.trim().to_owned(), line.trim().parse::<u32>()?);
    }
    for (name, least) in [("vcpu0", 2), ("net0", 3), ("blk1.1", 3), ("balloon0", 3), ("vsock0", 3), ("rng0", 3)] {
        assert_eq!(filters.get(name), Some(&least), "{name}: {filters:?}");
    }
    Ok(())
}

fn pauses(vm1: &mut Guest, control: &Control) -> Result<()> {
    vm1.ok("(while :; do echo tick; sleep 1; done) >/dev/console &")?;
    control.ok(&["pause"])?;
    assert_eq!(control.json(&["state"], "state")?["state"], "paused");
    // What the guest said before is through by the time the console has said nothing for a while.
    let mut mark = vm1.mark();
    wait::until_true("it stands still", PATIENCE, || {
        thread::sleep(Duration::from_secs(2));
        Ok(std::mem::replace(&mut mark, vm1.mark()) == mark)
    })?;
    control.ok(&["resume"])?;
    vm1.shows_since(mark, "tick")
}
