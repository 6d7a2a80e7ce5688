//! EDGE: the command line, the log, manual pages.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::{Layer, filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    listen::{PREFERRED, READ_ONLY_SUFFIX, SOCKET},
    server::{self, Options},
};

/// libvirt's remote protocol in front of netd: virsh and other libvirt clients drive netd's networks
#[derive(Debug, Parser)]
#[command(name = "netd-libvirtd", version)]
#[command(after_help = "\
Clients look for libvirt at /run/libvirt/libvirt-sock. Where libvirtd or virtqemud has that path, it is left to them: \
choose another with --socket, and tell clients by 'virsh -c qemu:///system?socket=PATH', by the same URI in the variable \
LIBVIRT_DEFAULT_URI, or by uri_default in /etc/libvirt/libvirt.conf. Started by systemd's sockets (libvirt and libvirt-ro), \
it uses those and makes none.")]
struct Arguments {
    /// Listen here for clients that may change things
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
    /// Listen here for clients that may only look; the other's path with "-ro" if not given
    #[arg(long, value_name = "PATH")]
    readonly_socket: Option<PathBuf>,
    /// Members of this group may change things too, where there is such a group
    #[arg(long, value_name = "NAME", default_value = "libvirt")]
    group: String,
    /// netd's socket; NETD_SOCKET, or /run/netd/netd.sock, if not given
    #[arg(long, value_name = "PATH")]
    netd: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, Subcommand)]
enum Other {
    /// Write the manual page to a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
}

fn options(arguments: Arguments) -> Options {
    let Arguments { socket, readonly_socket, group, netd, other: _ } = arguments;
    let read_only_socket = readonly_socket.unwrap_or_else(|| {
        let mut path = socket.clone().into_os_string();
        path.push(READ_ONLY_SUFFIX);
        path.into()
    });
    Options { socket, read_only_socket, group, netd: netd_api::socket_path(netd.as_deref()) }
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.other {
        Some(Other::Man { ref directory }) => manual(directory).map_err(anyhow::Error::from),
        None => {
            log();
            let options = options(arguments);
            warn_of_preferred(&options);
            server::run(&options).map_err(anyhow::Error::from)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _: io::Result<()> = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn log() {
    // By target and level only: what else a filter can do needs more memory than all the rest here.
    let wanted = std::env::var("RUST_LOG").ok().and_then(|words| words.parse::<Targets>().ok());
    let filter = wanted.unwrap_or_else(|| Targets::new().with_default(Level::INFO));
    let lines = tracing_subscriber::fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

fn warn_of_preferred(options: &Options) {
    if options.socket == Path::new(SOCKET) && Path::new(PREFERRED).exists() {
        tracing::warn!("{PREFERRED} is there: clients that are told qemu:///system go there and not to {SOCKET}");
    }
}

fn manual(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_for_looking_is_called_after_the_other() {
        let of = |words: &[&str]| {
            options(Arguments::try_parse_from([&["netd-libvirtd", "--netd", "/n"], words].concat()).unwrap())
        };
        assert_eq!(of(&[]).read_only_socket, Path::new("/run/libvirt/libvirt-sock-ro"));
        assert_eq!(of(&["--socket", "/a/b"]).read_only_socket, Path::new("/a/b-ro"));
        assert_eq!(of(&["--socket", "/a/b", "--readonly-socket", "/c"]).read_only_socket, Path::new("/c"));
    }
}
