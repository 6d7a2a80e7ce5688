//! The ACPI tables: RSDP, XSDT, FADT, MADT, MCFG and a DSDT in AML.
//!
//! Pure: a description in, bytes out. Hardware-reduced ACPI (ACPI 6.5 §4.1): no SCI, no PM timer, no fixed buttons; sleep
//! and reset by registers, the power button by the generic event device. The tables follow each other from
//! [`layout::ACPI_TABLES`] on, the RSDP first.

use acpi_tables::{
    Aml, AmlSink,
    aml::{
        AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Method, Name, Notify, ONE,
        Package, Path, ResourceTemplate, Scope, ZERO,
    },
    fadt::{FADTBuilder, Flags},
    gas::{AccessSize, AddressSpace as GasSpace, GAS},
    madt::{EnabledStatus, IoApic, ProcessorLocalApic},
    mcfg::MCFG,
    rsdp::Rsdp,
    sdt::Sdt,
    xsdt::XSDT,
};

use crate::layout::{self, Layout};

const OEM_ID: [u8; 6] = *b"NETD  ";
const OEM_TABLE_ID: [u8; 8] = *b"VMM     ";
const OEM_REVISION: u32 = 1;
/// Bytes of the header every table starts with (ACPI 6.5 §5.2.6).
const SDT_HEADER: u32 = 36;
/// The MADT of ACPI 6.x.
const MADT_REVISION: u8 = 5;
/// DSDT revision 2: integers are 64 bits wide.
const DSDT_REVISION: u8 = 2;
/// FADT `IAPC_BOOT_ARCH`: there is no VGA to probe; 8042 and other legacy devices are not announced either.
const BOOT_ARCH_NO_VGA: u16 = 1 << 2;
/// The IOAPIC's id, above those of any CPU we allow.
const IOAPIC_ID: u8 = 0xfe;
/// The value of `Notify` that means "pressed" (ACPI 6.5 §5.6.6).
const BUTTON_PRESSED: u8 = 0x80;

/// The tables as one block to be put at [`layout::ACPI_TABLES`].
pub(super) fn tables(layout: &Layout, cpus: u8) -> Vec<u8> {
    let mut block = Block { bytes: vec![0; Rsdp::len().next_multiple_of(16)] };
    let dsdt = block.append(&dsdt(layout, cpus));
    let entries = [block.append(&fadt(dsdt)), block.append(&madt(cpus)), block.append(&mcfg())];
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for entry in entries {
        xsdt.add_entry(entry);
    }
    let xsdt = block.append(&xsdt);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    block.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    block.bytes
}

struct Block {
    bytes: Vec<u8>,
}

impl Block {
    /// Appends a table and gives its guest-physical address.
    fn append(&mut self, table: &dyn Aml) -> u64 {
        let address = layout::ACPI_TABLES + self.bytes.len() as u64;
        table.to_aml_bytes(&mut self.bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(16), 0);
        address
    }
}

/// An 8-bit register among our I/O ports.
fn register(offset: u16) -> GAS {
    GAS::new(GasSpace::SystemIo, 8, 0, AccessSize::ByteAccess, (layout::ACPI_PORT + offset).into())
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = BOOT_ARCH_NO_VGA.into();
    fadt.reset_reg = register(layout::RESET_REGISTER);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = register(layout::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(layout::SLEEP_STATUS);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"netd-vmm").into();
    fadt.finalize()
}

fn madt(cpus: u8) -> impl Aml {
    let mut structures = Vec::new();
    structures.dword(layout::LOCAL_APIC);
    structures.dword(0); // flags: no dual 8259
    for cpu in 0..cpus {
        ProcessorLocalApic::new(cpu, cpu, EnabledStatus::Enabled).to_aml_bytes(&mut structures);
    }
    IoApic::new(IOAPIC_ID, layout::IOAPIC, 0).to_aml_bytes(&mut structures);
    // ISA interrupts are wired one to one and edge-triggered, active high; said aloud for those who assume otherwise.
    for gsi in [layout::COM1_GSI, layout::POWER_BUTTON_GSI] {
        structures.vec(&interrupt_override(gsi));
    }
    structures.vec(&LOCAL_APIC_NMI);
    let mut madt = Sdt::new(*b"APIC", SDT_HEADER, MADT_REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.append_slice(&structures);
    madt
}

/// Interrupt source override (ACPI 6.5 §5.2.12.5): type 2, 10 bytes, bus ISA, source = GSI, active high, edge-triggered.
fn interrupt_override(gsi: u32) -> [u8; 10] {
    let [a, b, c, d] = gsi.to_le_bytes();
    [2, 10, 0, a, a, b, c, d, 0b0101, 0]
}

/// Local APIC NMI (ACPI 6.5 §5.2.12.7): type 4, 6 bytes, every processor, flags as the bus has them, LINT1.
const LOCAL_APIC_NMI: [u8; 6] = [4, 6, 0xff, 0, 0, 1];

fn mcfg() -> impl Aml {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM, 0, 0, 0);
    mcfg
}

