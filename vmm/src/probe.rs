//! EDGE: `vmm probe`: can this host's KVM run stock guests? Found out by running a CPU, not by looking for a flag.
//!
//! Some hosts offer a `/dev/kvm` that emulates every instruction: simple code runs, a kernel does not. Two things tell
//! them apart within a second: an instruction such an emulator does not know (`popcnt` in 64-bit mode), and how long two
//! million instructions take.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    boot::{self, BootError},
    config::{ConfigError, MemorySize},
    kvm::{
        self, KvmError,
        vcpu::{Exit, Vcpu},
        vm::Vm,
    },
    layout::Layout,
    memory::{self, MemoryError},
};

/// The longest a million rounds may take. Hardware needs about a millisecond, hardware simulated in software some tens
/// of them, an emulator more than a second.
const PATIENCE: Duration = Duration::from_millis(300);
/// Where the program says that it is done.
const DONE_PORT: u16 = 0x80;

/// Why there is no verdict, which is a "no" with a reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(transparent)]
    Kvm(#[from] KvmError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stock guests run here.
    Good,
    /// The CPU could not run the program.
    CanNotRun(String),
    /// It could, as slowly as an emulator.
    Slow(Duration),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NEXT: &str =
            "use a host whose CPU offers VMX or SVM (on a virtual machine: turn nested virtualisation on)";
        match self {
            Verdict::Good => write!(f, "KVM on this host can run guests"),
            Verdict::CanNotRun(why) => {
                write!(f, "KVM on this host can't run stock guests: a popcnt in 64-bit mode ended with: {why}; {NEXT}")
            }
            Verdict::Slow(took) => write!(
                f,
                "KVM on this host can't run stock guests: it emulates every instruction (a million rounds took {} ms); \
                 {NEXT}",
                took.as_millis()
            ),
        }
    }
}

/// Runs a CPU and judges.
pub(crate) fn probe() -> Result<Verdict, ProbeError> {
    let kvm = kvm::open()?;
    let size = MemorySize::from_bytes(16 << 20)?;
    let memory = memory::allocate(size, &Layout::new(size))?;
    let vm = Vm::new(&kvm, &memory)?;
    let mut vcpu = Vcpu::new(&vm, 0, &kvm::supported_cpuid(&kvm)?, &[])?;
    vcpu.set_registers(&boot::load_bare(&memory, &program())?)?;
    let start = Instant::now();
    loop {
        return Ok(match vcpu.run() {
            Exit::Interrupted => continue,
            Exit::PortWrite(DONE_PORT, _) => judge(start.elapsed()),
            Exit::Unable => Verdict::CanNotRun("an instruction KVM can neither run nor emulate".to_owned()),
            Exit::Failed(why) => Verdict::CanNotRun(why),
            other => Verdict::CanNotRun(format!("{other:x?}")),
        });
    }
}

fn judge(took: Duration) -> Verdict {
    if took < PATIENCE { Verdict::Good } else { Verdict::Slow(took) }
}

/// One popcnt, a million rounds, done.
#[rustfmt::skip]
fn program() -> Vec<u8> {
    let rounds = 1_000_000_u32.to_le_bytes();
    [
        &[0xf3, 0x48, 0x0f, 0xb8, 0xc1][..],  // popcnt rax, rcx
        &[0xb9], &rounds,                     // mov ecx, 1000000
        &[0xff, 0xc9],                        // dec ecx
        &[0x75, 0xfc],                        // jnz back to dec
        &[0xe6, DONE_PORT as u8],             // out done, al
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulator_is_told_from_hardware_by_time() {
        assert_eq!(judge(Duration::from_millis(40)), Verdict::Good);
        assert_eq!(judge(Duration::from_millis(1200)), Verdict::Slow(Duration::from_millis(1200)));
    }

    #[test]
    fn every_no_comes_with_a_reason_and_the_next_move() {
        for no in [Verdict::CanNotRun("suberror 1".to_owned()), Verdict::Slow(Duration::from_secs(1))] {
            let text = no.to_string();
            assert!(text.contains("can't run stock guests") && text.contains("VMX or SVM"), "{text}");
        }
    }
}
