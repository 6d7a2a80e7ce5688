//! EDGE: a guest as seen from outside: a process whose standard input and output are its console.
//!
//! What the test image prints and reads there is described in `tests/guest/init`. Which monitor runs the guest, and
//! how, is the caller's to say: this file takes any command line.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::{
    space::Running,
    wait::{self},
};

/// How long a guest may take for anything: under the lab's software CPU a boot takes 20 s, on a busy machine several times
/// that.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A guest; killed when dropped. Its console is printed unless it ended well.
#[derive(Debug)]
pub struct Guest {
    name: String,
    process: Running,
    input: Option<ChildStdin>,
    console: Arc<Console>,
    begun: Instant,
    commands: u32,
    /// Its end was waited for, so its console is no news.
    ended: bool,
}

#[derive(Debug, Default)]
struct Console {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    /// Offset of the end of each read, and when it was read.
    reads: Vec<(usize, Instant)>,
    closed: bool,
}

impl Console {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Starts the command with a pipe for a console.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let begun = Instant::now();
        let mut child: Child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let console = Arc::new(Console::default());
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let process = Running(child);
        listen(output.context("no output")?, &console, true);
        listen(errors.context("no error output")?, &console, false);
        Ok(Guest { name: name.to_owned(), process, input, console, begun, commands: 0, ended: false })
    }

    /// The name it was started with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    /// When it was started.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Everything on the console so far.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&self.console.lock().text).replace('\r', "")
    }

    /// Waits until the console has shown a text since its start; gives the time from exec to then.
    pub fn shows(&self, text: &str) -> Result<Duration> {
        self.shows_after(0, text).map(|(at, _)| at)
    }

    /// Waits for a text after an offset; gives the time and the offset of its end.
    fn shows_after(&self, offset: usize, text: &str) -> Result<(Duration, usize)> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.console.lock();
        loop {
            if let Some(at) = find(&state.text[offset.min(state.text.len())..], text.as_bytes()) {
                let end = offset + at + text.len();
                let when = state.reads.iter().find(|(upto, _)| *upto >= end).map_or(self.begun, |(_, when)| *when);
                return Ok((when - self.begun, end));
            }
            if state.closed {
                bail!("{} ended before it showed '{text}'", self.name);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} did not show '{text}' within {} s", self.name, PATIENCE.as_secs());
            }
            state = self.console.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the first lease on `eth0`; gives the address and the time from exec.
    pub fn lease(&self) -> Result<(String, Duration)> {
        self.lease_after(0).map(|(address, at, _)| (address, at))
    }

    /// The same after an offset of the console.
    fn lease_after(&self, offset: usize) -> Result<(String, Duration, usize)> {
        let (at, end) = self.shows_after(offset, "guest: lease eth0 ")?;
        let (_, line_end) = self.shows_after(end, "\n")?;
        let state = self.console.lock();
        let address = String::from_utf8_lossy(&state.text[end..line_end]).trim().to_owned();
        Ok((address, at, line_end))
    }

    /// How many bytes the console has shown: where to look for what comes after.
    pub fn mark(&self) -> usize {
        self.console.lock().text.len()
    }

    /// Waits for a text that comes after a mark.
    pub fn shows_since(&self, mark: usize, text: &str) -> Result<()> {
        self.shows_after(mark, text).map(drop)
    }

    /// Waits for a lease that comes after a mark.
    pub fn lease_since(&self, mark: usize) -> Result<String> {
        self.lease_after(mark).map(|(address, ..)| address)
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().context("the console is closed")?;
        input.write_all(format!("{line}\n").as_bytes()).with_context(|| format!("cannot type to {}", self.name))?;
        Ok(input.flush()?)
    }

    /// Runs a shell command in the guest; gives its status and what it printed.
    pub fn run(&mut self, command: &str) -> Result<(i32, String)> {
        self.shows("guest: ready")?;
        self.commands += 1;
        let (id, mark) = (self.commands, self.mark());
        self.type_line(&format!("run {id} {command}"))?;
        let (_, begin) = self.shows_after(mark, &format!("guest: begin {id}"))?;
        let last = format!("guest: end {id} ");
        let (_, end) = self.shows_after(begin, &last)?;
        let (_, line_end) = self.shows_after(end, "\n")?;
        let state = self.console.lock();
        let text = |range| String::from_utf8_lossy(&state.text[range]).replace('\r', "");
        let status = text(end..line_end).trim().parse().context("the guest's exit status")?;
        // A lease that came just then is no output of the command.
        let output = text(begin..end - last.len());
        let lines = output.lines().filter(|line| !line.starts_with("guest: "));
        Ok((status, lines.collect::<Vec<_>>().join("\n").trim().to_owned()))
    }

    /// The same; a status other than 0 is an error.
    pub fn ok(&mut self, command: &str) -> Result<String> {
        let (status, output) = self.run(command)?;
        ensure!(status == 0, "in {}: `{command}` ended with {status}: {output}", self.name);
        Ok(output)
    }

    /// Has the guest power itself off and waits for the end of its process.
    pub fn power_off(&mut self) -> Result<ExitStatus> {
        self.shows("guest: ready")?;
        self.type_line("run 0 poweroff")?;
        self.ends()
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended.
    pub fn ends(&mut self) -> Result<ExitStatus> {
        let what = format!("{} ends", self.name);
        let process = &mut self.process.0;
        let status = wait::until(&what, PATIENCE, || Ok(process.try_wait()?))?;
        self.ended = true;
        Ok(status)
    }

    /// Ends it at once.
    pub fn kill(mut self) {
        self.ended = true;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.ended || thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().collect();
            let last = &lines[lines.len().saturating_sub(50)..];
            eprintln!("--- the console of {}, its last lines ---\n{}\n---", self.name, last.join("\n"));
        }
    }
}

/// Adds what a stream says to the console until it ends. The end of the first stream is the end of the console.
fn listen(mut stream: impl Read + Send + 'static, console: &Arc<Console>, first: bool) {
    let console = console.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            let mut state = console.lock();
            state.text.extend_from_slice(&buffer[..length]);
            let end = state.text.len();
            state.reads.push((end, Instant::now()));
            drop(state);
            console.changed.notify_all();
        }
        if first {
            console.lock().closed = true;
            console.changed.notify_all();
        }
    });
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len().max(1)).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Guest {
        Guest::start("sh", Command::new("/bin/sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn commands_are_told_apart_by_their_number() {
        let mut guest = shell(
            "echo guest: ready; while read -r run id what; do
                echo guest: begin $id; eval \"$what\"; echo; echo guest: end $id $?; done",
        );
        assert_eq!(guest.run("echo one").unwrap(), (0, "one".into()));
        assert_eq!(guest.ok("echo two").unwrap(), "two");
        guest.kill();
    }

    #[test]
    fn a_guest_that_ends_early_is_an_error_and_not_a_long_wait() {
        let guest = shell("echo hello");
        let error = guest.shows("guest: up").unwrap_err();
        assert_eq!(error.to_string(), "sh ended before it showed 'guest: up'");
        guest.kill();
    }

    #[test]
    fn a_lease_is_read_whole_even_if_it_arrives_in_pieces() {
        let guest = shell("printf 'guest: lease eth0 192.168'; sleep 0.1; printf '.122.7\\r\\n'; sleep 1");
        assert_eq!(guest.lease().unwrap().0, "192.168.122.7");
        guest.kill();
    }
}
