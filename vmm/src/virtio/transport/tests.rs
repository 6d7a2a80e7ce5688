//! The transport from the driver's side: probe, negotiate, start, work, reset, and everything out of order.

use super::*;
use crate::virtio::blk::Blk;
use crate::virtio::rng::Rng;
use crate::virtio::testing::{Dice, Driver, Machine, PROMPTLY, Piece};

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;
const EVERYTHING: u64 = VERSION_1 | EVENT_IDX | 1 << 28;

/// Brings the entropy device up and has it fill a buffer.
fn works(driver: &Driver<'_>, features: u64) {
    assert!(driver.negotiate(features));
    let mut ring = driver.ring(0, 8, features & EVENT_IDX != 0);
    driver.start();
    for _ in 0..20 {
        let room = Piece::room(driver.machine, 64);
        let head = ring.add(&[room]);
        driver.kick(&mut ring);
        assert_eq!(ring.wait_used(), (head, 64));
        assert_ne!(room.bytes(driver.machine), [0; 64]);
    }
}

#[test]
fn the_function_is_a_modern_virtio_device_with_all_its_capabilities() {
    let machine = Machine::new();
    let mut driver = machine.plug(3, Rng::new());
    driver.probe();
    assert_eq!(driver.config_read(0, 4), 0x1044_1af4);
    assert_eq!(driver.config_read(8, 1), 1, "revision");
    assert_eq!(driver.config_read(0x2c, 4), 0x1100_1af4, "subsystem");
    assert_eq!(driver.config_read(0x3d, 1), 0, "no INTx pin");
    assert!(driver.common.len >= 56 && driver.isr.len > 0 && driver.notify.len >= 4 && driver.pci_cfg != 0);
    assert_eq!(driver.device.len, 0, "an entropy device has no configuration");
    assert_eq!(driver.config_read(driver.msix + 2, 2) & 0x7ff, 1, "two vectors");
}

#[test]
fn a_device_works_again_after_each_reset_with_any_features() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    for features in [VERSION_1, EVERYTHING, VERSION_1 | EVENT_IDX, EVERYTHING] {
        works(&driver, features);
    }
}

#[test]
fn features_not_offered_or_without_version_1_are_refused() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    assert_eq!(driver.offered(), EVERYTHING);
    assert!(!driver.negotiate(VERSION_1 | 1 << 40));
    assert!(!driver.negotiate(EVENT_IDX));
    // And a driver that goes on regardless gets no device.
    driver.set_status(0xf);
    assert_eq!(driver.status() & 0x4c, 0);
}

#[test]
fn moving_the_bar_moves_the_doorbells_of_a_running_device() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    works(&driver, EVERYTHING);
    let bells = || lock(&machine.doorbells.bells).keys().copied().collect::<Vec<_>>();
    assert_eq!(bells(), [driver.bar() + region::NOTIFY]);
    driver.move_bar(0x40_0000_0000);
    assert_eq!(bells(), [0x40_0000_0000 + region::NOTIFY]);
    driver.config_write(4, 2, 0x4);
    assert!(bells().is_empty());
    assert!(!machine.bus.mmio_read(driver.bar(), &mut [0; 4]), "memory decoding is off");
    driver.config_write(4, 2, 0x6);
    assert_eq!(bells(), [0x40_0000_0000 + region::NOTIFY]);
    driver.reset();
    assert!(bells().is_empty());
    works(&driver, EVERYTHING);
}

#[test]
fn a_doorbell_that_the_kernel_cannot_take_works_as_an_exit() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    assert!(driver.negotiate(VERSION_1));
    let mut ring = driver.ring(0, 8, false);
    driver.start();
    let room = Piece::room(&machine, 8);
    ring.add(&[room]);
    ring.publish();
    driver.write(ring.doorbell, 2, 0);
    ring.wait_used();
}

#[test]
fn without_bus_mastering_a_device_stops_and_wants_a_reset() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    works(&driver, EVERYTHING);
    driver.config_write(4, 2, 0x2);
    assert_eq!(driver.status() & 0x40, 0x40);
    assert_eq!(machine.router.wait(driver.config_message(), PROMPTLY), 1, "the driver is told");
    assert!(lock(&machine.doorbells.bells).is_empty());
    driver.negotiate(EVERYTHING);
    driver.ring(0, 8, true);
    driver.start();
    assert_eq!(driver.status() & 0x40, 0x40, "nor does it start without");
    driver.config_write(4, 2, 0x6);
    works(&driver, EVERYTHING);
}

