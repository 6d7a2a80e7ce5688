//! EDGE: finds and runs hooks, one after the other, each for a bounded time.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    time::{Instant, timeout, timeout_at},
};

use super::{HookError, How, Operation};

/// A hook has this long, what it starts and waits for included.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a hook left running may keep its stderr open; what the hook itself said is there by then.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// More than this of what a hook says on stderr is not kept, in bytes.
const MOST_WORDS: usize = 4096;

/// What of the daemon's environment a hook gets, as from libvirt.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR"];

/// The hooks of one daemon.
#[derive(Clone, Debug)]
pub struct Hooks {
    directory: PathBuf,
    patience: Duration,
}

impl Hooks {
    /// Hooks in this directory, which need not be there.
    pub fn new(directory: PathBuf) -> Self {
        Hooks { directory, patience: PATIENCE }
    }

    /// The same with another limit on how long each may take.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Hooks { patience, ..self }
    }

    /// Whether there are any.
    pub fn exist(&self) -> bool {
        !self.scripts().is_empty()
    }

    /// Runs every hook about a network; the first that fails is the last.
    ///
    /// One that hangs is killed with all it started, after 30 seconds.
    pub async fn call(&self, network: &str, operation: Operation, input: &str) -> Result<(), HookError> {
        for script in self.scripts() {
            let arguments = [network, operation.name(), operation.sub_operation(), "-"];
            let how = self.run(&script, arguments, input).await;
            let command = || format!("LC_ALL=C {} {}", script.display(), arguments.join(" "));
            how.map_err(|how| HookError { command: command(), how })?;
        }
        Ok(())
    }

    /// `network`, then those of `network.d` by name: every one that may be executed.
    fn scripts(&self) -> Vec<PathBuf> {
        let mut more: Vec<PathBuf> = match fs::read_dir(self.directory.join("network.d")) {
            Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
            Err(_) => Vec::new(),
        };
        more.sort();
        let mut scripts = vec![self.directory.join("network")];
        scripts.extend(more);
        scripts.retain(|script| is_executable(script));
        scripts
    }

    async fn run(&self, script: &Path, arguments: [&str; 4], input: &str) -> Result<(), How> {
        let not_run = |cause: io::Error| How::NotRun(cause.to_string());
        let end = Instant::now() + self.patience;
        let mut command = Command::new(script);
        command.args(arguments).env_clear().env("LC_ALL", "C").kill_on_drop(true).process_group(0);
        for name in ENVIRONMENT {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(not_run)?;
        let mut words = Vec::new();
        let status = timeout_at(end, converse(&mut child, input.as_bytes(), &mut words)).await;
        let stderr = || String::from_utf8_lossy(&words).trim().to_owned();
        match status {
            Ok(Ok(status)) => judge(status, stderr()),
            Ok(Err(cause)) => Err(not_run(cause)),
            Err(_) => {
                kill(&mut child).await;
                Err(How::TooLong { patience: self.patience, stderr: stderr() })
            }
        }
    }
}

/// Feeds a hook and hears it out. `words` has what it said even if it never ends.
async fn converse(child: &mut Child, input: &[u8], words: &mut Vec<u8>) -> io::Result<ExitStatus> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A hook need not read what it is told.
            let _ = stdin.write_all(input).await;
        }
        std::future::pending::<()>().await;
    };
    let hear = async {
        let Some(mut stderr) = stderr else { return };
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
            let room = MOST_WORDS.saturating_sub(words.len());
            words.extend_from_slice(&buffer[..length.min(room)]);
        }
    };
    tokio::pin!(feed, hear);
    let mut heard = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            () = &mut hear, if !heard => heard = true,
            () = &mut feed => {}
        }
    };
    if !heard {
        let _ = timeout(LAST_WORDS, hear).await;
    }
    Ok(status)
}

fn judge(status: ExitStatus, stderr: String) -> Result<(), How> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(status), _) => Err(How::Status { status, stderr }),
        (None, signal) => Err(How::Signal { signal: signal.unwrap_or_default(), stderr }),
    }
}

/// The hook and what it started: it is the leader of a process group of its own.
async fn kill(child: &mut Child) {
    // Not waited for yet, so the id is still its own.
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
    }
    let _ = child.kill().await;
}

fn is_executable(path: &Path) -> bool {
    let Ok(metadata) = fs::metadata(path) else { return false };
    if !metadata.is_file() {
        return false;
    }
    let executable = metadata.permissions().mode() & 0o111 != 0;
    if !executable {
        tracing::warn!("{} is no hook: it may not be executed", path.display());
    }
    executable
}
