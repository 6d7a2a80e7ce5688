//! Both boot protocols with kernels made by hand, and every file that is none.

use std::io::Write;

use linux_loader::loader::bootparam::{boot_params, setup_header};
use tempfile::NamedTempFile;

use super::*;
use crate::{
    config::MemorySize,
    layout::{ACPI_TABLES, HIGH_MEMORY, PVH_INFO, PVH_MODULES, ZERO_PAGE},
    memory::allocate,
};

const MIB: u64 = 1 << 20;

fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// A bzImage whose protected-mode part is the bytes 0xaa.
fn bzimage(change: impl FnOnce(&mut setup_header)) -> Vec<u8> {
    super::fake::bzimage(&[0xaa; 4096], change)
}

/// An ELF file with one segment at 16 MiB and, if asked, a PVH note that names its start.
fn elf(pvh: bool) -> Vec<u8> {
    let mut image = vec![0; 0x1000];
    let header: [(usize, &[u8]); 7] = [
        (0, b"\x7fELF\x02\x01\x01"),
        (16, &[2, 0, 62, 0, 1]),
        (24, &0x100_0000_u64.to_le_bytes()),
        (32, &64_u64.to_le_bytes()),
        (52, &64_u16.to_le_bytes()),
        (54, &56_u16.to_le_bytes()),
        (56, &2_u16.to_le_bytes()),
    ];
    let segment = |kind: u32, offset: u64, address: u64, size: u64| {
        let words = [kind as u64 | 5 << 32, offset, address, address, size, size, 4];
        words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>()
    };
    for (at, bytes) in header {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let note_kind: u32 = if pvh { 18 } else { 17 };
    let note = [4, 4, note_kind, u32::from_le_bytes(*b"Xen\0"), 0x100_0000].map(u32::to_le_bytes).concat();
    image[64..120].copy_from_slice(&segment(1, 0x800, 0x100_0000, 0x800));
    image[120..176].copy_from_slice(&segment(4, 0x400, 0, note.len() as u64));
    image[0x400..0x400 + note.len()].copy_from_slice(&note);
    image[0x800..].fill(0xbb);
    image
}

fn boot(kernel: &[u8], initrd: Option<&[u8]>, mib: u64) -> Result<(GuestMemory, Loaded), BootError> {
    let (kernel, initrd) = (file(kernel), initrd.map(file));
    let mut files = BootFiles::open(kernel.path(), initrd.as_ref().map(|file| file.path()))?;
    let size = MemorySize::from_bytes(mib * MIB).unwrap();
    let layout = Layout::new(size);
    let memory = allocate(size, &layout).unwrap();
    let loaded = files.place(&memory, &layout, "console=ttyS0", ACPI_TABLES)?;
    Ok((memory, loaded))
}

fn command_line(memory: &GuestMemory) -> [u8; 14] {
    memory.read_obj(GuestAddress(COMMAND_LINE)).unwrap()
}

#[test]
fn a_bzimage_lies_at_one_mib_and_finds_its_parameters() {
    let (memory, loaded) = boot(&bzimage(|_| ()), Some(&[1; 5000]), 64).unwrap();
    assert_eq!(loaded.registers.general.rip, HIGH_MEMORY + 0x200);
    assert_eq!(loaded.registers.general.rsi, ZERO_PAGE);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(HIGH_MEMORY)).unwrap(), 0xaaaa_aaaa);
    assert_eq!(&command_line(&memory), b"console=ttyS0\0");
    let page: boot_params = memory.read_obj(GuestAddress(ZERO_PAGE)).unwrap();
    let initrd = loaded.initrd.unwrap();
    assert_eq!((page.hdr.ramdisk_image as u64, page.hdr.ramdisk_size as u64), (initrd.start, 5000));
    assert_eq!({ page.acpi_rsdp_addr }, ACPI_TABLES);
    assert_eq!(page.hdr.type_of_loader, 0xff);
    assert_eq!({ page.hdr.cmd_line_ptr } as u64, COMMAND_LINE);
    assert_eq!(
        usize::from(page.e820_entries),
        Layout::new(MemorySize::from_bytes(64 * MIB).unwrap()).memory_map().len()
    );
}

#[test]
fn the_initrd_lies_on_a_page_at_the_top_of_low_memory() {
    let (memory, loaded) = boot(&bzimage(|_| ()), Some(&[7; 5000]), 64).unwrap();
    let initrd = loaded.initrd.unwrap();
    assert_eq!(initrd, Initrd { start: 64 * MIB - 8192, size: 5000 });
    assert_eq!(memory.read_obj::<u8>(GuestAddress(initrd.start + 4999)).unwrap(), 7);
}

