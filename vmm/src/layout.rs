//! The guest-physical map, the port map and the interrupt numbers: the only place with such a number.
//!
//! Pure: numbers in, numbers out. The machine, the boot loaders and the ACPI tables all read this file, so the
//! guest is told exactly what is there.
//!
//! ```text
//! 0x0000_0000  RAM          zero page, GDT, page tables, PVH start info, command line (below 640 KiB)
//! 0x000e_0000  ACPI tables  RAM the guest is told to leave alone; RSDP first, SMBIOS and the reset vector last
//! 0x0010_0000  RAM          kernel at 1 MiB (or where its ELF headers say); initrd at the top of low RAM
//! 0xc000_0000  (hole)       32-bit PCI window
//! 0xe800_0000  ECAM         PCI configuration space of bus 0, 1 MiB
//! 0xfec0_0000  IOAPIC       in the kernel
//! 0xfee0_0000  local APIC   in the kernel
//! 0xfffb_c000  KVM          identity map page and TSS (Intel only), never shown to the guest
//! 0x1_0000_0000 RAM         what did not fit below 3 GiB
//! end of RAM, next GiB      64-bit PCI window: 512 KiB of it for every slot
//! ```

use crate::config::MemorySize;

/// Everything below this is ordinary RAM for the boot structures; above it would be the EBDA and VGA of a PC.
pub(crate) const LOW_RAM_END: u64 = 0x9_fc00;
/// GDT for the 64-bit boot protocol.
pub(crate) const GDT: u64 = 0x500;
/// `boot_params` for bzImage, one page.
pub(crate) const ZERO_PAGE: u64 = 0x7000;
/// `hvm_start_info` for PVH; module list and memory map follow.
pub(crate) const PVH_INFO: u64 = 0x6000;
/// PVH module list: one entry, the initrd.
pub(crate) const PVH_MODULES: u64 = 0x6100;
/// PVH memory map.
pub(crate) const PVH_MEMORY_MAP: u64 = 0x6200;
/// Page tables for the 64-bit boot protocol: PML4, PDPT, one PD; identity map of the first GiB.
pub(crate) const PAGE_TABLES: u64 = 0x9000;
/// The command line, zero-terminated.
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line, its zero included; Linux's `COMMAND_LINE_SIZE` on x86.
pub(crate) const COMMAND_LINE_MAX: usize = 2048;

/// ACPI tables, the RSDP first: the BIOS area, where every OS expects them.
pub(crate) const ACPI_TABLES: u64 = 0xe_0000;
/// SMBIOS entry point and structures: in the last 64 KiB below 1 MiB, at a multiple of 16, where they are looked for.
pub(crate) const SMBIOS: u64 = 0xf_f000;
/// Where a PC's CPU starts after a reset, and where an OS jumps to that knows no better way to reset: the first
/// instruction of the BIOS. Ends the room for the ACPI tables.
pub(crate) const RESET_VECTOR: u64 = 0xf_fff0;
/// Where memory above the first MiB starts and a bzImage is put.
pub(crate) const HIGH_MEMORY: u64 = 0x10_0000;

/// RAM below 4 GiB ends here at the latest; the 32-bit PCI window begins.
pub(crate) const MMIO32: u64 = 0xc000_0000;
/// Size of the 32-bit PCI window in bytes.
pub(crate) const MMIO32_SIZE: u64 = ECAM - MMIO32;
/// PCI configuration space, memory mapped (PCI Express base specification §7.2.2).
pub(crate) const ECAM: u64 = 0xe800_0000;
/// One bus of ECAM in bytes: 32 devices × 8 functions × 4 KiB.
pub(crate) const ECAM_SIZE: u64 = 0x10_0000;
/// The in-kernel IOAPIC's registers.
pub(crate) const IOAPIC: u32 = 0xfec0_0000;
/// The in-kernel local APICs' registers.
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// One page KVM needs on Intel CPUs without unrestricted guest (`KVM_SET_IDENTITY_MAP_ADDR`).
pub(crate) const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;
/// Three pages KVM needs on Intel CPUs (`KVM_SET_TSS_ADDR`), right after the identity map.
pub(crate) const KVM_TSS: u64 = 0xfffb_d000;
/// Where RAM goes on.
pub(crate) const FOUR_GIB: u64 = 1 << 32;
/// Size of the 64-bit PCI window in bytes.
pub(crate) const MMIO64_SIZE: u64 = 1 << 30;
/// Each PCI function's BAR 0, in bytes.
pub(crate) const BAR_SIZE: u64 = 512 << 10;

