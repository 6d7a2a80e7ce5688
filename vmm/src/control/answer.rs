//! What is answered to a question on the control socket, and what else is to be done.

use std::{path::PathBuf, time::Duration};

use super::api::{self, Call, Event, EventKind, Memory, MemoryUse, Rates, Refusal, Reply, Running, State, Traffic};
use crate::{
    config::Mac,
    machine::Machine,
    virtio::{
        balloon::Stats,
        blk::{Drive, DriveCount},
        limit,
        net::{Count, Nic},
    },
};

/// How long a guest that is asked about its memory may take; signals wait meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// The least memory a guest can be asked to make do with, in bytes: as much as the smallest guest has.
const LEAST: u64 = 16 << 20;

/// What the machine does not know of the guest.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) name: String,
    /// Of the NICs, in their order.
    pub(crate) networks: Vec<String>,
    /// Of the disks, in theirs.
    pub(crate) disks: Vec<PathBuf>,
}

/// What is left to do after a question was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    None,
    Tell(Event),
    Reset,
    Quit,
}

/// Answers, having done what can be done without stopping the machine.
pub(super) fn answer(guest: &Guest, machine: &mut Machine, call: &Call) -> (Result<Reply, Refusal>, Deed) {
    let done = |deed| (Ok(Reply::Nothing {}), deed);
    let told = |kind: EventKind| (Ok(Reply::Nothing {}), Deed::Tell(kind.into()));
    match call {
        Call::GetState => (Ok(Reply::State { state: state(guest, machine) }), Deed::None),
        Call::Pause if machine.pause() => told(EventKind::Paused),
        Call::Resume if machine.resume() => told(EventKind::Resumed),
        Call::Pause | Call::Resume => done(Deed::None),
        Call::PowerButton => match machine.press_power_button() {
            Ok(()) => told(EventKind::PowerButton),
            Err(error) => (Err(Refusal::new(format!("cannot press the power button: {error}"))), Deed::None),
        },
        Call::Reset => done(Deed::Reset),
        Call::Quit => done(Deed::Quit),
        Call::GetMemory => (Ok(Reply::Memory { memory: memory(machine, PATIENCE) }), Deed::None),
        Call::SetMemory { bytes } => match set_memory(guest, machine, *bytes) {
            Ok(()) => (Ok(Reply::Memory { memory: memory(machine, Duration::ZERO) }), Deed::None),
            Err(refusal) => (Err(refusal), Deed::None),
        },
        Call::GetNics => {
            let nics = machine.nics().iter().zip(&guest.networks).map(|(nic, network)| describe(nic, network));
            (Ok(Reply::Nics { nics: nics.collect() }), Deed::None)
        }
        Call::SetLink { mac, up } => {
            let (nic, network) = match nic(guest, machine, mac) {
                Ok(found) => found,
                Err(refusal) => return (Err(refusal), Deed::None),
            };
            let changed = nic.is_link_up() != *up;
            nic.set_link(*up);
            let kind = if *up { EventKind::LinkUp } else { EventKind::LinkDown };
            let event = Event { kind, mac: Some(Mac(nic.mac()).to_string()) };
            let deed = if changed { Deed::Tell(event) } else { Deed::None };
            (Ok(Reply::Nic { nic: describe(nic, network) }), deed)
        }
        Call::SetNicLimits { mac, receive, send } => {
            let limited = nic(guest, machine, mac).map(|(nic, network)| {
                for (limiter, rates) in nic.limits().into_iter().zip([receive, send]) {
                    limiter.set(inner(*rates));
                }
                Reply::Nic { nic: describe(nic, network) }
            });
            (limited, Deed::None)
        }
        Call::GetDisks => {
            let disks = machine.drives().iter().enumerate();
            (Ok(Reply::Disks { disks: disks.map(|(number, drive)| disk(guest, number, drive)).collect() }), Deed::None)
        }
        Call::SetDiskLimits { number, limits } => {
            let found = usize::try_from(*number).ok().and_then(|number| Some((number, machine.drives().get(number)?)));
            let answer = match found {
                Some((number, drive)) => {
                    drive.limit().set(inner(*limits));
                    Ok(Reply::Disk { disk: disk(guest, number, drive) })
                }
                None => Err(Refusal::new(format!(
                    "{} has no disk number {number}: it has {}, counted from 0",
                    guest.name,
                    machine.drives().len()
                ))),
            };
            (answer, Deed::None)
        }
        // The socket's thread keeps those to itself.
        Call::Monitor => done(Deed::None),
    }
}

