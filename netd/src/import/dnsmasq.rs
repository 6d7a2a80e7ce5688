//! EDGE: the dnsmasq that libvirt runs for a network: found by its pid file and command line, ended, and started again as
//! it was if what was to follow fails.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::files;

/// It ends within milliseconds; a lease being written down by its helper may take a little longer.
const PATIENCE: Duration = Duration::from_secs(10);

const PAUSE: Duration = Duration::from_millis(2);

/// A dnsmasq that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dnsmasq {
    pid: u32,
    /// Its helper, which writes the leases and ends after it.
    helpers: Vec<u32>,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Dnsmasq {
    /// The one whose pid libvirt keeps for this network; nothing if that process is another, or on another host as far
    /// as the network goes.
    pub(crate) fn find(root: &Path, network: &str) -> Option<Self> {
        let pid = files::pid(root, network)?;
        let words = words(&process(pid).join("cmdline"))?;
        let (first, arguments) = words.split_first()?;
        let program = PathBuf::from(first);
        let of_network = format!("dnsmasq/{network}.conf");
        let is_its = arguments.iter().any(|word| word.to_str().is_some_and(|word| word.ends_with(&of_network)));
        if program.file_name()? != "dnsmasq" || !is_its || !shares_network(pid) {
            return None;
        }
        let environment = self::words(&process(pid).join("environ")).unwrap_or_default();
        let pair = |word: OsString| {
            let word = word.into_vec();
            let at = word.iter().position(|byte| *byte == b'=')?;
            Some((OsString::from_vec(word[..at].to_vec()), OsString::from_vec(word[at + 1..].to_vec())))
        };
        let environment = environment.into_iter().filter_map(pair).collect();
        Some(Dnsmasq { pid, helpers: helpers(pid), program, arguments: arguments.to_vec(), environment })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Ends it and waits until it and its helper are gone: whatever lease it gave is written down then.
    pub(crate) fn end(&self) -> io::Result<()> {
        match kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno.into()),
        }
        let begun = Instant::now();
        while runs(self.pid) || self.helpers.iter().any(|pid| runs(*pid)) {
            if begun.elapsed() > PATIENCE {
                return Err(io::Error::other(format!("process {} did not end", self.pid)));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Starts it again as it was started; it puts itself into the background.
    pub(crate) fn start_again(&self) -> io::Result<()> {
        let status = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
    }
}

fn process(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn words(path: &Path) -> Option<Vec<OsString>> {
    let bytes = fs::read(path).ok()?;
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Some(words.map(|word| OsString::from_vec(word.to_vec())).collect())
}

/// Whether a process is on this host, as far as the network goes.
fn shares_network(pid: u32) -> bool {
    let here = fs::read_link("/proc/thread-self/ns/net");
    let there = fs::read_link(process(pid).join("ns/net"));
    here.is_ok_and(|here| there.is_ok_and(|there| here == there))
}

/// Neither gone nor only waiting for its parent to notice.
fn runs(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(process(pid).join("stat")) else { return false };
    // The name before the state is in brackets and may hold anything.
    !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X') | None)
}

fn helpers(pid: u32) -> Vec<u32> {
    let parent = |of: u32| -> Option<u32> {
        let stat = fs::read_to_string(process(of).join("stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|other| parent(*other) == Some(pid)).collect()
}
