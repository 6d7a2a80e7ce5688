//! What the first CPU's registers are at the two entry points, and the GDT both lie upon.
//!
//! The rules are those of the Xen project's PVH start-of-day ABI (32-bit, no paging) and of Linux's
//! Documentation/arch/x86/boot.rst, "64-bit Boot Protocol" (long mode, identity map).

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use vm_memory::{Bytes, GuestAddress};

use super::BootError;
use crate::{
    kvm::vcpu::{Registers, SystemRegisters},
    layout::{GDT, HIGH_MEMORY, PAGE_TABLES, PVH_INFO, ZERO_PAGE},
    memory::GuestMemory,
};

/// `__BOOT_CS`: both protocols' code selector.
const CODE: u16 = 0x10;
/// `__BOOT_DS`.
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

const CR0_PROTECTED: u64 = 1;
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE_ENABLE: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one; interrupts are off.
const RFLAGS: u64 = 2;

/// Flat descriptors: null, null, code, data, task. The code entry is for long mode; PVH's 32-bit code segment lives in
/// the CPU's hidden registers and the kernel loads its own GDT before it reloads a segment.
const DESCRIPTORS: [u64; 5] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067];

/// Writes the GDT where [`Registers`] made here point to.
pub(super) fn write_gdt(memory: &GuestMemory) -> Result<(), BootError> {
    memory.write_obj(DESCRIPTORS, GuestAddress(GDT))?;
    Ok(())
}

/// Maps the first GiB one to one in 2 MiB pages: kernel, zero page and command line all lie in it.
pub(super) fn write_page_tables(memory: &GuestMemory) -> Result<(), BootError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    let (pdpt, directory) = (PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    memory.write_obj(pdpt | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES))?;
    memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(pdpt))?;
    for entry in 0..512 {
        memory.write_obj((entry << 21) | PRESENT_WRITABLE | LARGE, GuestAddress(directory + entry * 8))?;
    }
    Ok(())
}

/// Puts a program of a few instructions at 1 MiB, to be run in 64-bit mode with interrupts off: no kernel, no stack.
pub(crate) fn load_bare(memory: &GuestMemory, program: &[u8]) -> Result<Registers, BootError> {
    write_gdt(memory)?;
    write_page_tables(memory)?;
    memory.write_slice(program, GuestAddress(HIGH_MEMORY))?;
    Ok(long_mode(HIGH_MEMORY))
}

/// PVH: EBX points to the start info, 32-bit protected mode, paging off.
pub(super) fn pvh(entry: u64) -> Registers {
    let general = kvm_regs { rip: entry, rbx: PVH_INFO, rflags: RFLAGS, ..Default::default() };
    let code = kvm_segment { db: 1, l: 0, ..segment(CODE, 0xb) };
    let system = SystemRegisters { code, cr0: CR0_PROTECTED | CR0_EXTENSION_TYPE, ..flat() };
    Registers { general, system }
}

/// The 64-bit boot protocol: RSI points to the zero page, long mode, identity map.
pub(super) fn long_mode(entry: u64) -> Registers {
    let general = kvm_regs { rip: entry, rsi: ZERO_PAGE, rflags: RFLAGS, ..Default::default() };
    let system = SystemRegisters {
        cr0: CR0_PROTECTED | CR0_EXTENSION_TYPE | CR0_PAGING,
        cr3: PAGE_TABLES,
        cr4: CR4_PHYSICAL_ADDRESS_EXTENSION,
        efer: EFER_LONG_MODE_ENABLE | EFER_LONG_MODE_ACTIVE,
        ..flat()
    };
    Registers { general, system }
}

fn flat() -> SystemRegisters {
    SystemRegisters {
        code: kvm_segment { db: 0, l: 1, ..segment(CODE, 0xb) },
        data: segment(DATA, 0x3),
        // A busy 32-bit TSS with the architectural minimum of 0x68 bytes; VMX refuses to enter without one.
        task: kvm_segment { limit: 0x67, s: 0, g: 0, db: 0, ..segment(TASK, 0xb) },
        gdt: kvm_dtable { base: GDT, limit: (size_of_val(&DESCRIPTORS) - 1) as u16, ..Default::default() },
        ..Default::default()
    }
}

/// A present flat segment of 4 GiB.
fn segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment { selector, limit: u32::MAX, type_: kind, present: 1, db: 1, s: 1, g: 1, ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_name_the_descriptors_meant_for_them() {
        // Type nibble (bits 40-43): code is execute/read/accessed, data read/write/accessed, task a busy TSS.
        for (selector, kind) in [(CODE, 0xb), (DATA, 0x3), (TASK, 0xb)] {
            assert_eq!((DESCRIPTORS[usize::from(selector) / 8] >> 40) & 0xf, kind);
        }
        // The long bit (53) stands only in the code descriptor, and there the default-size bit (54) is clear.
        assert_eq!(DESCRIPTORS[usize::from(CODE) / 8] >> 53 & 0b11, 0b01);
    }

    #[test]
    fn pvh_starts_in_32_bit_protected_mode_without_paging() {
        let Registers { general, system } = pvh(0x100_0000);
        assert_eq!((general.rip, general.rbx), (0x100_0000, PVH_INFO));
        assert_eq!((system.cr0 & CR0_PAGING, system.efer, system.cr4), (0, 0, 0));
        assert_eq!((system.code.db, system.code.l), (1, 0));
    }

    #[test]
    fn the_identity_map_covers_the_first_gib() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_page_tables(&memory).unwrap();
        let last: u64 = memory.read_obj(GuestAddress(PAGE_TABLES + 0x2000 + 511 * 8)).unwrap();
        assert_eq!(last, (511 << 21) | 0x83);
    }
}
