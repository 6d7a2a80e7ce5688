//! EDGE: the lab: runs one command in a virtual machine whose `/dev/kvm` is real.
//!
//! The machine is Debian's kernel under QEMU's software CPU with nested SVM, started by virtme-ng on this machine's
//! own root file system: read-only, with a tmpfs over /etc, /lib, /home, /opt, /srv, /usr, /var and /tmp. The
//! command's output is streamed, its exit status is ours.
//!
//! The lab has frozen now and then as a whole. So it says every two seconds that it lives; after fifteen seconds of
//! silence it is ended, by process group, and the caller may start another: [`run`] does so once and says it did.
//! It never decides whether a test passed: that is the command's exit status.
//!
//! ```text
//!   vng ── QEMU ── script ─┬─ stdout: what the command prints        ──► sink, line by line
//!                          └─ stderr: "@lab alive", "@lab exit 3"    ──► watchdog
//! ```

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicI32, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, killpg, sigaction},
    unistd::Pid,
};

use crate::paths::{self, Flavour};

/// How long the lab may say nothing before it counts as frozen.
pub const SILENCE: Duration = Duration::from_secs(15);
/// How long it may take from start to the first sign of life: 8 s on a quiet machine, a minute on a very busy one.
const START: Duration = Duration::from_secs(120);
/// Marks the lines that are for the watchdog.
const SIGN: &str = "@lab ";
/// What is loaded before the command runs. crc32c_generic comes first: nf_tables needs it and does not say so.
const MODULES: &str = "crc32c_generic kvm-amd tun bridge veth dummy vhost_net nf_tables nft_chain_nat nft_masq \
                       nft_ct nft_reject_inet nft_redir nft_fib_inet af_packet";

/// What keeps the lab alive; tests/README.md has the counts.
///
/// `npt=0` has KVM keep shadow page tables in place of nested paging. With nested paging in QEMU's software CPU, guests died
/// of triple faults, and the lab's own kernel panicked right after it had left a guest.
///
/// The rest has every virtual CPU interrupted by its local timer all the time, whether it is due or not: leaving a guest, a
/// CPU's thread in QEMU clears a bit of the word in which another thread sets "interrupt pending", without a lock, so that
/// an interrupt may be forgotten (a guess). A CPU that then waits for a timer it has set once would wait for ever; a timer
/// that fires by itself says it again 4 ms later.
const STEADY: [&str; 4] = ["kvm_amd.npt=0", "nohz=off", "highres=off", "lapic=notscdeadline"];

/// What to run in the lab and within which bounds.
#[derive(Clone, Debug)]
pub struct Job {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory as QEMU writes it.
    pub memory: String,
    /// The end of all patience, per start.
    pub timeout: Duration,
    /// Directories the lab may write to on this machine.
    pub writable: Vec<PathBuf>,
    /// More arguments for QEMU.
    pub qemu: Vec<String>,
}

impl Job {
    /// A command with the usual machine around it.
    pub fn new<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(command: I) -> Self {
        Job {
            command: command.into_iter().map(|word| word.as_ref().to_owned()).collect(),
            cpus: 2,
            memory: "3G".into(),
            timeout: Duration::from_secs(600),
            writable: Vec::new(),
            qemu: Vec::new(),
        }
    }
}

/// How one start of the lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ran to its end.
    Exit(i32),
    /// Nothing was heard for this long.
    Frozen(Duration),
    /// The hard limit was reached.
    Timeout(Duration),
    /// The machine stopped before the command did.
    Died,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Exit(status) => write!(f, "the command ended with status {status}"),
            Outcome::Frozen(silence) => write!(f, "the lab froze: no sign of life for {} s", silence.as_secs()),
            Outcome::Timeout(limit) => write!(f, "the lab was ended: the limit of {} s was reached", limit.as_secs()),
            Outcome::Died => write!(f, "the lab stopped before the command did"),
        }
    }
}

/// Runs a job, and once more if the lab itself failed (not the command). Each retry is told to `sink`.
pub fn run(job: &Job, sink: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let first = start(job, sink)?;
    if let Outcome::Exit(_) = first {
        return Ok(first);
    }
    sink(&format!("lab: {first}; retry 1 of 1"));
    start(job, sink)
}

/// Starts the lab once.
pub fn start(job: &Job, sink: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let begun = Instant::now();
    let mut lab = Lab::boot(job)?;
    let outcome = lab.watch(job.timeout, sink);
    lab.end();
    count(job, outcome, begun.elapsed());
    Ok(outcome)
}

/// Adds a line to `.cache/lab.log`: how often the lab freezes, and with which options, is worth knowing.
fn count(job: &Job, outcome: Outcome, took: Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let line = format!("{now} {} s, qemu {:?}: {outcome}\n", took.as_secs(), job.qemu);
    // The log is an aid: a job does not fail for the want of it.
    let log = File::options().create(true).append(true).open(paths::cache().join("lab.log"));
    let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
}

enum Event {
    Output(String),
    Sign(String),
    Noise(String),
}

/// A running lab; ended when dropped.
struct Lab {
    child: Child,
    events: Receiver<Event>,
}