fn dsdt(layout: &Layout, cpus: u8) -> impl Aml {
    let mut dsdt = Sdt::new(*b"DSDT", SDT_HEADER, DSDT_REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    let mut aml = Vec::new();
    processors(cpus, &mut aml);
    pci_host_bridge(layout, &mut aml);
    motherboard(&mut aml);
    power_button(&mut aml);
    sleep_states(&mut aml);
    dsdt.append_slice(&aml);
    dsdt
}

/// One processor device for each CPU, its `_UID` the one in the MADT.
fn processors(cpus: u8, aml: &mut Vec<u8>) {
    for cpu in 0..cpus {
        let hid = Name::new("_HID".into(), &"ACPI0007");
        let uid = Name::new("_UID".into(), &cpu);
        let path = Path::new(&format!("C{cpu:03}"));
        let device = Device::new(path, vec![&hid, &uid]);
        Scope::new("_SB_".into(), vec![&device]).to_aml_bytes(aml);
    }
}

/// The root of PCI: bus 0, the configuration ports, and the two windows BARs may lie in.
fn pci_host_bridge(layout: &Layout, aml: &mut Vec<u8>) {
    let mmio = |from: u64, size: u64| (from, from + size - 1);
    let (low, low_end) = mmio(layout::MMIO32, layout::MMIO32_SIZE);
    let (high, high_end) = mmio(layout.mmio64, layout::MMIO64_SIZE);
    let config = layout::PCI_CONFIG_PORT;
    Scope::new(
        "_SB_".into(),
        vec![&Device::new(
            "PCI0".into(),
            vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0A08")),
                &Name::new("_CID".into(), &EISAName::new("PNP0A03")),
                &Name::new("_UID".into(), &ZERO),
                &Name::new("_SEG".into(), &ZERO),
                &Name::new("_BBN".into(), &ZERO),
                &Name::new("_CCA".into(), &ONE),
                &Name::new(
                    "_CRS".into(),
                    &ResourceTemplate::new(vec![
                        &AddressSpace::new_bus_number(0_u16, 0),
                        &IO::new(config, config, 1, 8),
                        &AddressSpace::new_memory(
                            AddressSpaceCacheable::NotCacheable,
                            true,
                            low as u32,
                            low_end as u32,
                            None,
                        ),
                        &AddressSpace::new_memory(AddressSpaceCacheable::NotCacheable, true, high, high_end, None),
                    ]),
                ),
            ],
        )],
    )
    .to_aml_bytes(aml);
}

/// COM1, the clock, and the ranges that are taken: ECAM (Linux only uses it if it is claimed) and our ACPI ports.
fn motherboard(aml: &mut Vec<u8>) {
    let (com1, cmos, acpi) = (layout::COM1_PORT, layout::CMOS_PORT, layout::ACPI_PORT);
    Scope::new(
        "_SB_".into(),
        vec![
            &Device::new(
                "COM1".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                    &Name::new("_UID".into(), &ONE),
                    &Name::new("_DDN".into(), &"COM1"),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![
                            &IO::new(com1, com1, 0, 8),
                            &Interrupt::new(true, true, false, false, layout::COM1_GSI),
                        ]),
                    ),
                ],
            ),
            &Device::new(
                "RTC0".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0B00")),
                    &Name::new("_CRS".into(), &ResourceTemplate::new(vec![&IO::new(cmos, cmos, 0, 2)])),
                ],
            ),
            &Device::new(
                "MBRD".into(),
                vec![
                    &Name::new("_HID".into(), &EISAName::new("PNP0C02")),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![
                            &Memory32Fixed::new(true, layout::ECAM as u32, layout::ECAM_SIZE as u32),
                            &IO::new(acpi, acpi, 0, 4),
                        ]),
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// The button and the event device that reports it: its one interrupt means "pressed" (ACPI 6.5 §5.6.9).
fn power_button(aml: &mut Vec<u8>) {
    let button = Path::new("\\_SB_.PWRB");
    Scope::new(
        "_SB_".into(),
        vec![
            &Device::new("PWRB".into(), vec![&Name::new("_HID".into(), &EISAName::new("PNP0C0C"))]),
            &Device::new(
                "GED_".into(),
                vec![
                    &Name::new("_HID".into(), &"ACPI0013"),
                    &Name::new("_UID".into(), &ZERO),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(vec![&Interrupt::new(
                            true,
                            true,
                            false,
                            false,
                            layout::POWER_BUTTON_GSI,
                        )]),
                    ),
                    &Method::new("_EVT".into(), 1, true, vec![&Notify::new(&button, &BUTTON_PRESSED)]),
                ],
            ),
        ],
    )
    .to_aml_bytes(aml);
}

/// Power off is the only sleep there is. The package has all four elements of ACPI 6.5 §7.4.2.
fn sleep_states(aml: &mut Vec<u8>) {
    let s5: Package<'_> = Package::new(vec![&layout::SLEEP_TYPE_S5, &ZERO, &ZERO, &ZERO]);
    Name::new("_S5_".into(), &s5).to_aml_bytes(aml);
}

#[cfg(test)]
mod tests;
