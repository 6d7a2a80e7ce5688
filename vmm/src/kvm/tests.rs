//! Guests of a few instructions on this host's real `/dev/kvm`: any KVM will do, even one that emulates everything.
//! Without `/dev/kvm` these tests fail; they do not pass.

use std::{sync::mpsc::channel, thread};

use vm_memory::{Bytes, GuestAddress};

use super::{
    vcpu::{Exit, Vcpu},
    vm::{IrqLine, Vm},
    *,
};
use crate::{
    boot,
    config::MemorySize,
    layout::Layout,
    memory::{self, GuestMemory},
    pci::msix::{Doorbells, MsiMessage, MsiRoutes},
};

fn machine(program: &[u8]) -> (Vm, Vcpu, GuestMemory) {
    let kvm = open().unwrap();
    let size = MemorySize::from_bytes(16 << 20).unwrap();
    let memory = memory::allocate(size, &Layout::new(size)).unwrap();
    let vm = Vm::new(&kvm, &memory).unwrap();
    let vcpu = Vcpu::new(&vm, 0, &supported_cpuid(&kvm).unwrap(), &[]).unwrap();
    vcpu.set_registers(&boot::load_bare(&memory, program).unwrap()).unwrap();
    (vm, vcpu, memory)
}

#[test]
fn a_guest_reads_and_writes_ports() {
    // in al, 0x42; inc al; out 0x43, al
    let (_vm, mut vcpu, _memory) = machine(&[0xe4, 0x42, 0xfe, 0xc0, 0xe6, 0x43]);
    match vcpu.run() {
        Exit::PortRead(0x42, data) => data.copy_from_slice(&[7]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run(), Exit::PortWrite(0x43, [8])));
}

#[test]
fn a_guest_reaches_memory_that_is_not_ram() {
    // mov eax, [0x3000_0000]; inc eax; mov [0x3000_0008], eax (absolute 32-bit addresses, sign-extended)
    let program = [0x8b, 0x04, 0x25, 0, 0, 0, 0x30, 0xff, 0xc0, 0x89, 0x04, 0x25, 8, 0, 0, 0x30];
    let (_vm, mut vcpu, _memory) = machine(&program);
    match vcpu.run() {
        Exit::MemoryRead(0x3000_0000, data) => data.copy_from_slice(&41_u32.to_le_bytes()),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run(), Exit::MemoryWrite(0x3000_0008, [42, 0, 0, 0])));
}

#[test]
fn a_guest_writes_its_own_memory() {
    // mov dword [0x20_0000], 0x12345678; out 0x80, al
    let program = [0xc7, 0x04, 0x25, 0, 0, 0x20, 0, 0x78, 0x56, 0x34, 0x12, 0xe6, 0x80];
    let (_vm, mut vcpu, memory) = machine(&program);
    assert!(matches!(vcpu.run(), Exit::PortWrite(0x80, _)));
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x20_0000)).unwrap(), 0x1234_5678);
}

#[test]
fn a_fault_without_a_handler_is_a_triple_fault() {
    // ud2, and there is no interrupt table.
    let (_vm, mut vcpu, _memory) = machine(&[0x0f, 0x0b]);
    assert!(matches!(vcpu.run(), Exit::TripleFault));
}

#[test]
fn a_stopper_keeps_a_cpu_from_entering_and_outlives_it() {
    // jmp to itself: without the stopper this would never come back.
    let (vm, mut vcpu, _memory) = machine(&[0xeb, 0xfe]);
    let stopper = vcpu.stopper(&vm).unwrap();
    stopper.set();
    assert!(matches!(vcpu.run(), Exit::Interrupted));
    drop(vcpu);
    stopper.set();
}

#[test]
fn a_halted_cpu_is_stopped_by_the_stopper_and_a_signal() {
    // hlt with interrupts off: nothing but a stop ends it. The thread may or may not be inside yet; both must work.
    let (vm, mut vcpu, _memory) = machine(&[0xf4]);
    let stopper = vcpu.stopper(&vm).unwrap();
    vmm_sys_util::signal::register_signal_handler(vmm_sys_util::signal::SIGRTMIN(), ignore).unwrap();
    let (done, ended) = channel();
    let thread = thread::spawn(move || done.send(matches!(vcpu.run(), Exit::Interrupted)));
    stopper.set();
    use std::os::unix::thread::JoinHandleExt;
    // SAFETY: the thread is not joined yet, and the signal has a handler.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), vmm_sys_util::signal::SIGRTMIN()) };
    assert!(ended.recv().unwrap());
    thread.join().unwrap().unwrap();
}

extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

#[test]
fn doorbells_and_vectors_survive_a_reset() {
    // mov [0x3000_0000], eax; out 0x80, al
    let program = [0x89, 0x04, 0x25, 0, 0, 0, 0x30, 0xe6, 0x80];
    let (vm, mut vcpu, memory) = machine(&program);
    let routes = routes::Routes::new(&vm).unwrap();
    let vector = routes.vector().unwrap();
    let bell = vmm_sys_util::eventfd::EventFd::new(libc::EFD_NONBLOCK).unwrap();
    routes.register(&bell, 0x3000_0000).unwrap();
    assert!(matches!(vcpu.run(), Exit::PortWrite(0x80, _)));
    assert_eq!(bell.read().unwrap(), 1);

    let kvm = open().unwrap();
    let after = Vm::new(&kvm, &memory).unwrap();
    routes.attach(&after).unwrap();
    let mut vcpu = Vcpu::new(&after, 0, &supported_cpuid(&kvm).unwrap(), &[]).unwrap();
    vcpu.set_registers(&boot::load_bare(&memory, &program).unwrap()).unwrap();
    assert!(matches!(vcpu.run(), Exit::PortWrite(0x80, _)));
    assert_eq!(bell.read().unwrap(), 1);

    routes.route(vector.gsi, Some(MsiMessage { address: 0xfee0_0000, data: 0x31 })).unwrap();
    vector.fd.write(1).unwrap();

    routes.unregister(&bell, 0x3000_0000).unwrap();
    vcpu.set_registers(&boot::load_bare(&memory, &program).unwrap()).unwrap();
    assert!(matches!(vcpu.run(), Exit::MemoryWrite(0x3000_0000, _)));
}

#[test]
fn vectors_get_numbers_above_the_ioapics_pins_and_take_routes() {
    let (vm, _vcpu, _memory) = machine(&[]);
    let routes = routes::Routes::new(&vm).unwrap();
    let (first, second) = (routes.vector().unwrap(), routes.vector().unwrap());
    assert_eq!((first.gsi, second.gsi), (24, 25));
    routes.route(second.gsi, Some(MsiMessage { address: 0xfee0_0000, data: 0x31 })).unwrap();
    routes.route(second.gsi, None).unwrap();
    assert_eq!(routes.route(99, None).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_line_connects_to_one_machine_after_another() {
    let (vm, _vcpu, memory) = machine(&[]);
    let line = IrqLine::new().unwrap();
    vm.connect(&line, 4).unwrap();
    line.pulse().unwrap();
    let after = Vm::new(&open().unwrap(), &memory).unwrap();
    vm.disconnect(&line, 4).unwrap();
    after.connect(&line, 4).unwrap();
    line.pulse().unwrap();
}
