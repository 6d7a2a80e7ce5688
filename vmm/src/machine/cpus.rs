//! The vCPU threads: start them, let them run, stop them all.
//!
//! ```text
//!   start ──► running ──(guest asks or crashes)──► event sent, thread ends
//!                │
//!                └─(stop: flag, immediate exit, signal)──► thread ends
//! ```
//! A thread sends at most one event and then ends; the others run on until [`Cpus::stop`]. Nothing here waits on a clock.

use std::{
    io,
    os::unix::thread::JoinHandleExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::{
    buses::{Buses, Next},
    events::{Event, Events},
};
use crate::kvm::vcpu::{Stopper, Vcpu};

/// The running CPUs of a guest.
#[derive(Debug)]
pub(super) struct Cpus {
    threads: Vec<Cpu>,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Cpu {
    thread: JoinHandle<()>,
    stopper: Stopper,
}

impl Cpus {
    /// Starts a thread per CPU.
    pub(super) fn start(vcpus: Vec<(Vcpu, Stopper)>, buses: &Arc<Buses>, events: &Events) -> io::Result<Self> {
        register_signal_handler(kick_signal(), kicked)?;
        let mut cpus = Cpus { threads: Vec::with_capacity(vcpus.len()), stopping: Arc::default() };
        for (index, (vcpu, stopper)) in vcpus.into_iter().enumerate() {
            let runner =
                Runner { vcpu, index, buses: buses.clone(), events: events.clone(), stopping: cpus.stopping.clone() };
            match std::thread::Builder::new().name(format!("vcpu{index}")).spawn(move || runner.run()) {
                Ok(thread) => cpus.threads.push(Cpu { thread, stopper }),
                Err(error) => {
                    cpus.stop();
                    return Err(error);
                }
            }
        }
        Ok(cpus)
    }

    /// Stops all CPUs and waits until no guest instruction runs any more.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        for Cpu { thread, stopper } in &self.threads {
            // First the flag, then the signal: a thread on its way into the guest sees the flag, one inside gets the signal.
            stopper.set();
            // SAFETY: the thread has not been joined, so its id is valid even if it has ended; the signal's handler was
            // installed by `start` and does nothing.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
        for Cpu { thread, .. } in self.threads {
            // A panic was already reported as an event.
            let _ = thread.join();
        }
    }
}

/// The signal that interrupts KVM_RUN.
fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Being interrupted is all that is wanted.
extern "C" fn kicked(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

struct Runner {
    vcpu: Vcpu,
    index: usize,
    buses: Arc<Buses>,
    events: Events,
    stopping: Arc<AtomicBool>,
}

impl Runner {
    fn run(mut self) {
        let _report = ReportPanic { index: self.index, events: self.events.clone() };
        loop {
            let next = self.buses.handle(self.vcpu.run());
            match next {
                Next::Run => {}
                Next::Check if self.stopping.load(Ordering::SeqCst) => return,
                Next::Check => {}
                Next::Request(request) => return self.events.send(Event::Request(request)),
                Next::Crash(why) => {
                    let at = self.vcpu.instruction_pointer().map_or(String::new(), |rip| format!(", at {rip:#x}"));
                    return self.events.send(Event::Crash(format!("{why} (vcpu{}{at})", self.index)));
                }
            }
        }
    }
}

/// A bug of ours on a vCPU thread must end the guest, not leave it with a CPU less.
struct ReportPanic {
    index: usize,
    events: Events,
}

impl Drop for ReportPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.events.send(Event::Crash(format!("a bug in vmm stopped vcpu{}", self.index)));
        }
    }
}
