//! EDGE: a space is a pretended machine: a network namespace and a mount namespace of its own.
//!
//! It has no name in the kernel: it lives through two descriptors and what runs in it, so nothing is left when this
//! process ends, however it ends. Programs started in it get a signal when the thread that started them is gone.
//! It never touches the namespaces of the caller.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
    sys::prctl,
    sys::signal::Signal,
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use tempfile::TempDir;

use crate::paths;

/// Directories that are empty in every space: what daemons and clients write to besides what we tell them.
const PRIVATE: [&str; 4] = ["/run", "/var/lib/dhcp", "/var/lib/dhcpcd", "/var/lib/misc"];

/// Somebody without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// More groups.
    pub groups: [u32; 2],
}

/// Debian's `nobody` in `nogroup`, which own nothing.
pub const NOBODY: User = User { uid: 65_534, gid: 65_534, groups: [65_534; 2] };

/// The group `netd` in every space: its members may use the daemon.
pub const NETD_GROUP: u32 = 59_999;

/// A pretended machine.
#[derive(Debug)]
pub struct Space {
    name: String,
    net: OwnedFd,
    mnt: OwnedFd,
    dir: TempDir,
}

impl Space {
    /// A new one with loopback up and nothing else.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces, bridges and firewall tables: run them as root"
        );
        let name = format!("{name}-{}", std::process::id());
        let dir = tempfile::Builder::new().prefix(&format!("netd-{name}-")).tempdir()?;
        // Everybody may look: some programs run as an ordinary user.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        fs::write(dir.path().join("resolv.conf"), "")?;
        let groups = fs::read_to_string("/etc/group").context("cannot read /etc/group")?;
        let others = groups.lines().filter(|line| !line.starts_with("netd:")).map(|line| format!("{line}\n"));
        fs::write(dir.path().join("group"), others.collect::<String>() + &format!("netd:x:{NETD_GROUP}:\n"))?;
        let (net, mnt) = in_new_thread(|| make_namespaces(dir.path()))
            .with_context(|| format!("cannot make the namespaces of '{name}'"))?;
        let space = Space { name, net, mnt, dir };
        space.ip("link set lo up")?;
        Ok(space)
    }

    /// The name given, with the process id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory of its own, removed with it; at the same path inside and outside.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path by which other programs of this process's descendants find the network namespace.
    pub fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// What `/etc/resolv.conf` says inside.
    pub fn set_resolv_conf(&self, text: &str) -> Result<()> {
        // In place: the file is mounted, a rename would not be seen.
        let mut file = File::options().write(true).truncate(true).open(self.dir.path().join("resolv.conf"))?;
        Ok(file.write_all(text.as_bytes())?)
    }

    /// A program that will run inside, as root, and end with the thread that starts it.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.command_as(None, program)
    }

    /// The same as another user.
    pub fn command_as(&self, user: Option<User>, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        let (net, mnt) = (self.net.as_raw_fd(), self.mnt.as_raw_fd());
        command.stdin(Stdio::null());
        // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
        // The descriptors are open for as long as `self`, and the child has its own copies from fork on.
        unsafe {
            command.pre_exec(move || {
                setns(BorrowedFd::borrow_raw(mnt), CloneFlags::CLONE_NEWNS)?;
                setns(BorrowedFd::borrow_raw(net), CloneFlags::CLONE_NEWNET)?;
                // A tap lives as long as a copy of its descriptor: no child may keep one that another test just got.
                libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int);
                if let Some(User { uid, gid, groups: [one, two] }) = user {
                    setgroups(&[Gid::from_raw(one), Gid::from_raw(two)])?;
                    setgid(Gid::from_raw(gid))?;
                    setuid(Uid::from_raw(uid))?;
                }
                // After the change of user: the kernel forgets it then (prctl(2)).
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// Runs a tool of the operating system to its end.
    pub fn run(&self, tool: &str, args: &[&str]) -> Result<Output> {
        let output = self.command(paths::tool(tool)?).args(args).output();
        output.with_context(|| format!("cannot run {tool} in {}", self.name))
    }

    /// The same; a status other than 0 is an error. Gives what it printed.
    pub fn check(&self, tool: &str, args: &[&str]) -> Result<String> {
        let output = self.run(tool, args)?;
        if !output.status.success() {
            bail!("in {}: `{tool} {}`: {}", self.name, args.join(" "), told(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `ip` with arguments separated by blanks.
    pub fn ip(&self, args: &str) -> Result<String> {
        self.check("ip", &args.split_whitespace().collect::<Vec<_>>())
    }

    /// A shell command line.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.check("sh", &["-euc", script])
    }

    /// Runs code inside, on a thread of its own. Sockets opened there stay there.
    pub fn inside<T: Send>(&self, code: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_new_thread(|| {
            self.enter()?;
            code()
        })
    }

    /// Moves the calling thread inside, for good.
    pub fn enter(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_FS)?;
        setns(self.mnt.as_fd(), CloneFlags::CLONE_NEWNS)?;
        setns(self.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(())
    }

    /// A pair of interfaces, one here and one over there, both up.
    pub fn connect(&self, here: &str, other: &Space, there: &str) -> Result<()> {
        self.ip(&format!("link add {here} type veth peer name {there} netns {}", other.net_path()))?;
        self.ip(&format!("link set {here} up"))?;
        other.ip(&format!("link set {there} up"))?;
        Ok(())
    }

    /// The processes that run inside, by id and command line.
    pub fn processes(&self) -> Result<Vec<(u32, String)>> {
        let here = fs::metadata(self.net_path())?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            // A process that ends while we look is none that is left.
            let Ok(there) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
            if there.dev() == here.dev() && there.ino() == here.ino() {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// A running program that is killed when dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        // The child is ours and not yet waited for, so the id is still its own.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0.id() as i32), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a program ended and what it said, for messages.
pub fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}{err}", output.status).trim_end().to_owned()
}

fn in_new_thread<T: Send>(code: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(code).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs on a thread that ends afterwards: its namespaces live on in the returned descriptors.
fn make_namespaces(dir: &Path) -> Result<(OwnedFd, OwnedFd)> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mounting /sys")?;
    // The target of a symbolic link is what must be covered, before /run is emptied.
    let resolv_conf = fs::canonicalize("/etc/resolv.conf").unwrap_or_else(|_| PathBuf::from("/etc/resolv.conf"));
    for path in PRIVATE.iter().filter(|path| Path::new(path).is_dir()) {
        mount(Some("tmpfs"), *path, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .with_context(|| format!("mounting {path}"))?;
    }
    if resolv_conf.starts_with("/run") {
        let parent = resolv_conf.parent().unwrap_or(Path::new("/run"));
        fs::create_dir_all(parent)?;
        File::create(&resolv_conf)?;
    }
    for (file, over) in [("resolv.conf", resolv_conf.as_path()), ("group", Path::new("/etc/group"))] {
        mount(Some(&dir.join(file)), over, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("mounting {}", over.display()))?;
    }
    let open = |path| File::open(path).map(OwnedFd::from);
    Ok((open("/proc/thread-self/ns/net")?, open("/proc/thread-self/ns/mnt")?))
}
