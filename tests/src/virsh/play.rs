//! EDGE: plays a session on a host: writes its files, runs its commands, plugs its guests in.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::{
    Said, Session, Step,
    compare::Names,
    differences::{self, Difference},
};
use crate::{
    paths,
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
};

/// A bridge with spanning tree lets nobody through for a while.
const BRIDGE_PATIENCE: Duration = Duration::from_secs(40);

/// Who has heard nothing for so long has heard it all.
const QUIET: Duration = Duration::from_millis(500);

/// Somebody at a terminal of a host, in a directory of their own.
#[derive(Debug)]
pub struct Terminal<'a> {
    host: &'a Space,
    dir: PathBuf,
    programs: Option<PathBuf>,
    listening: Option<Listening>,
    guests: Vec<Station>,
}

#[derive(Debug)]
struct Listening {
    process: Running,
    out: PathBuf,
    err: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Whose `virsh` is the machine's.
    pub fn new(host: &'a Space) -> Result<Self> {
        let dir = host.dir().join("terminal");
        fs::create_dir_all(&dir)?;
        Ok(Terminal { host, dir, programs: None, listening: None, guests: Vec::new() })
    }

    /// Looks for programs in this directory first.
    pub fn with_programs(mut self, programs: PathBuf) -> Self {
        self.programs = Some(programs);
        self
    }

    /// Plays a session; gives what was said, in the session's own form.
    pub fn play(&mut self, session: &Session) -> Result<Session> {
        let mut names = Names::new(session.script());
        let mut told = |said: Said| -> Vec<String> {
            let [out, err] = [&said.out, &said.err].map(|text| names.replace(text));
            Said { out, err, ..said }.lines()
        };
        let mut steps = Vec::new();
        for step in &session.steps {
            let played = match step {
                Step::Comment(_) => step.clone(),
                Step::File { name, text } => {
                    ensure!(!name.contains('/'), "{name}: files are in the session's directory");
                    fs::write(self.dir.join(name), text)?;
                    step.clone()
                }
                Step::Run { command, .. } => Step::Run { command: command.clone(), said: told(self.run(command)?) },
                Step::Guest { name, mac, bridge } => {
                    self.guest(name, mac, bridge).with_context(|| format!("guest {name}"))?;
                    step.clone()
                }
                Step::Listen { probe, command } => {
                    self.listen(probe, command).with_context(|| command.clone())?;
                    step.clone()
                }
                Step::Heard(recorded) => Step::Heard(told(self.heard(recorded)?)),
            };
            steps.push(played);
        }
        ensure!(self.listening.is_none(), "the session ends without @heard");
        Ok(Session { steps })
    }

    fn shell(&self, command: &str) -> Result<Command> {
        let mut shell = self.host.command(paths::tool("sh")?);
        // Entering the host's mount namespace leads to its root.
        shell.arg("-c").arg(format!("cd '{}' && {command}", self.dir.display()));
        shell.env("TZ", "UTC").env("LC_ALL", "C.UTF-8");
        for name in ["LIBVIRT_DEFAULT_URI", "VIRSH_DEFAULT_CONNECT_URI", "XDG_CACHE_HOME"] {
            shell.env_remove(name);
        }
        // Nothing of the user's own configuration.
        shell.env("HOME", &self.dir);
        if let Some(programs) = &self.programs {
            let path = std::env::var("PATH").unwrap_or_default();
            shell.env("PATH", format!("{}:{path}", programs.display()));
        }
        Ok(shell)
    }

