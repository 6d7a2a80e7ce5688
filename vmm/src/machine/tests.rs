//! Whole machines on this host's real `/dev/kvm`, with kernels of a few instructions.

use std::io::Write;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vm_memory::GuestMemoryBackend;

use super::{events::Event, power::Request, *};
use crate::boot::fake;

/// A machine that runs `program` in 64-bit mode on its first CPU.
fn machine(program: &[u8], cpus: u8) -> Machine {
    let mut kernel = tempfile::NamedTempFile::new().unwrap();
    let entry_at = vec![0xf4; 0x200]; // hlt, never reached
    kernel.write_all(&fake::bzimage(&[&entry_at, program].concat(), |_| ())).unwrap();
    let shape = Shape {
        memory: MemorySize::from_bytes(64 << 20).unwrap(),
        cpus,
        command_line: "console=ttyS0".to_owned(),
        system: System { serial: String::new(), uuid: [0; 16] },
    };
    let kvm = kvm::open().unwrap();
    check(&kvm, &shape).unwrap();
    let parts = Parts {
        kvm,
        boot: BootFiles::open(kernel.path(), None).unwrap(),
        disks: Vec::new(),
        nics: Vec::new(),
        vsock: None,
        output: serial::Output::new().unwrap(),
    };
    Machine::build(shape, parts).unwrap()
}

fn next_event(machine: &Machine) -> Event {
    loop {
        let mut ready = [PollFd::new(machine.events().ready(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE).unwrap();
        if let Some(event) = machine.events().take() {
            return event;
        }
    }
}

/// mov dx, port; mov al, value; out dx, al
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

const HALT: &[u8] = &[0xf4, 0xeb, 0xfd];

#[test]
fn a_guest_speaks_and_powers_off() {
    let program = [out(0x3f8, b'!'), out(0x600, 5 << 2 | 1 << 5), HALT.to_vec()].concat();
    let mut machine = machine(&program, 1);
    machine.start().unwrap();
    assert_eq!(next_event(&machine), Event::Request(Request::PowerOff));
    machine.stop();
    machine.shutdown();
    assert_eq!(machine.com1().output().take(), b"!");
}

#[test]
fn a_reset_runs_the_same_kernel_from_clean_memory() {
    // Says how many times it has run: a number in memory that a reset clears, so always "1".
    // mov al, [0x500000]; add al, 0x31; mov [0x500000], al; mov dx, 0x3f8; out dx, al
    let count = [
        &[0x8a, 0x04, 0x25, 0, 0, 0x50, 0, 0x04, 0x31, 0x88, 0x04, 0x25, 0, 0, 0x50, 0][..],
        &[0x66, 0xba, 0xf8, 0x03, 0xee],
    ]
    .concat();
    for reset in [out(0x602, 1), out(0x64, 0xfe)] {
        let mut machine = machine(&[&count[..], &reset, HALT].concat(), 2);
        for _ in 0..3 {
            machine.start().unwrap();
            assert_eq!(next_event(&machine), Event::Request(Request::Reset));
            machine.stop();
            machine.reset().unwrap();
        }
        assert_eq!(machine.com1().output().take(), b"111");
        assert_eq!(machine.memory.iter().count(), 1);
        machine.shutdown();
    }
}

#[test]
fn a_crash_says_what_and_on_which_cpu() {
    let mut machine = machine(&[0x0f, 0x0b], 1); // ud2 without an interrupt table
    machine.start().unwrap();
    let Event::Crash(why) = next_event(&machine) else { panic!("no crash") };
    assert!(why.contains("triple fault") && why.contains("vcpu0"), "{why}");
    machine.stop();
    machine.shutdown();
}

#[test]
fn cpus_that_run_wait_or_halt_all_stop() {
    // CPU 0 runs for ever, the other three wait to be started.
    let mut machine = machine(&[0xeb, 0xfe], 4);
    for _ in 0..3 {
        machine.start().unwrap();
        machine.stop();
        machine.reset().unwrap();
    }
    machine.stop();
    machine.shutdown();
}

#[test]
fn the_kernels_start_up_state_is_the_boot_protocols() {
    // mov eax, [rsi + 0x202]: the setup header's magic number in the zero page; out dx, eax would be a string to
    // COM1, so compare and say.
    let program = [
        &[0x81, 0xbe, 0x02, 0x02, 0, 0][..], // cmp dword [rsi + 0x202],
        b"HdrS",
        &[0x75, 0x07], // jne over the next out
        &out(0x3f8, b'H'),
        &out(0x600, 5 << 2 | 1 << 5),
        HALT,
    ]
    .concat();
    let mut machine = machine(&program, 1);
    machine.start().unwrap();
    assert_eq!(next_event(&machine), Event::Request(Request::PowerOff));
    machine.stop();
    machine.shutdown();
    assert_eq!(machine.com1().output().take(), b"H");
}

#[test]
fn the_program_at_the_reset_vector_resets_in_real_mode() {
    let machine = machine(HALT, 1);
    machine.memory.write_slice(&power::RESET_PROGRAM, GuestAddress(layout::RESET_VECTOR)).unwrap();
    let (mut vcpu, _) = machine.vcpu(0).unwrap();
    let segment = |selector: u16, type_| kvm_bindings::kvm_segment {
        selector,
        base: u64::from(selector) << 4,
        limit: 0xffff,
        type_,
        present: 1,
        s: 1,
        ..Default::default()
    };
    let task = kvm_bindings::kvm_segment { limit: 0xffff, type_: 0xb, present: 1, ..Default::default() };
    let system = kvm::vcpu::SystemRegisters {
        code: segment(0xffff, 0xb),
        data: segment(0, 0x3),
        task,
        cr0: 1 << 4,
        ..Default::default()
    };
    vcpu.set_registers(&kvm::vcpu::Registers {
        general: kvm_bindings::kvm_regs { rip: 0, rflags: 2, ..Default::default() },
        system,
    })
    .unwrap();
    assert_eq!(machine.buses.handle(vcpu.run()), buses::Next::Request(Request::Reset));
}

#[test]
fn devices_are_told_apart_by_number() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 20).unwrap();
    let disk = || {
        let image = crate::disk::RawDisk::open(file.path(), true).unwrap();
        DiskPart { image, serial: None, queues: 1 }
    };
    let names: Vec<String> =
        devices(vec![disk(), disk()], Vec::new(), None).unwrap().0.iter().map(|(_, device)| device.name()).collect();
    assert_eq!(names, ["rng0", "blk0", "blk1", "balloon0"]);
}

/// Waits for output of a guest that never stops talking.
fn speaks(machine: &Machine) {
    while machine.com1().output().take().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn paused_cpus_stand_still_run_on_and_can_be_stopped_where_they_stand() {
    // Both CPUs: the first talks without end, the second was never started and waits in the kernel.
    let mut machine = machine(&[&out(0x3f8, b'.')[..], &[0xeb, 0xf7]].concat(), 2);
    machine.start().unwrap();
    for _ in 0..20 {
        speaks(&machine);
        assert!(machine.pause() && machine.is_paused());
        assert!(!machine.pause(), "they stand still already");
        machine.com1().output().take();
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        assert_eq!(machine.com1().output().take(), b"");
        assert!(machine.resume() && !machine.resume());
    }
    speaks(&machine);
    machine.pause();
    machine.stop();
    machine.reset().unwrap();
    machine.start().unwrap();
    assert!(!machine.is_paused());
    speaks(&machine);
    machine.stop();
    assert!(!machine.pause(), "there is nothing to pause");
    machine.shutdown();
}
