//! bzImage by Linux's 64-bit boot protocol: the compressed kernel at 1 MiB, the zero page, the identity map.
//!
//! The kernel unpacks itself in the guest, so it may choose where its text goes (KASLR). Field names are those of
//! Documentation/arch/x86/boot.rst.

use linux_loader::loader::{
    BzImage, KernelLoader,
    bootparam::{boot_e820_entry, boot_params, setup_header},
};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, BootFiles, Initrd, Loaded, registers};
use crate::{
    layout::{COMMAND_LINE, HIGH_MEMORY, Layout, ZERO_PAGE},
    memory::GuestMemory,
};

/// Protocol 2.12 brought `xloadflags`.
const VERSION_WITH_XLOADFLAGS: u16 = 0x020c;
/// `XLF_KERNEL_64`: there is a 64-bit entry point.
const KERNEL_64: u16 = 1;
/// The 64-bit entry point's offset in the protected-mode kernel.
const ENTRY_64: u64 = 0x200;
/// `type_of_loader`: none of the registered ones.
const LOADER_UNDEFINED: u8 = 0xff;

pub(super) fn load(
    files: &mut BootFiles,
    memory: &GuestMemory,
    layout: &Layout,
    command_line: usize,
    rsdp: u64,
) -> Result<Loaded, BootError> {
    let kernel = &mut files.kernel;
    let at = GuestAddress(HIGH_MEMORY);
    if HIGH_MEMORY + kernel.size > layout.low_ram_end {
        return Err(BootError::NoRoom {
            need: (HIGH_MEMORY + kernel.size).div_ceil(1 << 20),
            have: layout.low_ram_end >> 20,
        });
    }
    let loaded = BzImage::load(memory, Some(at), &mut kernel.file, Some(at)).map_err(|cause| kernel.damaged(cause))?;
    let header = loaded.setup_header.unwrap_or_default();
    if header.version < VERSION_WITH_XLOADFLAGS || header.xloadflags & KERNEL_64 == 0 {
        return Err(BootError::Protocol(kernel.path.clone()));
    }
    let (cmdline_size, initrd_addr_max) = (header.cmdline_size, header.initrd_addr_max);
    if command_line > cmdline_size as usize {
        return Err(BootError::CommandLine { given: command_line, max: cmdline_size });
    }
    let limit = layout.low_ram_end.min(u64::from(initrd_addr_max) + 1);
    let initrd = files.load_initrd(memory, kernel_end(&header, loaded.kernel_end), limit)?;
    memory.write_obj(zero_page(header, layout, initrd, rsdp), GuestAddress(ZERO_PAGE))?;
    registers::write_page_tables(memory)?;
    Ok(Loaded { registers: registers::long_mode(HIGH_MEMORY + ENTRY_64), initrd })
}

/// The end of what the kernel uses before it reads its memory map: it unpacks itself at `pref_address` or above.
fn kernel_end(header: &setup_header, image_end: u64) -> u64 {
    let (preferred, init_size) = (header.pref_address, header.init_size);
    image_end.max(preferred.max(HIGH_MEMORY).saturating_add(u64::from(init_size)))
}

fn zero_page(header: setup_header, layout: &Layout, initrd: Option<Initrd>, rsdp: u64) -> boot_params {
    let mut page = boot_params { hdr: header, acpi_rsdp_addr: rsdp, ..Default::default() };
    page.hdr.type_of_loader = LOADER_UNDEFINED;
    page.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    if let Some(Initrd { start, size }) = initrd {
        // Both fit: the initrd lies below `initrd_addr_max`, a 32-bit field.
        page.hdr.ramdisk_image = start as u32;
        page.hdr.ramdisk_size = size as u32;
    }
    let map = layout.memory_map();
    for (entry, range) in page.e820_table.iter_mut().zip(&map) {
        *entry = boot_e820_entry { addr: range.start, size: range.size, r#type: range.kind as u32 };
    }
    page.e820_entries = map.len() as u8;
    page
}
