//! The tables as an OS walks them: from the RSDP by pointers, every length and checksum on the way.

use super::*;
use crate::config::MemorySize;

fn layout() -> Layout {
    Layout::new(MemorySize::from_bytes(4 << 30).unwrap())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// The table at a guest-physical address; its header says how long it is, its checksum must be right.
fn table(block: &[u8], address: u64) -> &[u8] {
    let at = usize::try_from(address - layout::ACPI_TABLES).unwrap();
    let table = &block[at..at + u32_at(block, at + 4) as usize];
    assert_eq!(sum(table), 0, "{:?}", &table[..4]);
    table
}

/// Every table but the DSDT by signature.
fn walk(block: &[u8]) -> Vec<&[u8]> {
    let rsdp = &block[..36];
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    assert_eq!((sum(&rsdp[..20]), sum(rsdp)), (0, 0));
    let xsdt = table(block, u64_at(rsdp, 24));
    assert_eq!(&xsdt[..4], b"XSDT");
    xsdt[36..].chunks_exact(8).map(|entry| table(block, u64_at(entry, 0))).collect()
}

fn find<'a>(block: &'a [u8], signature: &[u8; 4]) -> &'a [u8] {
    walk(block).into_iter().find(|table| table.starts_with(signature)).unwrap()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_table_is_found_from_the_rsdp_and_adds_up() {
    let block = tables(&layout(), 4);
    let signatures: Vec<_> = walk(&block).iter().map(|table| table[..4].to_vec()).collect();
    assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG"]);
}

#[test]
fn the_tables_fit_their_place_with_the_most_cpus() {
    let end = layout::ACPI_TABLES + tables(&layout(), crate::config::MAX_CPUS).len() as u64;
    assert!(end <= layout::SMBIOS);
}

#[test]
fn the_fadt_is_hardware_reduced_and_says_how_to_sleep_and_reset() {
    let block = tables(&layout(), 1);
    let fadt = find(&block, b"FACP");
    assert_eq!(fadt.len(), 276);
    let flags = u32_at(fadt, 112);
    assert_ne!(flags & 1 << 20, 0, "HW_REDUCED_ACPI");
    assert_ne!(flags & 1 << 10, 0, "RESET_REG_SUP");
    // RESET_REG at 116, SLEEP_CONTROL_REG at 244, SLEEP_STATUS_REG at 256: system I/O, eight bits.
    for (offset, port) in [(116, 0x602), (244, 0x600), (256, 0x601)] {
        assert_eq!(fadt[offset..offset + 4], [1, 8, 0, 1]);
        assert_eq!(u64_at(fadt, offset + 4), port);
    }
    assert_eq!(fadt[128], layout::RESET_VALUE);
    let dsdt = table(&block, u64_at(fadt, 140));
    assert_eq!((&dsdt[..4], dsdt[8]), (&b"DSDT"[..], 2));
}

#[test]
fn the_madt_lists_every_cpu_the_ioapic_and_the_overrides() {
    let block = tables(&layout(), 3);
    let madt = find(&block, b"APIC");
    assert_eq!(u32_at(madt, 36), layout::LOCAL_APIC);
    let mut rest = &madt[44..];
    let mut structures = Vec::new();
    while let [kind, length, ..] = rest {
        structures.push((*kind, rest[..usize::from(*length)].to_vec()));
        rest = &rest[usize::from(*length)..];
    }
    let kinds: Vec<_> = structures.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0, 0, 0, 1, 2, 2, 4]);
    let cpus: Vec<_> = structures.iter().take(3).map(|(_, s)| (s[2], s[3], s[4])).collect();
    assert_eq!(cpus, [(0, 0, 1), (1, 1, 1), (2, 2, 1)]);
    let overrides: Vec<_> =
        structures.iter().filter(|(kind, _)| *kind == 2).map(|(_, s)| (s[3], u32_at(s, 4), s[8])).collect();
    assert_eq!(overrides, [(4, 4, 5), (5, 5, 5)]);
}

#[test]
fn the_mcfg_points_to_the_ecam_of_bus_0() {
    let block = tables(&layout(), 1);
    let mcfg = find(&block, b"MCFG");
    assert_eq!((mcfg.len(), u64_at(mcfg, 44), mcfg[54], mcfg[55]), (60, layout::ECAM, 0, 0));
}

#[test]
fn the_dsdt_has_the_devices_and_the_windows() {
    let block = tables(&layout(), 2);
    let dsdt = table(&block, u64_at(find(&block, b"FACP"), 140));
    for name in [b"C000", b"C001", b"PCI0", b"COM1", b"RTC0", b"PWRB", b"GED_", b"_EVT", b"_S5_"] {
        assert!(contains(dsdt, name), "{}", String::from_utf8_lossy(name));
    }
    assert!(!contains(dsdt, b"C002"));
    let window = |base: u64, size: u64| [base.to_le_bytes(), (base + size - 1).to_le_bytes()].concat();
    assert!(contains(dsdt, &window(layout().mmio64, layout::MMIO64_SIZE)));
}
