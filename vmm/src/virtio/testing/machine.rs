//! A machine without KVM: guest memory, a bus, and an interrupt router and doorbells that tests can look into.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::Driver;
use crate::pci::msix::{Doorbells, MsiMessage, MsiRoutes, MsiVector};
use crate::pci::{PciBus, lock};
use crate::virtio::{BAR_SIZE, VirtioDevice, VirtioPci};

/// How long a test waits for something that should happen at once; only a failing test waits so long.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(10);

/// Bytes of guest memory, in two parts with a hole between them so that buffers may run over an edge.
const LOW: usize = 16 << 20;
const HIGH_AT: u64 = 32 << 20;
const HIGH: usize = 1 << 20;

const BARS: u64 = 0xe000_0000;

pub(crate) struct Machine {
    pub(crate) bus: PciBus,
    pub(crate) memory: GuestMemoryMmap<()>,
    pub(crate) router: Arc<Router>,
    pub(crate) doorbells: Arc<Bells>,
    next_free: Mutex<u64>,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let parts = [(GuestAddress(0), LOW), (GuestAddress(HIGH_AT), HIGH)];
        Self {
            bus: PciBus::new(),
            memory: GuestMemoryMmap::from_ranges(&parts).unwrap(),
            router: Arc::default(),
            doorbells: Arc::default(),
            next_free: Mutex::new(0x1000),
        }
    }

    /// Attaches a device and answers a driver that has not looked at it yet.
    pub(crate) fn plug(&self, slot: u8, device: impl VirtioDevice + 'static) -> Driver<'_> {
        let bar = BARS + u64::from(slot) * BAR_SIZE;
        let (router, doorbells) = (self.router.clone(), self.doorbells.clone());
        let function = VirtioPci::new(Box::new(device), self.memory.clone(), router, doorbells, bar).unwrap();
        self.bus.attach(slot, function).unwrap();
        Driver::new(self, slot)
    }

    /// Guest memory nobody else uses.
    pub(crate) fn allocate(&self, bytes: u64, align: u64) -> u64 {
        let mut next = lock(&self.next_free);
        let at = next.next_multiple_of(align);
        *next = at + bytes;
        assert!(*next <= LOW as u64, "the test uses more memory than the machine has");
        at
    }

    /// The guest writes a doorbell: the kernel takes it if it is registered, else it is an MMIO exit.
    pub(crate) fn ring(&self, address: u64, queue: u16) {
        match lock(&self.doorbells.bells).get(&address) {
            Some(fd) => fd.write(1).unwrap(),
            None => drop(self.bus.mmio_write(address, &queue.to_le_bytes())),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.bus.shutdown();
        assert!(lock(&self.doorbells.bells).is_empty(), "doorbells are left after shutdown");
    }
}

/// Interrupt lines; a message's data names a vector.
#[derive(Default)]
pub(crate) struct Router {
    lines: Mutex<Vec<(EventFd, Option<MsiMessage>)>>,
}

impl MsiRoutes for Router {
    fn vector(&self) -> io::Result<MsiVector> {
        let mut lines = lock(&self.lines);
        let fd = EventFd::new(libc::EFD_NONBLOCK)?;
        lines.push((fd.try_clone()?, None));
        Ok(MsiVector { gsi: lines.len() as u32 - 1, fd })
    }

    fn route(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        lock(&self.lines)[gsi as usize].1 = message;
        Ok(())
    }
}

impl Router {
    /// The line that sends messages with this data, if one does.
    fn line(&self, data: u32) -> Option<EventFd> {
        let lines = lock(&self.lines);
        let line = lines.iter().find(|(_, message)| message.is_some_and(|m| m.data == data))?;
        Some(line.0.try_clone().unwrap())
    }

    /// Waits for interrupts with this data; answers how many came, 0 if none did in `time`.
    pub(crate) fn wait(&self, data: u32, time: Duration) -> u64 {
        let Some(line) = self.line(data) else { return 0 };
        if readable(&line, time) { line.read().unwrap_or(0) } else { 0 }
    }
}

/// Registered doorbells by address.
#[derive(Default)]
pub(crate) struct Bells {
    pub(crate) bells: Mutex<BTreeMap<u64, EventFd>>,
}

impl Doorbells for Bells {
    fn register(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        match lock(&self.bells).insert(address, fd.try_clone()?) {
            None => Ok(()),
            Some(_) => panic!("doorbell at {address:#x} registered twice"),
        }
    }

    fn unregister(&self, _fd: &EventFd, address: u64) -> io::Result<()> {
        lock(&self.bells).remove(&address).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Waits until `fd` can be read.
pub(crate) fn readable(fd: &impl AsRawFd, time: Duration) -> bool {
    // SAFETY: the caller's borrow keeps the descriptor open for the whole call.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd.as_raw_fd()) };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(time).unwrap()).unwrap() == 1
}
