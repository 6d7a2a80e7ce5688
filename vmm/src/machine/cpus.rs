//! The vCPU threads: start them, let them run, stop them all.
//!
//! ```text
//!   start ──► running ──(guest asks or crashes)──► event sent, thread ends
//!              ▲  │
//!       resume─┘  ├─(pause: phase, immediate exit, signal)──► parked ──(stop)──► thread ends
//!                 └─(stop: the same)──► thread ends
//! ```
//! A thread sends at most one event and then ends; the others run on until [`Cpus::stop`]. Nothing here waits on a clock.

use std::{
    io,
    os::unix::thread::JoinHandleExt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use super::{
    buses::{Buses, Next},
    events::{Event, Events},
};
use crate::{
    kvm::vcpu::{Stopper, Vcpu},
    sandbox::{self, Role},
};

/// The running CPUs of a guest.
#[derive(Debug)]
pub(super) struct Cpus {
    threads: Vec<Cpu>,
    gate: Arc<Gate>,
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
        let mut cpus = Cpus { threads: Vec::with_capacity(vcpus.len()), gate: Arc::default() };
        for (index, (vcpu, stopper)) in vcpus.into_iter().enumerate() {
            let place = cpus.gate.enter();
            let runner = Runner { vcpu, index, buses: buses.clone(), events: events.clone(), place };
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
        self.gate.set(Phase::Stopping);
        self.kick();
        for Cpu { thread, .. } in self.threads {
            // A panic was already reported as an event.
            let _ = thread.join();
        }
    }
}

impl Cpus {
    /// Parks all CPUs and waits until no guest instruction runs any more.
    pub(super) fn pause(&self) {
        self.gate.set(Phase::Paused);
        self.kick();
        self.gate.wait_until_parked();
    }

    /// Lets parked CPUs run on.
    pub(super) fn resume(&self) {
        self.threads.iter().for_each(|cpu| cpu.stopper.clear());
        self.gate.set(Phase::Running);
    }

    /// Has every thread look at the phase.
    fn kick(&self) {
        for Cpu { thread, stopper } in &self.threads {
            // First the flag, then the signal: a thread on its way into the guest sees the flag, one inside gets the signal.
            stopper.set();
            // SAFETY: the thread has not been joined, so its id is valid even if it has ended; the signal's handler was
            // installed by `start` and does nothing.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) };
        }
    }
}

/// What the threads are to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Paused,
    Stopping,
}

/// Where the threads wait while paused.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    phase: Phase,
    /// Threads that have not ended, and how many of them wait here.
    threads: usize,
    parked: usize,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        self.lock().phase = phase;
        self.changed.notify_all();
    }

    /// One more thread; it leaves by dropping its place.
    fn enter(self: &Arc<Self>) -> Place {
        self.lock().threads += 1;
        Place(self.clone())
    }

    fn wait_until_parked(&self) {
        let waits = |state: &mut GateState| state.phase == Phase::Paused && state.parked < state.threads;
        drop(self.changed.wait_while(self.lock(), waits));
    }
}

/// A thread's place at the gate.
struct Place(Arc<Gate>);

impl Place {
    /// Waits while paused; whether to run on, and whether it waited.
    fn pass(&self) -> (bool, bool) {
        let mut state = self.0.lock();
        let waited = state.phase == Phase::Paused;
        if waited {
            state.parked += 1;
            self.0.changed.notify_all();
            state = self
                .0
                .changed
                .wait_while(state, |state| state.phase == Phase::Paused)
                .unwrap_or_else(PoisonError::into_inner);
            state.parked -= 1;
        }
        (state.phase == Phase::Running, waited)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
        self.0.changed.notify_all();
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
    place: Place,
}

impl Runner {
    fn run(mut self) {
        if let Err(error) = sandbox::take(Role::Vcpu) {
            let why = format!("vcpu{} cannot enter its sandbox: {error}", self.index);
            return self.events.send(Event::Crash(why));
        }
        let _report = ReportPanic { index: self.index, events: self.events.clone() };
        loop {
            let next = self.buses.handle(self.vcpu.run());
            match next {
                Next::Run => {}
                Next::Check => match self.place.pass() {
                    (false, _) => return,
                    (true, true) => self.vcpu.was_paused(),
                    (true, false) => {}
                },
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