    /// Runs a command line to its end.
    pub fn run(&self, command: &str) -> Result<Said> {
        let output = self.shell(command)?.output().with_context(|| format!("cannot run `{command}`"))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { out: text(&output.stdout), err: text(&output.stderr), status: status(output.status) })
    }

    fn listen(&mut self, probe: &str, command: &str) -> Result<()> {
        ensure!(self.listening.is_none(), "something listens already");
        let [out, err] = ["heard.out", "heard.err"].map(|name| self.dir.join(name));
        // What it says is there line by line, and `exec` makes it the process that gets the signal.
        let process = self
            .shell(&format!("exec stdbuf -oL {command}"))?
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .stdin(Stdio::null())
            .spawn()?;
        let mut listening = Listening { process: Running(process), out, err };
        wait::until_true("it hears of a definition", PATIENCE * 3, || {
            let defined = self.run(&format!("virsh net-define {probe}"))?;
            ensure!(defined.status == 0, "net-define {probe}: {}", defined.err);
            let ended = listening.process.0.try_wait()?;
            let heard = fs::read_to_string(&listening.out)?;
            ensure!(ended.is_none() || !heard.is_empty(), "it ended: {}", fs::read_to_string(&listening.err)?);
            Ok(!heard.is_empty())
        })?;
        self.listening = Some(listening);
        Ok(())
    }

    /// Ends what listens as Ctrl-C does, if it has not ended by itself; of the probe it says once that it heard it.
    fn heard(&mut self, recorded: &[String]) -> Result<Said> {
        let mut listening = self.listening.take().context("nothing listens")?;
        // What it was told last may still be on its way. What was heard before tells how much is to come.
        let expected = recorded.iter().filter(|line| line.contains("event '")).count();
        let begun = Instant::now();
        wait::until_true("nothing more is heard", PATIENCE * 2, || {
            let before = fs::read_to_string(&listening.out)?;
            std::thread::sleep(QUIET);
            let events = probes_once(&before).lines().filter(|line| line.contains("event '")).count();
            let same = fs::read_to_string(&listening.out)? == before;
            Ok(same && (events >= expected || begun.elapsed() > PATIENCE))
        })?;
        if listening.process.0.try_wait()?.is_none() {
            listening.process.signal(Signal::SIGINT);
        }
        let ended = wait::until("it ends", PATIENCE, || Ok(listening.process.0.try_wait()?))?;
        let (out, err) = (fs::read_to_string(&listening.out)?, fs::read_to_string(&listening.err)?);
        Ok(Said { out: probes_once(&out), err, status: status(ended) })
    }

    fn guest(&mut self, name: &str, mac: &str, bridge: &str) -> Result<()> {
        let interface = format!("vnet{}", self.guests.len());
        let station = Station::on_tap(self.host, bridge, &interface, mac)?;
        wait::until_true("the bridge lets the guest through", BRIDGE_PATIENCE, || {
            Ok(self.host.ip(&format!("-d link show dev {interface}"))?.contains("state forwarding"))
        })?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/dhcp-script");
        station.space.sh(&format!("udhcpc -i eth0 -q -n -f -t 10 -T 1 -x hostname:{name} -s {script}"))?;
        self.guests.push(station);
        // dnsmasq's helper writes a lease down a little after the client has it.
        wait::until_true("the lease is listed", PATIENCE, || {
            let nets = self.run("virsh net-list --name")?;
            let listed = |net: &str| Ok::<_, anyhow::Error>(self.run(&format!("virsh net-dhcp-leases {net}"))?.out);
            Ok(nets.out.split_whitespace().map(listed).collect::<Result<String>>()?.contains(mac))
        })
    }
}

fn status(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// The first line as often as it was heard without anything in between, once; the count of events is made less.
fn probes_once(out: &str) -> String {
    const COUNT: &str = "events received: ";
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let times = |line: &str| super::compare::Names::new(String::new()).replace(line);
    let before = lines.len();
    while let [first, second, ..] = &lines[..]
        && times(first) == times(second)
    {
        lines.remove(0);
    }
    let less = before - lines.len();
    for line in &mut lines {
        if let Some(count) = line.strip_prefix(COUNT).and_then(|count| count.parse::<usize>().ok()) {
            *line = format!("{COUNT}{}", count.saturating_sub(less));
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Where the sessions are.
pub fn sessions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/virsh")
}

/// The names of all sessions, sorted.
pub fn names() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(sessions())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "session") {
            names.extend(path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// Reads one of them.
pub fn read(name: &str) -> Result<Session> {
    let path = sessions().join(format!("{name}.session"));
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Session::parse(&text).with_context(|| path.display().to_string())
}

/// Where answers may differ.
pub fn differences() -> Result<Vec<Difference>> {
    let path = sessions().join("differences");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    differences::parse(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_was_repeated_is_heard_once() {
        let out = "2026-11-20 08:47:14: defined\n2026-11-20 08:47:15: defined\nstarted\nstarted\nevents received: 4\n";
        assert_eq!(probes_once(out), "2026-11-20 08:47:15: defined\nstarted\nstarted\nevents received: 3\n");
    }
}
