//! `make demo`: the main job from end to end, said aloud: a daemon, two stock guests, their leases, names and a page
//! from "the Internet", a clean end.
//!
//! Every step shows the command a person would type and does just that, with the same programs. Everything happens
//! in network namespaces made for it; nothing of this machine's own network is touched. Where this machine's KVM
//! can't run the guests the same story is told from inside the lab.

use std::{
    env,
    io::{IsTerminal, stdout},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::{
    daemon::Daemon,
    guest::{self, Guest},
    internet::{HOST, Internet, PAGE, WEB_NAME},
    lab::{self, Job, Outcome},
    on_kvm,
    sniffer::{ACK, DISCOVER, Sniffer},
    space::Space,
    vmm::Machine,
    wait,
};

/// Says that colours are wanted though the output is no terminal: the lab's goes through a pipe.
const COLOUR: &str = "CLICOLOR_FORCE";

fn main() -> ExitCode {
    match tell() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn tell() -> Result<ExitCode> {
    let talk = Talk { colour: stdout().is_terminal() || env::var_os(COLOUR).is_some() };
    if !lab::inside() {
        talk.title("netd and vmm: two stock Debian guests on the default network");
        if !on_kvm::kvm_runs_guests()? {
            talk.note("This machine's KVM cannot run stock guests (`vmm probe` says why).");
            talk.note("The same story is told in the lab: Debian's kernel on QEMU's software CPU, where KVM is real.");
            talk.note("There everything is ten to twenty times slower than on silicon: look at ratios, not at times.");
            return in_lab(&talk);
        }
    }
    story(&talk)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs this program again in the lab and passes on what it says.
fn in_lab(talk: &Talk) -> Result<ExitCode> {
    tests::initramfs::guest_image()?;
    let mut command = vec!["env".into()];
    if talk.colour {
        command.push(format!("{COLOUR}=1").into());
    }
    command.push(env::current_exe()?.into_os_string());
    let mut job = Job::new(command);
    job.timeout = Duration::from_secs(300);
    match lab::run(&job, &mut |line| println!("{line}"))? {
        Outcome::Exit(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))),
        failed => bail!("{failed}, twice"),
    }
}

fn story(talk: &Talk) -> Result<()> {
    talk.step("A host with an uplink. On \"the Internet\" behind it: a web server and a name server.");
    let host = Space::new("host")?;
    let internet = Internet::connect(&host)?;
    talk.output(&host.ip("-br -4 address show dev uplink")?);

    talk.step("The daemon, with directories of its own.");
    talk.command("netd daemon --config-dir etc --state-dir lib --runtime-dir run &");
    let begun = Instant::now();
    let mut netd = Daemon::on(host)?;
    talk.result(&format!("ready after {}", milliseconds(begun.elapsed())));
    let type_ = |words: &[&str]| {
        talk.command(&format!("netd {}", words.join(" ")));
        talk.output(&netd.ok(words)?);
        anyhow::Ok(())
    };
    type_(&["net-list", "--all"])?;

    talk.step("The network that everybody has: NAT, DHCP and DNS on 192.168.122.0/24.");
    let begun = Instant::now();
    type_(&["net-start", "default"])?;
    talk.result(&format!("it took {}", milliseconds(begun.elapsed())));
    type_(&["net-autostart", "default"])?;

    talk.step("Two guests: Debian's cloud kernel as it is, run by nobody, with no privilege but /dev/kvm.");
    let sniffer = Sniffer::start(&netd.host)?;
    let machines = [Machine::new("vm1"), Machine::new("vm2")];
    let mut guests = Vec::new();
    for machine in &machines {
        talk.command(&format!(
            "vmm run --name {} --memory 256M --kernel vmlinuz --initrd initrd.img --network default &",
            machine.name
        ));
        guests.push(machine.boot(&netd)?);
    }
    show_times(talk, &netd, &sniffer, &guests)?;
    type_(&["net-list", "--all"])?;
    type_(&["net-dhcp-leases", "default"])?;
    type_(&["domifaddr", "vm1"])?;
    let [vm1, vm2] = guests.as_mut_slice() else { bail!("there are two guests") };

    talk.step("They find each other by name.");
    talk.inside("vm1", "ping -c 3 vm2");
    talk.output(&vm1.ok("ping -c 3 vm2")?);

    talk.step("And what is outside.");
    let fetch = format!("wget -q -O - http://{WEB_NAME}/");
    talk.inside("vm1", &fetch);
    let page = vm1.ok(&fetch)?;
    talk.output(&page);
    ensure!(page == PAGE.trim(), "this is not the page that the web server has");
    let visit = internet.visits().pop().context("the web server saw nobody")?;
    ensure!(visit.source.ip() == HOST, "the web server saw {} and not the host", visit.source.ip());
    talk.result(&format!("the web server's log: GET {} from {}, the host's own address", visit.path, visit.source));

    talk.step("The end: one guest powers itself off, the other is asked by its power button.");
    talk.inside("vm1", "poweroff");
    ensure!(vm1.power_off()?.success(), "vm1 did not end well");
    talk.command("kill -INT $(pidof vmm)    # what Ctrl-C does");
    vm2.signal(Signal::SIGINT);
    ensure!(vm2.ends()?.success(), "vm2 did not end well");
    wait::until_true("the ports are gone", wait::PATIENCE, || Ok(netd.json(&["port-list"])? == serde_json::json!([])))?;
    type_(&["port-list"])?;
    type_(&["net-destroy", "default"])?;
    talk.command("kill $(pidof netd)");
    drop(sniffer);
    netd.finish()?;

    talk.step("What is left in the kernel: the uplink, and nothing of ours.");
    for line in ["ip -br link", "ip -4 route", "nft list ruleset", "sysctl net.ipv4.ip_forward"] {
        talk.command(line);
        talk.output(&netd.host.sh(line)?);
    }
    talk.result("links, addresses, routes, rules, nftables, sysctls and processes are as they were before the start");
    Ok(())
}

/// For each guest, how long after the start of its process what happened.
fn show_times(talk: &Talk, netd: &Daemon, sniffer: &Sniffer, guests: &[Guest]) -> Result<()> {
    talk.output("\nms after exec      kernel   DISCOVER      lease");
    for guest in guests {
        let kernel = guest.shows("Linux version")?;
        let (address, _) = guest.lease()?;
        let ports = netd.json(&["port-list"])?;
        let ports = ports.as_array().context("no list of ports")?;
        let port = ports.iter().find(|port| port["guest"] == guest.name()).context("the guest has no port")?;
        let mac = port["mac"].as_str().context("the port has no MAC")?;
        let seen = |kind| {
            wait::until("its DHCP message was seen", guest::PATIENCE, || Ok(sniffer.first(mac, kind, guest.begun())))
        };
        let (discover, ack) = (seen(DISCOVER)?, seen(ACK)?);
        let after = |at: Instant| (at - guest.begun()).as_millis();
        talk.output(&format!(
            "{:<14} {:>10} {:>10} {:>10}   {address}, {} after it asked",
            guest.name(),
            kernel.as_millis(),
            after(discover.at),
            after(ack.at),
            milliseconds(ack.at - discover.at)
        ));
    }
    println!();
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// How the story looks.
struct Talk {
    colour: bool,
}

impl Talk {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn title(&self, text: &str) {
        println!("\n{}", self.paint("1", text));
    }

    fn note(&self, text: &str) {
        println!("{}", self.paint("2", text));
    }

    fn step(&self, text: &str) {
        println!("\n{}", self.paint("1;34", text));
    }

    fn command(&self, line: &str) {
        println!("  {} {}", self.paint("2", "#"), self.paint("1", line));
    }

    fn inside(&self, guest: &str, line: &str) {
        println!("  {} {}", self.paint("2", &format!("{guest}#")), self.paint("1", line));
    }

    fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("    {line}");
        }
    }

    fn result(&self, text: &str) {
        println!("    {}", self.paint("32", text));
    }
}
