//! EDGE: the guest's RAM: anonymous memory of this process, mapped once and kept over the guest's resets.
//!
//! Pages cost the host nothing until the guest touches them. Who reads and writes it goes through `vm-memory`'s
//! volatile accesses, because the guest may change any byte at any time.

use std::io;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

use crate::{config::MemorySize, layout::Layout};

/// Guest memory as every part of the crate passes it around; clones share the same pages.
pub(crate) type GuestMemory = GuestMemoryMmap<()>;

/// Why the guest can't have its memory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("the host can't give {} MiB of memory: {cause}: ask for less with --memory", .size.bytes() >> 20)]
    Map { size: MemorySize, cause: vm_memory::mmap::FromRangesError },
    #[error("failed to clear the guest's memory: {0}")]
    Clear(io::Error),
}

/// Maps the guest's RAM where `layout` says.
pub(crate) fn allocate(size: MemorySize, layout: &Layout) -> Result<GuestMemory, MemoryError> {
    let ranges: Vec<_> = layout.ram().into_iter().map(|(start, size)| (GuestAddress(start), size as usize)).collect();
    GuestMemory::from_ranges(&ranges).map_err(|cause| MemoryError::Map { size, cause })
}

/// Makes all of it zero again by giving the pages back to the host.
///
/// Nothing may be running that uses the memory: CPUs and device workers are stopped by the caller.
pub(crate) fn clear(memory: &GuestMemory) -> Result<(), MemoryError> {
    for region in memory.iter() {
        let failed = |e| MemoryError::Clear(io::Error::other(e));
        let host = region.get_host_address(MemoryRegionAddress(0)).map_err(failed)?;
        // SAFETY: the range is a private anonymous mapping owned by `memory`. The kernel replaces its pages by
        // zero pages; all access is by volatile reads and writes, which expect contents to change.
        let result = unsafe { libc::madvise(host.cast(), region.len() as usize, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(MemoryError::Clear(io::Error::last_os_error()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    #[test]
    fn cleared_memory_reads_zero_everywhere() {
        let size = MemorySize::from_bytes(16 << 20).unwrap();
        let memory = allocate(size, &Layout::new(size)).unwrap();
        for address in [0, 0x10_0000, (16 << 20) - 8] {
            memory.write_obj(0xdead_beef_u64, GuestAddress(address)).unwrap();
        }
        clear(&memory).unwrap();
        for address in [0, 0x10_0000, (16 << 20) - 8] {
            assert_eq!(memory.read_obj::<u64>(GuestAddress(address)).unwrap(), 0);
        }
    }
}