#[test]
fn rings_outside_memory_or_misaligned_want_a_reset() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    for (register, address) in [(reg::QUEUE_DESC, 17 << 20), (reg::QUEUE_DRIVER, 0x1001), (reg::QUEUE_DEVICE, u64::MAX)]
    {
        assert!(driver.negotiate(EVERYTHING));
        driver.common_write(reg::QUEUE_SELECT, 2, 0);
        for usual in [reg::QUEUE_DESC, reg::QUEUE_DRIVER, reg::QUEUE_DEVICE] {
            driver.common_write(usual, 8, 0x1000);
        }
        driver.common_write(register, 8, address);
        driver.common_write(reg::QUEUE_ENABLE, 2, 1);
        driver.start();
        assert_eq!(driver.status() & 0x40, 0x40, "{address:#x}");
        assert_eq!(machine.router.wait(driver.config_message(), PROMPTLY), 1);
    }
    works(&driver, EVERYTHING);
}

#[test]
fn a_broken_ring_stops_the_queue_and_tells_the_driver() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    assert!(driver.negotiate(EVERYTHING));
    let mut ring = driver.ring(0, 8, true);
    driver.start();
    ring.add_head(99);
    driver.kick(&mut ring);
    assert_eq!(machine.router.wait(driver.config_message(), PROMPTLY), 1);
    assert_eq!(driver.status() & 0x40, 0x40);
    assert_eq!(ring.used_idx(), 0);
    works(&driver, EVERYTHING);
}

#[test]
fn registers_of_an_enabled_queue_and_sizes_that_make_no_sense_are_left_alone() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    driver.negotiate(EVERYTHING);
    driver.common_write(reg::QUEUE_SELECT, 2, 0);
    let most = driver.common_read(reg::QUEUE_SIZE, 2);
    for size in [0, 3, most * 2, 0xffff] {
        driver.common_write(reg::QUEUE_SIZE, 2, size);
        assert_eq!(driver.common_read(reg::QUEUE_SIZE, 2), most);
    }
    let ring = driver.ring(0, 8, true);
    driver.common_write(reg::QUEUE_SIZE, 2, 16);
    driver.common_write(reg::QUEUE_DESC, 8, 0);
    driver.common_write(reg::QUEUE_ENABLE, 2, 0);
    assert_eq!(driver.common_read(reg::QUEUE_SIZE, 2), 8);
    assert_eq!(driver.common_read(reg::QUEUE_DESC, 8), ring.descriptors);
    assert_eq!(driver.common_read(reg::QUEUE_ENABLE, 2), 1);
    driver.common_write(reg::QUEUE_VECTOR, 2, 77);
    assert_eq!(driver.common_read(reg::QUEUE_VECTOR, 2), 0xffff, "there is no such vector");
    driver.common_write(reg::QUEUE_SELECT, 2, 1);
    assert_eq!(driver.common_read(reg::QUEUE_SIZE, 2), 0, "there is no such queue");
}

#[test]
fn firmware_reaches_the_bar_through_configuration_space() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    works(&driver, EVERYTHING);
    let window = |offset: u64, bytes: u32| {
        driver.config_write(driver.pci_cfg + 4, 1, 0);
        driver.config_write(driver.pci_cfg + 8, 4, offset as u32);
        driver.config_write(driver.pci_cfg + 12, 4, bytes);
        driver.pci_cfg + 16
    };
    let status = region::COMMON + reg::STATUS;
    assert_eq!(driver.config_read(window(status, 1), 1), 0xf);
    driver.config_write(window(status, 1), 1, 0);
    assert_eq!(driver.status(), 0, "the write reset the device");
    driver.config_read(window(BAR_SIZE, 4), 4);
    driver.config_read(window(status, 3), 4);
    driver.config_write(window(u64::from(u32::MAX), 2), 2, 0);
}

