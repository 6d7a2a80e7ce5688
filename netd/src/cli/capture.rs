//! EDGE: `capture`: packet sockets that the daemon opened, a file or standard output, signals and the clock.
//!
//! The daemon only opens the sockets. This process reads them, and the kernel drops what it does not read in time, so
//! however slow the disk or the other end of a pipe is, neither daemon nor guests wait for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, BufWriter, IsTerminal, Write},
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use netd_api::{AddressSource, Client, ClientError, Port};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};
use tokio::runtime::Runtime;

use super::{
    args::CaptureArgs,
    connect::connect,
    failure::{About, Failure, without_number},
    runtime,
};
use crate::{
    capture::{Direction, Frame, Recording},
    daemon::raise_descriptor_limit,
    packet::{self, Received},
};

/// Frames of one interface read before the next one's turn.
const HELPING: usize = 256;

/// Between two looks for new ports and new names.
const LOOK: Duration = Duration::from_secs(1);

/// Captures until told to end, and says what came of it.
pub(super) fn run(socket: &Path, args: &CaptureArgs) -> Result<(), Failure> {
    if args.to_stdout() && io::stdout().is_terminal() {
        return Err(Failure::new("Refusing to write packets to a terminal")
            .with_hint("write to a file, or pipe them: netd capture … -w - | tcpdump -r -"));
    }
    // One descriptor per port.
    raise_descriptor_limit();
    let signals = signals()?;
    let runtime = runtime()?;
    let mut capture = Capture::begin(runtime, socket, args)?;
    let output: Box<dyn Write> = if args.to_stdout() {
        Box::new(io::stdout().lock())
    } else {
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&args.file);
        let failed = |cause| Failure::file(&args.file, &cause);
        Box::new(opened.map_err(failed)? as File)
    };
    let mut output = BufWriter::with_capacity(1 << 20, output);
    let written = capture.record(args, &signals, &mut output);
    let summary = capture.finish(&mut output, written.is_ok());
    match written.and(summary) {
        // Whoever reads the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let file = args.file.display();
            Err(Failure::new(format!("Failed to write to file '{file}': {}", without_number(&error))))
        }
        Ok(()) => Ok(()),
    }
}

/// What ends a capture in good order.
fn signals() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    let failed = |errno: Errno| Failure::new(format!("cannot listen for signals: {}", errno.desc()));
    set.thread_block().map_err(failed)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)
}

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// Every port of a guest, whenever it comes.
    Guest(String),
    /// Every port of a network, whenever it comes.
    Network(String),
    /// One port, or a bridge.
    Interface(String),
}

struct Capture {
    runtime: Runtime,
    client: Client,
    target: Target,
    recording: Recording,
    snaplen: u32,
    taps: Vec<Tap>,
    /// Those that are heard or were, by interface and the MAC that tells one port from the next of its name.
    known: BTreeSet<(String, String)>,
    /// The networks they are or were on.
    networks: BTreeSet<String>,
    begun: bool,
    dropped: u64,
}

/// An interface that is heard.
struct Tap {
    socket: OwnedFd,
    number: u32,
    interface: String,
}

impl Capture {
    fn begin(runtime: Runtime, socket: &Path, args: &CaptureArgs) -> Result<Self, Failure> {
        let what = &args.what;
        let failed = |error: ClientError| {
            Failure::client(format!("Failed to capture packets of '{what}'"), About::Nothing, &error)
        };
        let (client, target) = runtime.block_on(async {
            let mut client = connect(socket).await.map_err(failed)?;
            let target = find(&mut client, what).await.map_err(failed)?;
            Ok((client, target))
        })?;
        let target = target.ok_or_else(|| {
            Failure::new(format!("Failed to capture packets of '{what}'"))
                .because(format!("no guest with a port, active network or interface of one is called '{what}'"))
                .with_hint("'netd port-list' and 'netd net-list' show what there is")
        })?;
        let ring = args.ring.map(|mebibytes| mebibytes as usize * (1 << 20));
        let mut capture = Capture {
            runtime,
            client,
            target,
            recording: Recording::new(args.snaplen, ring),
            snaplen: args.snaplen,
            taps: Vec::new(),
            known: BTreeSet::new(),
            networks: BTreeSet::new(),
            begun: false,
            dropped: 0,
        };
        capture.look().map_err(failed)?;
        capture.begun = true;
        Ok(capture)
    }

