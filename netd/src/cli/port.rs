//! EDGE: the verbs on ports and guests; `port exec` becomes another program.

use std::{
    ffi::OsString,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    path::Path,
    process::Command,
};

use netd_api::{AddressSource, Port, PortRequest, blocking};
use nix::fcntl::{FcntlArg, fcntl};
use serde_json::json;

use super::{
    Output,
    args::{DomifaddrArgs, PortExecArgs, PortInfoArgs, PortListArgs, Source},
    connect::connect_to_read,
    failure::{About, Failure, without_number},
    format,
};

/// The first descriptor a program gets: those before it are its standard streams.
const FIRST_FD: RawFd = 3;

pub(super) async fn list(socket: &Path, args: &PortListArgs) -> Result<Output, Failure> {
    let about = args.network.as_deref().map_or(About::Nothing, About::Network);
    let failed = |e| Failure::client("Failed to list ports", about, &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let ports = client.list_ports(args.network.clone()).await.map_err(failed)?.ports;
    Ok(Output::table(format::port_list(&ports), json!(ports)))
}

pub(super) async fn info(socket: &Path, args: &PortInfoArgs) -> Result<Output, Failure> {
    let failed = |e| Failure::client("Failed to get port information", About::Nothing, &e);
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let ports = client.get_ports(&args.port).await.map_err(failed)?.ports;
    Ok(Output::new(format::port_infos(&ports), json!(ports)))
}

pub(super) async fn domifaddr(socket: &Path, args: &DomifaddrArgs) -> Result<Output, Failure> {
    let guest = args.guest();
    let failed = |e| Failure::client("Failed to query for interfaces addresses", About::Guest(guest), &e);
    let source = match args.source {
        None | Some(Source::Lease) => AddressSource::Lease,
        Some(Source::Arp) => AddressSource::Arp,
        Some(Source::Any) => AddressSource::Any,
        Some(Source::Agent) => {
            return Err(Failure::new("Failed to query for interfaces addresses")
                .because("argument unsupported: QEMU guest agent is not configured")
                .with_hint("--source any shows leases and what the guest was seen to use"));
        }
    };
    let mut client = connect_to_read(socket).await.map_err(failed)?;
    let mut ask = async |source| {
        let mut addresses = client.list_addresses(guest, source).await.map_err(failed)?.addresses;
        if let Some(interface) = args.interface() {
            addresses.retain(|address| address.interface == interface);
        }
        Ok(addresses)
    };
    let mut addresses = ask(source).await?;
    let mut origins = source == AddressSource::Any;
    let mut notices = Vec::new();
    if addresses.is_empty() && args.source.is_none() {
        addresses = ask(AddressSource::Any).await?;
        origins = !addresses.is_empty();
        if origins {
            notices.push(format!("guest '{guest}' has no lease; this is what it was seen to use (--source any)"));
        }
    }
    Ok(Output::table(format::addresses(&addresses, args.full, origins), json!(addresses)).with_notices(notices))
}

/// Asks for a port and becomes the program. Returns only if that failed; the port is gone then.
pub(super) fn exec(socket: &Path, args: &PortExecArgs) -> Failure {
    let network = args.network.name();
    let request = PortRequest {
        network: network.to_owned(),
        guest: args.guest.clone(),
        mac: args.mac.clone(),
        queues: args.queues,
        // A program that was told no MAC has one of its own (QEMU always the same): guards could only shut it out.
        guards: (args.no_guards || args.mac.is_none()).then_some(false),
        portgroup: args.portgroup.clone(),
    };
    let (port, fds) = match blocking::add_port(socket, request) {
        Ok(reply) => reply,
        Err(error) => {
            let failed = format!("Failed to plug a port into network {network}");
            return Failure::client(failed, About::Network(network), &error);
        }
    };
    // clap sees to it that there is a program
    let Some((program, arguments)) = args.command.split_first() else { return Failure::new("no program to run") };
    let environment = environment(&port, fds.len());
    let _kept = match hand_over(fds) {
        Ok(fds) => fds,
        Err(cause) => return Failure::new(format!("Failed to hand over the port's descriptors: {}", cause.desc())),
    };
    let cause = Command::new(program).args(arguments).envs(environment).exec();
    Failure::new(format!("Failed to run '{}'", program.display())).because(without_number(&cause))
}

/// What tells the program about its port.
fn environment(port: &Port, queues: usize) -> [(&'static str, OsString); 4] {
    let fds: Vec<String> = (FIRST_FD..).take(queues).map(|fd| fd.to_string()).collect();
    [
        ("NETD_PORT_FDS", fds.join(":").into()),
        ("NETD_PORT_MAC", port.mac.clone().into()),
        ("NETD_PORT_INTERFACE", port.interface.clone().into()),
        ("NETD_PORT_MTU", port.mtu.to_string().into()),
    ]
}

/// Makes the descriptors [`FIRST_FD`] and following, and lets them live through `exec`.
fn hand_over(fds: Vec<OwnedFd>) -> nix::Result<Vec<OwnedFd>> {
    let beyond = FIRST_FD + RawFd::try_from(fds.len()).map_err(|_| nix::Error::EMFILE)?;
    // Out of the way first: one of them may have the number another one is to get.
    let mut moved = Vec::new();
    for fd in fds {
        let copy = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(beyond))?;
        // SAFETY: the kernel has just made this descriptor for us; nobody else has its number.
        moved.push(unsafe { OwnedFd::from_raw_fd(copy) });
    }
    let mut placed = Vec::new();
    for (target, fd) in (FIRST_FD..).zip(&moved) {
        // SAFETY: what was open as `target` is closed by this. It belonged to nothing that still runs: the connection
        // to the daemon has ended, this thread is the only one, and all that is left to it is `exec`, or to exit.
        if unsafe { libc::dup2(fd.as_raw_fd(), target) } < 0 {
            return Err(nix::Error::last());
        }
        // SAFETY: `dup2` has made it for us.
        placed.push(unsafe { OwnedFd::from_raw_fd(target) });
    }
    Ok(placed)
}