/// COM1: eight ports.
pub(crate) const COM1_PORT: u16 = 0x3f8;
/// Keyboard controller, data port to status port; 0x61 in between is the PC's system control port.
pub(crate) const I8042_PORT: u16 = 0x60;
/// CMOS index port; data is the next.
pub(crate) const CMOS_PORT: u16 = 0x70;
/// PCI configuration address and data ports: eight ports.
pub(crate) const PCI_CONFIG_PORT: u16 = 0xcf8;
/// ACPI SLEEP_CONTROL, SLEEP_STATUS and reset registers, one byte each (ACPI 6.5 §4.8.3.7, §4.8.3.6).
pub(crate) const ACPI_PORT: u16 = 0x600;
/// Offset of SLEEP_CONTROL from [`ACPI_PORT`].
pub(crate) const SLEEP_CONTROL: u16 = 0;
/// Offset of SLEEP_STATUS from [`ACPI_PORT`].
pub(crate) const SLEEP_STATUS: u16 = 1;
/// Offset of the reset register from [`ACPI_PORT`].
pub(crate) const RESET_REGISTER: u16 = 2;
/// What the guest writes to the reset register.
pub(crate) const RESET_VALUE: u8 = 1;
/// The `SLP_TYP` that means power off; ours to choose, told to the guest in `_S5`.
pub(crate) const SLEEP_TYPE_S5: u8 = 5;

/// COM1's interrupt.
pub(crate) const COM1_GSI: u32 = 4;
/// The power button's interrupt, through the generic event device.
pub(crate) const POWER_BUTTON_GSI: u32 = 5;
/// Pins of the in-kernel IOAPIC; the GSIs from here on are message-signalled.
pub(crate) const IOAPIC_PINS: u32 = 24;

/// PCI slot of the entropy device.
pub(crate) const RNG_SLOT: u8 = 1;
/// PCI slot of the first disk; the others follow.
pub(crate) const FIRST_DISK_SLOT: u8 = 2;
/// Most disks a guest can have: slots 2 to 9.
pub(crate) const MAX_DISKS: usize = 8;
/// PCI slot of the first NIC; the others follow, so a disk more or less never renames a NIC in the guest.
pub(crate) const FIRST_NIC_SLOT: u8 = 10;
/// Most NICs a guest can have: slots 10 to 27.
pub(crate) const MAX_NICS: usize = 18;
/// PCI slot of the balloon.
pub(crate) const BALLOON_SLOT: u8 = 28;
/// PCI slot of the socket device.
pub(crate) const VSOCK_SLOT: u8 = 29;

/// What a range of guest-physical memory is, as firmware memory maps number it (ACPI 6.5 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeKind {
    /// Free for the guest.
    Ram = 1,
    /// Not for the guest.
    Reserved = 2,
}

/// One entry of the memory map the guest gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// First address.
    pub(crate) start: u64,
    /// Size in bytes.
    pub(crate) size: u64,
    /// What it is.
    pub(crate) kind: RangeKind,
}

/// The parts of the map that depend on how much memory there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// RAM below 4 GiB ends here.
    pub(crate) low_ram_end: u64,
    /// Bytes of RAM from 4 GiB on.
    pub(crate) high_ram_size: u64,
    /// The 64-bit PCI window begins here.
    pub(crate) mmio64: u64,
}

impl Layout {
    /// Lays `memory` out around the hole below 4 GiB.
    pub(crate) fn new(memory: MemorySize) -> Self {
        let low_ram_end = memory.bytes().min(MMIO32);
        let high_ram_size = memory.bytes() - low_ram_end;
        let mmio64 = (FOUR_GIB + high_ram_size).next_multiple_of(1 << 30);
        Layout { low_ram_end, high_ram_size, mmio64 }
    }

    /// The first address after everything: what the CPU's physical address width must reach.
    pub(crate) fn end(&self) -> u64 {
        self.mmio64 + MMIO64_SIZE
    }