    /// Hears what has come since, and learns new names.
    fn look(&mut self) -> Result<(), ClientError> {
        let Capture { runtime, client, target, recording, snaplen, taps, known, networks, begun, .. } = self;
        runtime.block_on(async {
            let ports = client.list_ports(None).await?.ports;
            for (interface, mac) in wanted(target, &ports) {
                if known.contains(&(interface.clone(), mac.clone())) {
                    continue;
                }
                match client.open_capture(&interface, *snaplen).await {
                    Ok((reply, socket)) => {
                        let description = match &reply.guest {
                            Some(guest) => format!("guest {guest}, network {}", reply.network),
                            None => format!("network {}", reply.network),
                        };
                        let number = recording.interface(&interface, &description);
                        taps.push(Tap { socket, number, interface: interface.clone() });
                        networks.insert(reply.network);
                        known.insert((interface, mac));
                    }
                    // It may have gone since it was listed; what cannot be had at the beginning is an error.
                    Err(ClientError::Refused(_)) if *begun => {}
                    Err(error) => return Err(error),
                }
            }
            recording.names(names(client, target, networks, &ports).await?);
            Ok(())
        })
    }

    /// Until enough was captured, time is over or a signal says so.
    fn record(&mut self, args: &CaptureArgs, signals: &SignalFd, output: &mut impl Write) -> io::Result<()> {
        let begun = Instant::now();
        let end = args.seconds.map(|seconds| begun + Duration::from_secs(seconds));
        let enough = args.count.unwrap_or(u64::MAX);
        let mut buffer = vec![0; self.snaplen as usize];
        let mut next_look = begun + LOOK;
        let mut daemon = true;
        let (stdout, to_stdout) = (io::stdout(), args.to_stdout());
        output.write_all(&self.recording.take())?;
        output.flush()?;
        while self.recording.frames() < enough && end.is_none_or(|end| Instant::now() < end) {
            let wake = end.map_or(next_look, |end| end.min(next_look));
            let wait = wake.saturating_duration_since(Instant::now()).min(LOOK) + Duration::from_millis(1);
            // That nobody reads any more is told without being asked for.
            let mut waiting = vec![
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(if to_stdout { stdout.as_fd() } else { signals.as_fd() }, PollFlags::empty()),
            ];
            waiting.extend(self.taps.iter().map(|tap| PollFd::new(tap.socket.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waiting, PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let ready: Vec<bool> =
                waiting.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect();
            drop(waiting);
            if ready[0] {
                break;
            }
            if ready[1] {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            for at in (0..self.taps.len()).rev().filter(|at| ready[at + 2]) {
                if !self.read(at, enough, &mut buffer) {
                    self.forget(at);
                }
                output.write_all(&self.recording.take())?;
            }
            output.flush()?;
            if matches!(self.target, Target::Interface(_)) && self.taps.is_empty() {
                let _: io::Result<()> = writeln!(io::stderr(), "note: the interface is gone");
                break;
            }
            if daemon && Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                if let Err(error) = self.look() {
                    daemon = false;
                    let _: io::Result<()> =
                        writeln!(io::stderr(), "note: {error}; ports that come from now on are not captured");
                }
            }
            if !daemon {
                next_look = Instant::now() + LOOK;
            }
        }
        Ok(())
    }

    /// Reads what is there, for a while; false if the interface is gone.
    fn read(&mut self, at: usize, enough: u64, buffer: &mut [u8]) -> bool {
        let Tap { socket, number, .. } = &self.taps[at];
        for _ in 0..HELPING {
            if self.recording.frames() >= enough {
                return true;
            }
            match packet::receive(socket.as_fd(), buffer) {
                Ok(Received { len, original, tag, kind, at }) => {
                    let direction = Direction::of(kind);
                    let frame = Frame { interface: *number, at, bytes: &buffer[..len], original, direction };
                    self.recording.frame(frame, tag);
                }
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// The interface is heard no more.
    fn forget(&mut self, at: usize) {
        let tap = self.taps.swap_remove(at);
        // Under this name another port may come.
        self.known.retain(|(interface, _)| *interface != tap.interface);
        let (received, dropped) = packet::statistics(tap.socket.as_fd()).unwrap_or_default();
        self.dropped += dropped;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.recording.statistics(tap.number, now, received, dropped);
    }

    /// Ends the file, if it can still be written, and says what is in it.
    fn finish(mut self, output: &mut impl Write, writable: bool) -> io::Result<()> {
        while !self.taps.is_empty() {
            self.forget(self.taps.len() - 1);
        }
        let (frames, left_out, dropped) = (self.recording.frames(), self.recording.left_out(), self.dropped);
        let result =
            if writable { output.write_all(&self.recording.finish()).and_then(|()| output.flush()) } else { Ok(()) };
        let plural = |count: u64| if count == 1 { "packet" } else { "packets" };
        let mut summary = format!("{frames} {} captured\n", plural(frames));
        if left_out > 0 {
            summary.push_str(&format!("{left_out} older {} left out of the ring\n", plural(left_out)));
        }
        summary.push_str(&format!("{dropped} {} dropped by the kernel\n", plural(dropped)));
        let _: io::Result<()> = io::stderr().write_all(summary.as_bytes());
        result
    }
}

/// What is to be heard of these ports: interfaces, each with its port's MAC.
fn wanted(target: &Target, ports: &[Port]) -> Vec<(String, String)> {
    let chosen = |port: &&Port| match target {
        Target::Guest(guest) => port.guest.as_ref() == Some(guest),
        Target::Network(network) => port.network == *network,
        Target::Interface(interface) => port.interface == *interface,
    };
    let mut wanted: Vec<(String, String)> =
        ports.iter().filter(chosen).map(|port| (port.interface.clone(), port.mac.clone())).collect();
    if let (Target::Interface(bridge), []) = (target, &wanted[..]) {
        wanted.push((bridge.clone(), String::new()));
    }
    wanted
}

/// Whose addresses are whose on these networks, by leases; of a guest all that is known.
async fn names(
    client: &mut Client,
    target: &Target,
    networks: &BTreeSet<String>,
    ports: &[Port],
) -> Result<Vec<(IpAddr, String)>, ClientError> {
    let guests: BTreeMap<&str, &str> =
        ports.iter().filter_map(|port| Some((port.mac.as_str(), port.guest.as_deref()?))).collect();
    let mut names = Vec::new();
    for network in networks {
        for lease in known_to(client.list_leases(network, None).await)?.map_or_else(Vec::new, |found| found.leases) {
            let name = guests.get(lease.mac.as_str()).map(|guest| (*guest).to_owned()).or(lease.hostname);
            names.extend(lease.address.parse().ok().zip(name));
        }
    }
    if let Target::Guest(guest) = target {
        let found = known_to(client.list_addresses(guest, AddressSource::Any).await)?;
        let addresses = found.map_or_else(Vec::new, |found| found.addresses).into_iter();
        names.extend(addresses.filter_map(|address| Some((address.address.parse().ok()?, guest.clone()))));
    }
    Ok(names)
}

/// What the daemon knows no more (a guest without a port, a network that is gone) has no names.
fn known_to<T>(reply: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match reply {
        Ok(reply) => Ok(Some(reply)),
        Err(ClientError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What has this name: a guest before a network, a network before an interface.
async fn find(client: &mut Client, what: &str) -> Result<Option<Target>, ClientError> {
    let ports = client.list_ports(None).await?.ports;
    if ports.iter().any(|port| port.guest.as_deref() == Some(what)) {
        return Ok(Some(Target::Guest(what.to_owned())));
    }
    let networks = client.list_networks().await?.networks;
    let network = networks.iter().find(|network| network.active && (network.name == what || network.uuid == what));
    if let Some(network) = network {
        return Ok(Some(Target::Network(network.name.clone())));
    }
    let is_bridge = networks.iter().any(|network| network.active && network.bridge.as_deref() == Some(what));
    let is_port = ports.iter().any(|port| port.interface == what);
    Ok((is_bridge || is_port).then(|| Target::Interface(what.to_owned())))
}
