//! ELF `vmlinux` by its PVH note: segments, start info, module list and memory map.
//!
//! The structures are those of Xen's public/arch-x86/hvm/start_info.h, as `linux-loader` has them.

use linux_loader::loader::{
    Elf, KernelLoader,
    elf::{
        PvhBootCapability,
        start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info},
    },
};
use vm_memory::{Bytes, GuestAddress};

use super::{BootError, BootFiles, Initrd, Loaded, registers};
use crate::{
    layout::{COMMAND_LINE, HIGH_MEMORY, Layout, PVH_INFO, PVH_MEMORY_MAP, PVH_MODULES},
    memory::GuestMemory,
};

/// `XEN_HVM_START_MAGIC_VALUE`: "xEn3" with the top bit of the E set.
const MAGIC: u32 = 0x336e_c578;
/// The version of the structure that has a memory map.
const VERSION: u32 = 1;

pub(super) fn load(
    files: &mut BootFiles,
    memory: &GuestMemory,
    layout: &Layout,
    rsdp: u64,
) -> Result<Loaded, BootError> {
    let kernel = &mut files.kernel;
    let loaded = Elf::load(memory, None, &mut kernel.file, Some(GuestAddress(HIGH_MEMORY)))
        .map_err(|cause| kernel.damaged(cause))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(BootError::NoPvh(kernel.path.clone()));
    };
    let initrd = files.load_initrd(memory, loaded.kernel_end, layout.low_ram_end)?;
    write_start_info(memory, layout, initrd, rsdp)?;
    Ok(Loaded { registers: registers::pvh(entry.0), initrd })
}

fn write_start_info(memory: &GuestMemory, layout: &Layout, initrd: Option<Initrd>, rsdp: u64) -> Result<(), BootError> {
    if let Some(Initrd { start, size }) = initrd {
        let module = hvm_modlist_entry { paddr: start, size, ..Default::default() };
        memory.write_obj(module, GuestAddress(PVH_MODULES))?;
    }
    let map = layout.memory_map();
    for (index, range) in (0_u64..).zip(&map) {
        let entry =
            hvm_memmap_table_entry { addr: range.start, size: range.size, type_: range.kind as u32, reserved: 0 };
        memory.write_obj(entry, GuestAddress(PVH_MEMORY_MAP + index * size_of_val(&entry) as u64))?;
    }
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        flags: 0,
        nr_modules: initrd.is_some().into(),
        modlist_paddr: if initrd.is_some() { PVH_MODULES } else { 0 },
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: map.len() as u32,
        reserved: 0,
    };
    memory.write_obj(info, GuestAddress(PVH_INFO))?;
    Ok(())
}