#[test]
fn with_msix_off_the_isr_byte_tells_and_reading_clears_it() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    driver.config_write(driver.msix + 2, 2, 0);
    assert!(driver.negotiate(VERSION_1));
    let mut ring = driver.ring(0, 8, false);
    driver.start();
    ring.add(&[Piece::room(&machine, 8)]);
    driver.kick(&mut ring);
    let deadline = std::time::Instant::now() + PROMPTLY;
    let mut isr = 0;
    while isr == 0 && std::time::Instant::now() < deadline {
        isr = driver.read(driver.isr.offset, 1);
        std::thread::yield_now();
    }
    assert_eq!(isr, 1);
    assert_eq!(driver.read(driver.isr.offset, 1), 0);
    assert_eq!(ring.used_idx(), 1);
}

#[test]
fn a_reboot_brings_everything_back_to_power_on() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    let power_on: Vec<u32> = (0..64).map(|i| driver.config_read(4 * i, 4)).collect();
    driver.probe();
    works(&driver, EVERYTHING);
    driver.move_bar(0x40_0000_0000);
    machine.bus.reset();
    assert_eq!((0..64).map(|i| driver.config_read(4 * i, 4)).collect::<Vec<_>>(), power_on);
    assert!(lock(&machine.doorbells.bells).is_empty());
    driver.probe();
    assert_eq!(driver.status(), 0);
    works(&driver, EVERYTHING);
}

#[test]
fn a_bar_at_an_odd_address_and_a_device_of_too_many_queues_are_refused() {
    let machine = Machine::new();
    let build = |bar| {
        let (router, doorbells) = (machine.router.clone(), machine.doorbells.clone());
        VirtioPci::new(Box::new(Rng::new()), machine.memory.clone(), router, doorbells, bar).map(drop)
    };
    assert!(matches!(build(0x1000), Err(VirtioError::BarAddress(0x1000))));
    assert!(build(BAR_SIZE).is_ok());
}

#[test]
fn random_register_accesses_never_panic_and_a_reboot_cures_them() {
    let machine = Machine::new();
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let (_far, nic) = crate::virtio::net::over_a_socket();
    let disk = crate::disk::RawDisk::open(image.path(), false).unwrap();
    let mut drivers = [machine.plug(1, Rng::new()), machine.plug(2, Blk::new(disk)), machine.plug(3, nic)];
    let mut dice = Dice::new(3);
    for round in 0..30 {
        drivers.iter_mut().for_each(Driver::probe);
        let bars = drivers.each_ref().map(Driver::bar);
        // Start with a running device in some rounds.
        if round % 3 == 0 {
            works(&drivers[0], EVERYTHING);
        }
        for _ in 0..5_000 {
            let which = dice.below(3);
            let bar = bars[which as usize];
            let config = (which + 1) << 15;
            let bytes = [1, 2, 4, 8][dice.below(4) as usize];
            let value = [dice.roll(), dice.below(16), 0, u64::MAX, 0x1000][dice.below(5) as usize].to_le_bytes();
            let region = [0, 0, 0, 0x2000, 0x4000, 0x6000, 0x8000, 0x4_0000, 0x7_fff8][dice.below(9) as usize];
            let address = bar + region + dice.below(64);
            match dice.below(10) {
                0 => machine.bus.ecam_write(config | dice.below(4096), &value[..bytes.min(4)]),
                1 => machine.bus.ecam_read(config | dice.below(4096), &mut [0; 8][..bytes]),
                2 => drop(machine.bus.mmio_read(address, &mut [0; 8][..bytes])),
                _ => drop(machine.bus.mmio_write(address, &value[..bytes])),
            }
            // Keep it decoding more often than not.
            if dice.below(20) == 0 {
                machine.bus.ecam_write(config | 4, &[6, 0]);
                drivers[which as usize].move_bar(bar);
            }
        }
        machine.bus.reset();
    }
    drivers.iter_mut().for_each(Driver::probe);
    works(&drivers[0], EVERYTHING);
    assert!(drivers[1].negotiate(EVERYTHING) && drivers[2].negotiate(EVERYTHING));
}

#[test]
fn a_hostile_driver_cannot_fill_the_log() {
    let interrupts = Interrupts::new(1, Machine::new().router.clone());
    let lines = (0..1000).filter(|_| interrupts.may_complain("blk0")).count();
    assert_eq!(lines, 20);
}
