//! EDGE: `vmm run`: check everything, open everything, run the guest, put everything back.
//!
//! The order is the promise: files, `/dev/kvm`, memory and the console socket are checked before a port is asked of
//! `netd`, so what can fail because of a typo fails before anybody else has noticed us.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use netd_api::{ClientError, PortRequest, blocking};

use crate::{
    boot::{BootError, BootFiles},
    config::{self, Disk, Mac, MemorySize, Nic, VmConfig, Vsock},
    control::{
        End, RunError, Signals,
        answer::Guest,
        console::{Console, ConsoleError},
        listener::{ListenError, Listener},
        socket::Control,
        supervise,
    },
    disk::{DiskError, RawDisk},
    kvm::{self, KvmError},
    machine::{self, DiskPart, Machine, MachineError, NicPart, Parts, Shape, VsockPart, smbios::System},
    sandbox::{self, SandboxError},
};

/// Why a guest could not be run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error(transparent)]
    Console(#[from] ConsoleError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("failed to start the control thread: {0}")]
    Control(io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("failed to block signals: {0}")]
    Signals(io::Error),
    #[error(
        "the guest wants {} MiB of memory and this host has {} MiB in all: ask for less with --memory",
        .wanted.bytes() >> 20, .host >> 20
    )]
    HostMemory { wanted: MemorySize, host: u64 },
    #[error("network '{network}': {cause}{}", hint(.cause, .socket))]
    Port { network: String, socket: PathBuf, cause: ClientError },
    #[error(
        "network '{network}': netd gave {given} descriptors for {wanted} queues: are netd and vmm of the same version?"
    )]
    PortQueues { network: String, wanted: u16, given: usize },
    #[error(
        "network '{network}': netd gave an MTU of {mtu} bytes, a NIC takes 68 to 65535: correct the network's <mtu>"
    )]
    PortMtu { network: String, mtu: u32 },
    #[error("network '{network}': netd gave the port MAC address {given} and not {wanted}")]
    PortMac { network: String, wanted: Mac, given: String },
}

/// The next move after a port was not to be had.
fn hint(cause: &ClientError, socket: &Path) -> String {
    match cause {
        ClientError::Connect { .. } => format!(
            ": start the daemon (netd daemon), or name its socket with --netd-socket if it is not {}",
            socket.display()
        ),
        ClientError::Transport(_) => ": look at the daemon's log".to_owned(),
        ClientError::Refused(error) => error.hint().map(|hint| format!(": {hint}")).unwrap_or_default(),
    }
}

/// Runs the guest to its end.
pub(crate) fn run(config: &VmConfig, netd: &Path) -> Result<End, Error> {
    // Before the first thread: signals wait to be read from here on.
    let signals = Signals::block().map_err(Error::Signals)?;
    let boot = BootFiles::open(&config.kernel, config.initrd.as_deref())?;
    let disks = config.disks.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let kvm = kvm::open()?;
    let system = System { serial: config.serial.clone(), uuid: config.uuid };
    let shape = Shape { memory: config.memory, cpus: config.cpus, command_line: config.command_line.clone(), system };
    machine::check(&kvm, &shape)?;
    check_host_memory(config.memory)?;
    let console = Console::open(&config.console)?;
    let control = config.control.as_deref().map(|path| Listener::bind("control", path)).transpose()?;
    let vsock = config.vsock.as_ref().map(listen).transpose()?;
    let vsock_part = vsock.as_ref().map(VsockPart::new).transpose().map_err(MachineError::Descriptor)?;
    let output = console.output().map_err(MachineError::Descriptor)?;
    let nics = config.nics.iter().map(|nic| plug(&config.name, nic, netd)).collect::<Result<_, _>>()?;

    let mut machine = Machine::build(shape, Parts { kvm, boot, disks, nics, vsock: vsock_part, output })?;
    if config.sandbox {
        let sockets =
            [config.control.as_deref(), config.vsock.as_ref().map(|vsock| vsock.path.as_path()), console_path(config)];
        sandbox::enter(&sockets.into_iter().flatten().collect::<Vec<_>>())?;
    } else {
        tracing::warn!("the guest runs without a sandbox: --no-sandbox");
    }
    let console = console.start(machine.com1())?;
    let control = Control::start(control).map_err(Error::Control)?;
    let guest = Guest {
        name: config.name.clone(),
        networks: config.nics.iter().map(|nic| nic.network.clone()).collect(),
        disks: config.disks.iter().map(|disk| disk.path.clone()).collect(),
    };
    let end = supervise(&mut machine, &guest, &signals, &control);
    machine.shutdown();
    control.finish();
    console.finish();
    Ok(end?)
}

/// The console's socket, if it has one.
fn console_path(config: &VmConfig) -> Option<&Path> {
    match &config.console {
        config::Console::Socket(path) => Some(path),
        _ => None,
    }
}

fn open(disk: &Disk) -> Result<DiskPart, DiskError> {
    let image = RawDisk::open_with(&disk.path, disk.readonly, disk.direct)?;
    Ok(DiskPart { image, serial: disk.serial.clone(), queues: disk.queues })
}

/// The listening end of a socket device.
fn listen(vsock: &Vsock) -> Result<(Vsock, Listener), ListenError> {
    Ok((vsock.clone(), Listener::bind("vsock", &vsock.path)?))
}

impl VsockPart {
    fn new((vsock, listener): &(Vsock, Listener)) -> io::Result<Self> {
        Ok(VsockPart { cid: vsock.cid, listener: listener.socket.try_clone()?, path: vsock.path.clone() })
    }
}

/// More memory than the host has would only end in the host's out-of-memory killer.
fn check_host_memory(wanted: MemorySize) -> Result<(), Error> {
    // A host whose memory can't be asked for is no reason not to try.
    let Ok(info) = nix::sys::sysinfo::sysinfo() else { return Ok(()) };
    let host = info.ram_total();
    if wanted.bytes() > host { Err(Error::HostMemory { wanted, host }) } else { Ok(()) }
}

/// Asks `netd` for a port and makes sure it is the one asked for.
fn plug(guest: &str, nic: &Nic, socket: &Path) -> Result<NicPart, Error> {
    let network = || nic.network.clone();
    let request = PortRequest {
        network: network(),
        guest: Some(guest.to_owned()),
        mac: Some(nic.mac.to_string()),
        queues: nic.queues.into(),
        guards: None,
        portgroup: nic.portgroup.clone(),
    };
    let (port, taps): (_, Vec<OwnedFd>) = blocking::add_port(socket, request).map_err(|cause| Error::Port {
        network: network(),
        socket: socket.to_owned(),
        cause,
    })?;
    if taps.len() != usize::from(nic.queues) {
        return Err(Error::PortQueues { network: network(), wanted: nic.queues, given: taps.len() });
    }
    if port.mac.parse() != Ok(nic.mac) {
        return Err(Error::PortMac { network: network(), wanted: nic.mac, given: port.mac });
    }
    let mtu = u16::try_from(port.mtu).ok().filter(|mtu| *mtu >= 68);
    let mtu = mtu.ok_or(Error::PortMtu { network: network(), mtu: port.mtu })?;
    Ok(NicPart { taps, mac: nic.mac, mtu })
}
