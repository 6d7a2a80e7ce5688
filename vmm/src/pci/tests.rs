//! The bus and configuration space, as a guest's PCI core uses them.

use super::*;

fn read32(bus: &PciBus, offset: u64) -> u32 {
    let mut data = [0; 4];
    bus.ecam_read(offset, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn slot_zero_is_the_host_bridge_and_the_rest_is_all_ones() {
    let bus = PciBus::new();
    assert_eq!(read32(&bus, 0), 0x0d57_8086);
    assert_eq!(read32(&bus, 8), 0x0600_0000);
    for other in [1 << 12, 1 << 15, 31 << 15, ECAM_BUS_SIZE, u64::MAX] {
        assert_eq!(read32(&bus, other), 0xffff_ffff, "at {other:#x}");
    }
}

#[test]
fn extended_configuration_space_is_empty() {
    assert_eq!(read32(&PciBus::new(), 0x100), 0);
}

#[test]
fn the_ports_reach_the_same_registers_as_ecam() {
    let bus = PciBus::new();
    bus.port_write(0, &0x8000_0008u32.to_le_bytes());
    let mut class = [0; 2];
    bus.port_read(6, &mut class);
    assert_eq!(class, [0x00, 0x06]);
    let mut latch = [0; 4];
    bus.port_read(0, &mut latch);
    assert_eq!(u32::from_le_bytes(latch), 0x8000_0008);
}

#[test]
fn a_byte_write_to_the_latch_is_not_a_latch_write() {
    let bus = PciBus::new();
    bus.port_write(0, &0x8000_0000u32.to_le_bytes());
    bus.port_write(1, &[6]); // 0xcf9: reset control on a PC, none of ours
    let mut id = [0; 4];
    bus.port_read(4, &mut id);
    assert_eq!(u32::from_le_bytes(id), 0x0d57_8086);
}

#[test]
fn a_slot_takes_one_function() {
    let bus = PciBus::new();
    assert!(matches!(bus.attach(0, Arc::new(HostBridge::new())), Err(PciError::SlotTaken(0))));
    assert!(matches!(bus.attach(32, Arc::new(HostBridge::new())), Err(PciError::NoSuchSlot(32))));
    bus.attach(31, Arc::new(HostBridge::new())).unwrap();
    assert!(matches!(bus.attach(31, Arc::new(HostBridge::new())), Err(PciError::SlotTaken(31))));
    assert_eq!(read32(&bus, 31 << 15), 0x0d57_8086);
}

#[test]
fn a_bar_is_sized_and_moved_as_the_specification_says() {
    let id = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
    let mut space = ConfigSpace::new(id);
    space.add_bar(0, BarKind::Memory64, 0x8_0000, 0xe000_0000);
    space.write(0x10, &[0xff; 8]);
    let mut raw = [0; 8];
    space.read(0x10, &mut raw);
    assert_eq!(u64::from_le_bytes(raw), 0xffff_ffff_fff8_0004);
    space.write(0x10, &0x12_3450_0000u64.to_le_bytes());
    assert_eq!(space.bar(0), 0x12_3450_0000);
}

#[test]
fn capabilities_form_a_list_and_only_their_writable_bits_change() {
    let id = Identity { vendor: 1, device: 2, revision: 0, class: 0, subsystem_vendor: 0, subsystem: 0 };
    let mut space = ConfigSpace::new(id);
    let first = space.add_capability(0x09, &[1, 2, 3], &[]);
    let second = space.add_capability(0x11, &[0, 0], &[0, 0xc0]);
    let mut byte = [0];
    space.read(0x34, &mut byte);
    assert_eq!(byte[0], first);
    space.read(u16::from(first) + 1, &mut byte);
    assert_eq!(byte[0], second);
    space.write(u16::from(first), &[0xff; 16]);
    let mut all = [0; 12];
    space.read(u16::from(first), &mut all);
    assert_eq!(all, [0x09, second, 1, 2, 3, 0, 0, 0, 0x11, 0, 0, 0xc0]);
}