    /// The pieces of RAM to map, as start and size.
    pub(crate) fn ram(&self) -> Vec<(u64, u64)> {
        let mut ram = vec![(0, self.low_ram_end)];
        if self.high_ram_size > 0 {
            ram.push((FOUR_GIB, self.high_ram_size));
        }
        ram
    }

    /// The memory map to hand to the guest, sorted.
    pub(crate) fn memory_map(&self) -> Vec<Range> {
        let range = |start, end, kind| Range { start, size: end - start, kind };
        let mut map = vec![
            range(0, LOW_RAM_END, RangeKind::Ram),
            range(LOW_RAM_END, HIGH_MEMORY, RangeKind::Reserved),
            range(HIGH_MEMORY, self.low_ram_end, RangeKind::Ram),
            range(ECAM, ECAM + ECAM_SIZE, RangeKind::Reserved),
            range(KVM_IDENTITY_MAP, FOUR_GIB, RangeKind::Reserved),
        ];
        if self.high_ram_size > 0 {
            map.push(range(FOUR_GIB, FOUR_GIB + self.high_ram_size, RangeKind::Ram));
        }
        map
    }

    /// The address BAR 0 of the function in `slot` is given before the guest looks.
    pub(crate) fn bar(&self, slot: u8) -> u64 {
        self.mmio64 + u64::from(slot) * BAR_SIZE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn layout(mib: u64) -> Layout {
        Layout::new(MemorySize::from_bytes(mib * MIB).unwrap())
    }

    #[test]
    fn a_small_guest_has_all_its_memory_below_the_hole() {
        let layout = layout(512);
        assert_eq!(layout.ram(), [(0, 512 * MIB)]);
        assert_eq!(layout.mmio64, FOUR_GIB);
    }

    #[test]
    fn a_guest_of_exactly_three_gib_has_none_above_four() {
        assert_eq!(layout(3072).ram(), [(0, MMIO32)]);
        assert_eq!(layout(3073).ram(), [(0, MMIO32), (FOUR_GIB, MIB)]);
    }

    #[test]
    fn the_map_is_sorted_without_overlap_and_adds_up() {
        for mib in [64, 512, 3071, 3072, 3073, 4096, 65536] {
            let map = layout(mib).memory_map();
            for pair in map.windows(2) {
                assert!(pair[0].start + pair[0].size <= pair[1].start, "{mib} MiB: {pair:x?}");
            }
            let ram: u64 = map.iter().filter(|r| r.kind == RangeKind::Ram).map(|r| r.size).sum();
            assert_eq!(ram, mib * MIB - (HIGH_MEMORY - LOW_RAM_END));
        }
    }

    #[test]
    fn every_slot_has_a_bar_of_its_own_inside_the_window_and_above_ram() {
        for mib in [64, 3072, 5000] {
            let layout = layout(mib);
            for slot in 0..32 {
                let bar = layout.bar(slot);
                assert_eq!(bar % BAR_SIZE, 0);
                assert!(bar >= layout.mmio64 && bar + BAR_SIZE <= layout.end());
                assert!(layout.ram().iter().all(|(start, size)| bar >= start + size));
            }
        }
    }

    #[test]
    fn slots_of_disks_and_nics_do_not_meet() {
        assert!(usize::from(FIRST_DISK_SLOT) + MAX_DISKS <= usize::from(FIRST_NIC_SLOT));
        assert!(usize::from(FIRST_NIC_SLOT) + MAX_NICS <= usize::from(BALLOON_SLOT));
        const { assert!(BALLOON_SLOT < VSOCK_SLOT && VSOCK_SLOT < 32) };
    }

    #[test]
    fn boot_structures_do_not_overlap() {
        let parts = [
            (GDT, 32),
            (PVH_INFO, 56),
            (PVH_MODULES, 32),
            (PVH_MEMORY_MAP, 24 * 16),
            (ZERO_PAGE, 4096),
            (PAGE_TABLES, 3 * 4096),
            (COMMAND_LINE, COMMAND_LINE_MAX as u64),
        ];
        let mut sorted = parts;
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        assert!(COMMAND_LINE + COMMAND_LINE_MAX as u64 <= LOW_RAM_END);
    }
}