impl Lab {
    fn boot(job: &Job) -> Result<Self> {
        ensure!(!job.command.is_empty(), "no command to run in the lab");
        let kernel = paths::kernel(Flavour::Generic)?;
        let venv = paths::cache().join("venv/bin");
        let vng = venv.join("vng");
        ensure!(vng.is_file(), "virtme-ng is not installed in {}: run `make setup`", venv.display());
        let mut search = OsString::from(venv);
        search.push(":");
        search.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(&vng);
        command.env("PATH", search).arg("-r").arg(&kernel.image);
        command.args(["--disable-kvm", "--user", "root", "--memory", &job.memory, "--cpus", &job.cpus.to_string()]);
        for directory in &job.writable {
            fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
            let mut option = OsString::from("--rwdir=");
            option.push(directory);
            command.arg(option);
        }
        let mut options = vec!["-cpu max,+svm".to_owned()];
        options.extend(job.qemu.iter().cloned());
        command.arg(format!("--qemu-opts={}", options.join(" ")));
        for word in STEADY {
            command.args(["--append", word]);
        }
        command.arg("--").arg(script(job)?);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", vng.display()))?;
        end_with_us(&child);
        let (sender, events) = channel();
        if let Some(stdout) = child.stdout.take() {
            follow(stdout, sender.clone(), Event::Output);
        }
        if let Some(stderr) = child.stderr.take() {
            follow(stderr, sender, |line| match line.strip_prefix(SIGN) {
                Some(sign) => Event::Sign(sign.to_owned()),
                None => Event::Noise(line),
            });
        }
        Ok(Lab { child, events })
    }

    /// Passes output on until the machine is gone or must go.
    fn watch(&mut self, timeout: Duration, sink: &mut dyn FnMut(&str)) -> Outcome {
        let begun = Instant::now();
        let mut heard: Option<Instant> = None;
        let mut exit = None;
        loop {
            let silence_ends = heard.map_or(begun + START, |at| at + SILENCE);
            let wake = silence_ends.min(begun + timeout);
            match self.events.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Event::Output(line)) => {
                    heard = Some(Instant::now());
                    sink(&line);
                }
                Ok(Event::Sign(sign)) => {
                    heard = Some(Instant::now());
                    exit = sign.strip_prefix("exit ").and_then(|status| status.parse().ok()).or(exit);
                }
                Ok(Event::Noise(line)) => sink(&format!("lab: {line}")),
                Err(RecvTimeoutError::Disconnected) => return exit.map_or(Outcome::Died, Outcome::Exit),
                // The command is done and all it printed is here; only the power-off hangs.
                Err(RecvTimeoutError::Timeout) if exit.is_some() => return exit.map_or(Outcome::Died, Outcome::Exit),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= begun + timeout => {
                    return Outcome::Timeout(timeout);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Outcome::Frozen(if heard.is_some() { SILENCE } else { START });
                }
            }
        }
    }

    /// Ends QEMU and virtme-ng by the process group that was made for them.
    fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nothing to do if it fails: the group is gone already.
            let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        }
        let _ = self.child.wait();
        GROUP.store(0, Ordering::SeqCst);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.end();
    }
}

/// The process group to end when we are told to end; 0 for none.
static GROUP: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(signal: i32) {
    let group = GROUP.load(Ordering::SeqCst);
    // SAFETY: kill and _exit are async-signal-safe (signal-safety(7)) and take no pointers; the group is one this
    // process made, or 0 and then left alone.
    unsafe {
        if group > 0 {
            libc::kill(-group, libc::SIGKILL);
        }
        libc::_exit(128 + signal);
    }
}

/// A lab has its own process group, so Ctrl-C does not reach it by itself.
fn end_with_us(child: &Child) {
    GROUP.store(child.id() as i32, Ordering::SeqCst);
    let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only reads an atomic and calls async-signal-safe functions.
        // Without the handler the lab's own time limit ends it; no reason to fail.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

fn follow(stream: impl Read + Send + 'static, sender: Sender<Event>, event: fn(String) -> Event) {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(event(text.trim_end_matches(['\n', '\r']).to_owned())).is_err() {
                return;
            }
            line.clear();
        }
    });
}

/// What the lab runs: signs of life, drivers, the command, its status. The lab ends itself a little after the limit,
/// should nobody be left to end it.
fn script(job: &Job) -> Result<String> {
    let words: Vec<String> = job.command.iter().map(|word| quoted(word)).collect::<Result<_>>()?;
    let limit = job.timeout.as_secs() + 30;
    let directory = quoted(env::current_dir().context("no current directory")?.as_os_str())?;
    Ok(format!(
        "(while :; do echo '{SIGN}alive' >&2; sleep 2; done) & \
         (sleep {limit}; poweroff -f) & \
         modprobe -a {MODULES}; \
         test -e /dev/kvm && chmod 666 /dev/kvm /dev/net/tun; \
         mount -t tmpfs tmpfs /root 2>/dev/null; \
         cd {directory}; \
         IN_LAB=1 TMPDIR=/tmp {} 2>&1; \
         status=$?; echo \"{SIGN}exit $status\" >&2; exit $status",
        words.join(" ")
    ))
}

/// A word the shell reads back as it was.
fn quoted(word: &OsStr) -> Result<String> {
    let text = word.to_str().with_context(|| format!("{} is not UTF-8", Path::new(word).display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// The exit status a shell would report.
pub fn status_code(status: std::process::ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// True inside the lab.
pub fn inside() -> bool {
    env::var_os("IN_LAB").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_lab_as_they_were() {
        assert_eq!(quoted(OsStr::new("it's a 'test' $HOME")).unwrap(), r"'it'\''s a '\''test'\'' $HOME'");
    }

    #[test]
    fn a_job_without_a_command_is_refused() {
        let error = start(&Job::new([] as [&str; 0]), &mut |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "no command to run in the lab");
    }
}