fn state(guest: &Guest, machine: &Machine) -> State {
    let shape = machine.shape();
    State {
        name: guest.name.clone(),
        state: if machine.is_paused() { Running::Paused } else { Running::Running },
        cpus: shape.cpus,
        memory: shape.memory.bytes(),
        pid: std::process::id(),
    }
}

/// `patience` is for the guest's answer; one that stands still gives none.
fn memory(machine: &Machine, patience: Duration) -> Memory {
    let size = machine.shape().memory.bytes();
    let (wanted, actual) = machine.balloon().wanted_and_actual();
    let patience = if machine.is_paused() { Duration::ZERO } else { patience };
    let used = machine.balloon().ask_stats(patience).map(|stats| {
        let Stats { free, total, available, caches, swapped_in, swapped_out, major_faults, minor_faults } = stats;
        MemoryUse { free, total, available, caches, swapped_in, swapped_out, major_faults, minor_faults }
    });
    Memory { size, wanted: size.saturating_sub(wanted), actual: size.saturating_sub(actual), used }
}

fn set_memory(guest: &Guest, machine: &Machine, bytes: u64) -> Result<(), Refusal> {
    let all = machine.shape().memory.bytes();
    if !(LEAST..=all).contains(&bytes) {
        let (least, all) = (LEAST >> 20, all >> 20);
        let message = format!("{} cannot use {} MiB of memory: give {least} to {all}", guest.name, bytes >> 20);
        return Err(Refusal::new(message));
    }
    machine.balloon().set_wanted(all - bytes);
    Ok(())
}

/// The NIC with this address, and its network.
fn nic<'a>(guest: &'a Guest, machine: &'a Machine, mac: &str) -> Result<(&'a Nic, &'a str), Refusal> {
    let mut nics = machine.nics().iter().zip(&guest.networks);
    let found = nics.find(|(nic, _)| mac.parse() == Ok(Mac(nic.mac())));
    found.map(|(nic, network)| (&**nic, network.as_str())).ok_or_else(|| {
        let known: Vec<_> = machine.nics().iter().map(|nic| Mac(nic.mac()).to_string()).collect();
        Refusal::new(format!("no NIC of {} has the address '{mac}': it has {}", guest.name, list(&known)))
    })
}

fn disk(guest: &Guest, number: usize, drive: &Drive) -> api::Disk {
    let DriveCount { reads, read_bytes, writes, written_bytes, errors } = drive.count();
    let path = guest.disks.get(number).map(|path| path.display().to_string()).unwrap_or_default();
    let limits = outer(drive.limit().rates());
    api::Disk { number, path, reads, read_bytes, writes, written_bytes, errors, limits }
}

fn inner(Rates { bytes, operations }: Rates) -> limit::Rates {
    limit::Rates { bytes, operations }
}

fn outer(limit::Rates { bytes, operations }: limit::Rates) -> Rates {
    Rates { bytes, operations }
}

fn describe(nic: &Nic, network: &str) -> api::Nic {
    let traffic = |Count { frames, bytes, dropped, filtered }| Traffic { frames, bytes, dropped, filtered };
    let (received, sent) = nic.counts();
    api::Nic {
        network: network.to_owned(),
        mac: Mac(nic.mac()).to_string(),
        link_up: nic.is_link_up(),
        received: traffic(received),
        sent: traffic(sent),
        receive_limits: outer(nic.limits()[0].rates()),
        send_limits: outer(nic.limits()[1].rates()),
    }
}

/// `a, b` or `none`.
fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
