//! `vmm run` on a terminal, with a guest of a few instructions: raw while it runs, Ctrl-C a signal, restored afterwards.
//! Needs `/dev/kvm`; any will do.

mod common;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
};

use common::{kernel, say};
use nix::{
    pty::openpty,
    sys::termios::{LocalFlags, Termios, tcgetattr},
};

/// A guest's process, killed when dropped: a test that fails leaves none behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Terminal {
    user: File,
    ours: std::os::fd::OwnedFd,
    before: Termios,
}

impl Terminal {
    fn new() -> Self {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(pty.slave.as_fd()).unwrap();
        assert!(before.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
        Terminal { user: pty.master.into(), ours: pty.slave, before }
    }

    fn now(&self) -> Termios {
        tcgetattr(self.ours.as_fd()).unwrap()
    }

    /// Starts vmm in a session of its own with this as its terminal.
    fn run(&self, program: &[u8], directory: &Path) -> Running {
        let stdio = || Stdio::from(self.ours.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm"));
        command.args(["run", "--name", "vm1", "--memory", "32M", "--kernel"]).arg(kernel(directory, program));
        command.stdin(stdio()).stdout(stdio()).stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes two system calls and touches no memory of this process.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                // Descriptor 0 is the terminal; the argument says not to steal it from another session.
                match nix::libc::ioctl(0, nix::libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(io::Error::last_os_error()),
                }
            });
        }
        Running(command.spawn().unwrap())
    }

    fn read(&mut self, text: &[u8]) {
        let mut got = vec![0; text.len()];
        self.user.read_exact(&mut got).unwrap();
        assert_eq!(got, text);
    }
}

#[test]
fn the_terminal_is_raw_while_the_guest_runs_and_ctrl_c_twice_ends_it_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new();
    let run_for_ever = [0xf4, 0xeb, 0xfd];
    let mut child = terminal.run(&[&say(b'!')[..], &run_for_ever].concat(), directory.path());
    let mut errors = BufReader::new(child.0.stderr.take().unwrap());
    terminal.read(b"!");
    let raw = terminal.now().local_flags;
    assert!(!raw.intersects(LocalFlags::ICANON | LocalFlags::ECHO) && raw.contains(LocalFlags::ISIG));

    terminal.user.write_all(b"\x03").unwrap();
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains("asking the guest to power off"), "{line}");
    assert_eq!(child.0.try_wait().unwrap(), None);

    terminal.user.write_all(b"\x03").unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert_eq!(terminal.now(), terminal.before);
}

#[test]
fn what_is_typed_reaches_the_guest_and_a_crash_restores_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::new();
    // Says '?', waits for a byte (bit 0 of the line status), says it back, crashes.
    let echo = [
        &say(b'?')[..],
        &[0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xfb], // mov dx, 0x3fd; in al, dx; test al, 1; jz to in
        &[0x66, 0xba, 0xf8, 0x03, 0xec, 0xee],                   // mov dx, 0x3f8; in al, dx; out dx, al
        &[0x0f, 0x0b],                                           // ud2
    ];
    let mut child = terminal.run(&echo.concat(), directory.path());
    terminal.read(b"?");
    terminal.user.write_all(b"\x1a").unwrap(); // Ctrl-Z is the guest's
    terminal.read(b"\x1a");
    let mut errors = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(1));
    assert!(errors.contains("error: the guest stopped: a triple fault"), "{errors}");
    assert_eq!(terminal.now(), terminal.before);
}
