//! COM1: a 16550 from `vm-superio` behind a lock, its interrupt line, and what lies between it and the console thread.
//!
//! Output goes into a bounded buffer and never waits: a console nobody reads must not stop the guest. Bytes that find the
//! buffer full are dropped and counted, and the reader gets a line saying so. Input goes in as far as the FIFO has room;
//! [`Com1::space`] says when to try again.

use std::{
    collections::VecDeque,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vm_superio::{Serial, serial::SerialEvents};

use crate::{control::Wake, kvm::vm::IrqLine};

/// Output kept for a console that is busy, in bytes.
const OUTPUT_LIMIT: usize = 1 << 20;
/// Offset of the modem control register: leaving loop-back there makes room for input.
const MODEM_CONTROL: u8 = 4;

/// The first serial port.
pub(crate) struct Com1 {
    uart: Mutex<Serial<IrqLine, Space, Output>>,
    output: Output,
    space: Space,
}

impl Com1 {
    /// A port at power-on that raises `line`.
    pub(crate) fn new(line: IrqLine, output: Output) -> io::Result<Self> {
        let space = Space(Arc::new(Wake::new()?));
        let uart = Mutex::new(Serial::with_events(line, space.clone(), output.clone()));
        Ok(Com1 { uart, output, space })
    }

    pub(super) fn read(&self, register: u8) -> u8 {
        self.lock().read(register)
    }

    pub(super) fn write(&self, register: u8, value: u8) {
        // Two things can fail: the output, which never does, and the interrupt's eventfd, whose only error (a full
        // counter) `IrqLine` swallows. A guest could repeat either for ever, so nothing is said.
        let _ = self.lock().write(register, value);
        if register == MODEM_CONTROL {
            self.space.0.signal();
        }
    }

    /// Back to power-on; output that was not yet read stays.
    pub(super) fn reset(&self) {
        let mut uart = self.lock();
        let line = uart.interrupt_evt().try_clone();
        match line {
            Ok(line) => *uart = Serial::with_events(line, self.space.clone(), self.output.clone()),
            // Out of descriptors: the old registers will do, the guest's driver sets every one it uses.
            Err(error) => tracing::warn!("COM1 keeps its registers over the reset: {error}"),
        }
    }

    /// Types `bytes`; gives how many went in.
    pub(crate) fn send(&self, bytes: &[u8]) -> usize {
        let mut uart = self.lock();
        let room = uart.fifo_capacity().min(bytes.len());
        // A full FIFO and a FIFO in loop-back both take nothing; `space` will tell when to try again.
        uart.enqueue_raw_bytes(&bytes[..room]).unwrap_or(0)
    }

    /// Readable when input may go in again.
    pub(crate) fn space(&self) -> &Wake {
        &self.space.0
    }

    /// What the guest wrote.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// As a guest's driver would: one byte out.
    #[cfg(test)]
    pub(crate) fn guest_write(&self, byte: u8) {
        self.write(0, byte);
    }

    /// As a guest's driver would: a byte in, if the line status says there is one.
    #[cfg(test)]
    pub(crate) fn guest_read(&self) -> Option<u8> {
        (self.read(5) & 1 != 0).then(|| self.read(0))
    }

    fn lock(&self) -> MutexGuard<'_, Serial<IrqLine, Space, Output>> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the console thread that the guest has read everything.
#[derive(Clone)]
struct Space(Arc<Wake>);

impl SerialEvents for Space {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.0.signal();
    }
}

/// The guest's output on its way to the console; clones share it.
#[derive(Clone)]
pub(crate) struct Output(Option<Arc<Pipe>>);

struct Pipe {
    buffer: Mutex<Buffer>,
    ready: Wake,
}

#[derive(Default)]
struct Buffer {
    bytes: VecDeque<u8>,
    dropped: u64,
}

impl Output {
    /// Output for somebody to take.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Output(Some(Arc::new(Pipe { buffer: Mutex::default(), ready: Wake::new()? }))))
    }

    /// Output for nobody.
    pub(crate) fn discard() -> Self {
        Output(None)
    }

    /// Readable when there is something to take; `None` if there never will be.
    pub(crate) fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_ref().map(|pipe| pipe.ready.as_fd())
    }

    /// Takes all there is.
    pub(crate) fn take(&self) -> Vec<u8> {
        let Some(pipe) = &self.0 else { return Vec::new() };
        pipe.ready.clear();
        let Buffer { bytes, dropped } = std::mem::take(&mut *pipe.lock());
        let mut bytes = Vec::from(bytes);
        if dropped > 0 {
            bytes.extend(format!("\r\n[vmm: {dropped} bytes of output lost, nobody read them in time]\r\n").bytes());
        }
        bytes
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let Some(pipe) = &self.0 else { return Ok(data.len()) };
        let mut buffer = pipe.lock();
        let was_empty = buffer.bytes.is_empty();
        let room = OUTPUT_LIMIT - buffer.bytes.len();
        let (kept, lost) = data.split_at(room.min(data.len()));
        buffer.bytes.extend(kept);
        buffer.dropped += lost.len() as u64;
        if was_empty {
            pipe.ready.signal();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn com1() -> Com1 {
        Com1::new(IrqLine::new().unwrap(), Output::new().unwrap()).unwrap()
    }

    #[test]
    fn what_the_guest_writes_can_be_taken_once() {
        let com1 = com1();
        b"hello".iter().for_each(|byte| com1.write(0, *byte));
        assert_eq!(com1.output().take(), b"hello");
        assert_eq!(com1.output().take(), b"");
    }

    #[test]
    fn input_goes_in_as_far_as_the_fifo_has_room_and_the_rest_after_it_was_read() {
        let com1 = com1();
        assert_eq!(com1.send(&[7; 100]), 64);
        assert_eq!(com1.send(&[7; 36]), 0);
        com1.space().clear();
        (0..64).for_each(|_| assert_eq!(com1.read(0), 7));
        assert!(com1.space().clear());
        assert_eq!(com1.send(&[7; 36]), 36);
    }

    #[test]
    fn a_console_nobody_reads_never_stops_the_guest_and_says_what_was_lost() {
        let com1 = com1();
        (0..OUTPUT_LIMIT + 10).for_each(|_| com1.write(0, b'x'));
        let taken = com1.output().take();
        assert!(String::from_utf8_lossy(&taken[OUTPUT_LIMIT..]).contains("10 bytes of output lost"));
    }

    #[test]
    fn a_reset_forgets_the_registers_and_keeps_the_output() {
        let com1 = com1();
        com1.write(7, 0x5a);
        com1.write(0, b'!');
        com1.reset();
        assert_eq!(com1.read(7), 0);
        assert_eq!(com1.output().take(), b"!");
    }
}