#[test]
fn the_initrd_stays_below_what_the_kernel_says_it_can_reach() {
    let kernel = bzimage(|header| header.initrd_addr_max = 40 * MIB as u32 - 1);
    let (_, loaded) = boot(&kernel, Some(&[1; 4096]), 64).unwrap();
    assert_eq!(loaded.initrd.unwrap().start, 40 * MIB - 4096);
}

#[test]
fn an_initrd_that_would_lie_in_the_kernels_way_is_refused_with_the_need() {
    // The kernel wants 16 to 32 MiB; of 33 MiB only one is left.
    let error = boot(&bzimage(|_| ()), Some(&vec![1; 2 << 20]), 33).unwrap_err();
    assert!(matches!(error, BootError::NoRoom { need: 34, have: 33 }), "{error}");
    assert!(boot(&bzimage(|_| ()), Some(&vec![1; 1 << 20]), 33).is_ok());
}

#[test]
fn a_kernel_that_does_not_fit_is_refused_without_an_initrd_too() {
    assert!(matches!(boot(&bzimage(|_| ()), None, 24), Err(BootError::NoRoom { need: 32, have: 24 })));
}

#[test]
fn an_elf_kernel_starts_at_its_pvh_entry() {
    let (memory, loaded) = boot(&elf(true), Some(&[1; 100]), 64).unwrap();
    assert_eq!((loaded.registers.general.rip, loaded.registers.general.rbx), (0x100_0000, PVH_INFO));
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x100_0000)).unwrap(), 0xbbbb_bbbb);
    let [magic, version, _, modules]: [u32; 4] = memory.read_obj(GuestAddress(PVH_INFO)).unwrap();
    let [module_list, command_line, rsdp]: [u64; 3] = memory.read_obj(GuestAddress(PVH_INFO + 16)).unwrap();
    assert_eq!((magic, version, modules), (0x336e_c578, 1, 1));
    assert_eq!((module_list, command_line, rsdp), (PVH_MODULES, COMMAND_LINE, ACPI_TABLES));
    let [start, size]: [u64; 2] = memory.read_obj(GuestAddress(PVH_MODULES)).unwrap();
    assert_eq!((start, size), (64 * MIB - 4096, 100));
}

#[test]
fn an_elf_kernel_without_the_note_is_refused_with_the_next_move() {
    let error = boot(&elf(false), None, 64).unwrap_err();
    assert!(error.to_string().contains("CONFIG_PVH=y"), "{error}");
}

#[test]
fn what_is_no_kernel_is_refused_by_path() {
    for content in [&b""[..], b"#!/bin/sh\n", &[0; 4096]] {
        let file = file(content);
        let error = BootFiles::open(file.path(), None).unwrap_err();
        assert!(matches!(&error, BootError::NotAKernel(path) if path == file.path()), "{error}");
    }
}

#[test]
fn a_damaged_kernel_is_an_error_and_not_a_panic() {
    let whole = elf(true);
    for length in [4, 64, 100, 180, 0x403, 0x900] {
        assert!(matches!(boot(&whole[..length], None, 64), Err(BootError::Damaged { .. })), "{length}");
    }
    let sectors = boot(&bzimage(|header| header.setup_sects = 200), None, 64);
    assert!(matches!(sectors, Err(BootError::Damaged { .. })));
}

#[test]
fn an_old_or_32_bit_kernel_is_refused() {
    for kernel in [bzimage(|header| header.version = 0x020b), bzimage(|header| header.xloadflags = 0)] {
        assert!(matches!(boot(&kernel, None, 64), Err(BootError::Protocol(_))));
    }
}

#[test]
fn a_command_line_longer_than_this_kernel_takes_is_refused() {
    let error = boot(&bzimage(|header| header.cmdline_size = 5), None, 64).unwrap_err();
    assert!(matches!(error, BootError::CommandLine { given: 13, max: 5 }), "{error}");
}

#[test]
fn a_missing_file_and_a_directory_are_named() {
    let missing = BootFiles::open(Path::new("/nonexistent/vmlinuz"), None).unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/vmlinuz") && missing.contains("No such file"), "{missing}");
    let directory = BootFiles::open(Path::new("/"), None).unwrap_err().to_string();
    assert!(directory.contains("kernel / is a directory"), "{directory}");
    let kernel = file(&bzimage(|_| ()));
    let initrd = BootFiles::open(kernel.path(), Some(Path::new("/nonexistent/initrd"))).unwrap_err().to_string();
    assert!(initrd.contains("the initrd /nonexistent/initrd"), "{initrd}");
}

#[test]
fn an_empty_initrd_is_refused() {
    let (kernel, initrd) = (file(&bzimage(|_| ())), file(b""));
    assert!(matches!(BootFiles::open(kernel.path(), Some(initrd.path())), Err(BootError::InitrdEmpty(_))));
}
