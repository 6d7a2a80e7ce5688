//! The flags of `vmm`, one place each: help and completion come from here.
//!
//! `clap` finds the words; `config` understands them, so that every error names the thing and the next move.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::verb::Verb;
use crate::config::{ConfigError, VmConfig, Words};

const EXAMPLES: &str = "\
Examples:
  A guest on the default network, its console on this terminal:
    vmm run --name vm1 --memory 512M --kernel vmlinuz --initrd initrd.img \\
            --cmdline 'console=ttyS0 root=/dev/vda1' --disk vm1.raw --network default

  Two CPUs, a second disk nobody may write, a fixed MAC, the console on a socket:
    vmm run --name db --memory 4G --cpus 2 --kernel vmlinuz --disk db.raw --disk data.raw,readonly \\
            --network lab,mac=52:54:00:12:34:56 --console /run/user/1000/db.sock

  Pause it, and pull the cable of its NIC, from another terminal:
    vmm run … --control /run/user/1000/db.ctl
    vmm control /run/user/1000/db.ctl pause
    vmm control /run/user/1000/db.ctl link 52:54:00:12:34:56 down

Ctrl-C (or SIGTERM) presses the guest's power button; a second one stops the guest at once.
Exit code: 0 the guest powered off, 1 an error, 2 a wrong option, 128+N stopped by signal N.";

/// Runs virtual machines that plug into netd's networks.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, propagate_version = true, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// Say more about what is going on, on standard error.
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a guest in the foreground until it powers off.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunWords>),
    /// Ask, change and watch a running guest, on the socket given to its --control. Answers are JSON.
    Control {
        /// The socket.
        #[arg(value_name = "SOCKET")]
        socket: PathBuf,
        #[command(subcommand)]
        verb: Verb,
    },
    /// Say whether this host's KVM can run stock guests (exit code 0: yes, 1: no).
    Probe,
    /// Print a shell's completion script.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// Where to.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunWords {
    /// What the guest is called, here and on its networks.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The guest's memory: 512M, 2G; a bare number is MiB.
    #[arg(long, value_name = "SIZE", default_value = "512M", help_heading = "Machine")]
    memory: String,
    /// Virtual CPUs, 1 to 64.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Machine")]
    cpus: u32,
    /// The kernel: a bzImage (vmlinuz) or an ELF vmlinux with a PVH entry point.
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    kernel: PathBuf,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE", help_heading = "Boot")]
    initrd: Option<PathBuf>,
    /// The kernel's command line [default: console=ttyS0].
    #[arg(long, value_name = "STRING", help_heading = "Boot", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// The system's serial number (SMBIOS), which cloud-init reads: 'ds=nocloud;s=http://10.0.0.1/'.
    #[arg(long, value_name = "TEXT", help_heading = "Machine")]
    system_serial: Option<String>,
    /// A raw disk image or block device; may be repeated: vda, vdb, … With direct it is read and written past the host's
    /// page cache. The serial number, under /dev/disk/by-id, is the file's name unless one is given.
    #[arg(long = "disk", value_name = "PATH[,readonly][,direct][,serial=TEXT][,queues=N]", help_heading = "Devices")]
    disks: Vec<String>,
    /// A NIC on a netd network; may be repeated. Without mac= it is made from the guest's name, always the same. The
    /// port group has the NIC's VLANs and how fast it may be.
    #[arg(long = "network", value_name = "NAME[,mac=MAC][,queues=N][,portgroup=NAME]", help_heading = "Devices")]
    networks: Vec<String>,
    /// A socket device: who connects to SOCKET and writes `CONNECT PORT` gets that port of the guest; the guest's
    /// connections to port N of the host arrive at SOCKET_N.
    #[arg(long, value_name = "cid=N,socket=SOCKET", help_heading = "Devices")]
    vsock: Option<String>,
    /// Where the first serial port goes; SOCKET is a path to create.
    #[arg(long, value_name = "stdio|none|SOCKET", default_value = "stdio", help_heading = "Devices")]
    console: String,
    /// A socket to create for `vmm control`: ask, pause, reset, change and watch the guest while it runs.
    #[arg(long, value_name = "SOCKET", help_heading = "Devices")]
    control: Option<PathBuf>,
    /// Do without the sandbox: seccomp filters for each thread, landlock, no_new_privs.
    #[arg(long, help_heading = "Machine")]
    no_sandbox: bool,
    /// netd's socket [default: $NETD_SOCKET, else /run/netd/netd.sock].
    #[arg(long, value_name = "PATH", help_heading = "Devices")]
    netd_socket: Option<PathBuf>,
}

impl RunWords {
    /// Every word understood, or the first that can't be.
    pub(super) fn understand(self) -> Result<(VmConfig, PathBuf), ConfigError> {
        let words = Words {
            name: self.name,
            memory: self.memory.parse()?,
            cpus: self.cpus,
            kernel: self.kernel,
            initrd: self.initrd,
            command_line: self.cmdline,
            disks: parse_all(&self.disks)?,
            networks: parse_all(&self.networks)?,
            console: self.console.parse()?,
            control: self.control,
            sandbox: !self.no_sandbox,
            serial: self.system_serial,
            vsock: self.vsock.as_deref().map(str::parse).transpose()?,
        };
        Ok((VmConfig::new(words)?, netd_api::socket_path(self.netd_socket.as_deref())))
    }
}

fn parse_all<T: std::str::FromStr<Err = ConfigError>>(words: &[String]) -> Result<Vec<T>, ConfigError> {
    words.iter().map(|word| word.parse()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn understand(extra: &[&str]) -> Result<(VmConfig, PathBuf), ConfigError> {
        let words = ["vmm", "run", "--name", "vm1", "--kernel", "k"].iter().chain(extra);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Run(words) => words.understand(),
            _ => panic!("not a run"),
        }
    }

    #[test]
    fn the_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_kernel_and_a_name_are_enough() {
        let (config, _) = understand(&[]).unwrap();
        assert_eq!((config.cpus, config.memory.bytes()), (1, 512 << 20));
        assert_eq!(config.command_line, "console=ttyS0");
    }

    #[test]
    fn every_word_arrives_where_it_belongs() {
        let words = "--memory 2G --cpus 4 --initrd i --cmdline quiet --disk a --disk b,readonly --network n,queues=2 --console /s --netd-socket /n";
        let (config, netd) = understand(&words.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!((config.cpus, config.memory.bytes()), (4, 2 << 30));
        assert_eq!(config.disks.iter().map(|disk| disk.readonly).collect::<Vec<_>>(), [false, true]);
        assert_eq!((config.nics[0].network.as_str(), config.nics[0].queues), ("n", 2));
        assert_eq!(netd, PathBuf::from("/n"));
    }

    #[test]
    fn an_option_that_stands_once_can_not_stand_twice() {
        let words = ["vmm", "run", "--name", "a", "--name", "b", "--kernel", "k"];
        assert!(Arguments::try_parse_from(words).is_err());
    }

    #[test]
    fn zero_cpus_are_an_error() {
        assert_eq!(understand(&["--cpus", "0"]).unwrap_err(), ConfigError::Cpus(0));
    }
}
