//! EDGE: from kernel and initrd files to guest memory and the first CPU's registers.
//!
//! Two protocols: an ELF `vmlinux` starts at its PVH entry point ([`pvh`]), a bzImage by the 64-bit boot protocol
//! ([`bzimage`]); which one is read from the file's first bytes. It reads the files and nothing else; they are opened
//! once, so a reset boots the same kernel even if the path now leads elsewhere.

mod bzimage;
mod pvh;
mod registers;

pub(crate) use registers::load_bare;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::{
    kvm::vcpu::Registers,
    layout::{COMMAND_LINE, Layout},
    memory::GuestMemory,
};

/// Why the guest can't be booted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("failed to open the {what} {}: {cause}: check the path and its permissions", path.display())]
    Open { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("the {what} {} is {kind}: give the path of a regular file", path.display())]
    NotAFile { what: &'static str, path: PathBuf, kind: &'static str },
    #[error("failed to read the {what} {}: {cause}", path.display())]
    Read { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("{} is not a kernel: give a bzImage (vmlinuz) or an ELF vmlinux", .0.display())]
    NotAKernel(PathBuf),
    #[error("the kernel {} is damaged or cut short: {cause}", path.display())]
    Damaged { path: PathBuf, cause: linux_loader::loader::Error },
    #[error("the kernel {} has no PVH entry point: build it with CONFIG_PVH=y or give its bzImage", .0.display())]
    NoPvh(PathBuf),
    #[error("the kernel {} is too old or not 64-bit: give an x86-64 kernel with boot protocol 2.12 (Linux 3.8) or later", .0.display())]
    Protocol(PathBuf),
    #[error("the kernel takes a command line of at most {max} bytes, this one has {given}: shorten --cmdline")]
    CommandLine { given: usize, max: u32 },
    #[error("the initrd {} is empty: leave --initrd out or give a real one", .0.display())]
    InitrdEmpty(PathBuf),
    #[error(
        "kernel and initrd need {need} MiB below 3 GiB, the guest has {have} MiB there: give it more with --memory or a smaller initrd"
    )]
    NoRoom { need: u64, have: u64 },
    #[error("failed to write to guest memory: {0}")]
    Memory(#[from] GuestMemoryError),
}

/// What to boot, opened and recognised.
#[derive(Debug)]
pub(crate) struct BootFiles {
    kernel: Source,
    kind: Kind,
    initrd: Option<Source>,
}

/// A file opened for reading, with the words for errors about it.
#[derive(Debug)]
struct Source {
    what: &'static str,
    path: PathBuf,
    file: File,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Elf,
    BzImage,
}

/// What was put where.
#[derive(Debug)]
struct Loaded {
    /// The first CPU's registers.
    registers: Registers,
    /// Where the initrd was put.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests look at the placement"))]
    initrd: Option<Initrd>,
}

/// The initrd in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Initrd {
    start: u64,
    size: u64,
}

impl BootFiles {
    /// Opens the files and makes sure the kernel is one.
    pub(crate) fn open(kernel: &Path, initrd: Option<&Path>) -> Result<Self, BootError> {
        let mut kernel = Source::open("kernel", kernel)?;
        let kind = kernel.kind()?;
        let initrd = initrd.map(|path| Source::open("initrd", path)).transpose()?;
        match initrd {
            Some(Source { size: 0, path, .. }) => Err(BootError::InitrdEmpty(path)),
            initrd => Ok(BootFiles { kernel, kind, initrd }),
        }
    }

    /// Puts kernel, initrd, command line and boot parameters into `memory`; `rsdp` is where the ACPI tables start.
    pub(crate) fn load(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
        command_line: &str,
        rsdp: u64,
    ) -> Result<Registers, BootError> {
        Ok(self.place(memory, layout, command_line, rsdp)?.registers)
    }

    fn place(
        &mut self,
        memory: &GuestMemory,
        layout: &Layout,
        command_line: &str,
        rsdp: u64,
    ) -> Result<Loaded, BootError> {
        registers::write_gdt(memory)?;
        memory.write_slice(command_line.as_bytes(), GuestAddress(COMMAND_LINE))?;
        memory.write_obj(0_u8, GuestAddress(COMMAND_LINE + command_line.len() as u64))?;
        match self.kind {
            Kind::Elf => pvh::load(self, memory, layout, rsdp),
            Kind::BzImage => bzimage::load(self, memory, layout, command_line.len(), rsdp),
        }
    }

    /// Reads the initrd to the highest place that ends at or below `limit` and starts at or above `floor`, on a page.
    fn load_initrd(&mut self, memory: &GuestMemory, floor: u64, limit: u64) -> Result<Option<Initrd>, BootError> {
        let have = limit >> 20;
        let no_room = |size: u64| BootError::NoRoom { need: (floor + size).div_ceil(1 << 20), have };
        let Some(initrd) = &mut self.initrd else {
            return if floor <= limit { Ok(None) } else { Err(no_room(0)) };
        };
        let size = initrd.size;
        let start = limit.checked_sub(size).map(|start| start & !0xfff).filter(|start| *start >= floor);
        let start = start.ok_or_else(|| no_room(size))?;
        initrd.rewind()?;
        let read = memory.read_exact_volatile_from(GuestAddress(start), &mut initrd.file, size as usize);
        read.map_err(|cause| initrd.failed(io::Error::other(cause)))?;
        Ok(Some(Initrd { start, size }))
    }
}

impl Source {
    fn open(what: &'static str, path: &Path) -> Result<Self, BootError> {
        let failed = |cause| BootError::Open { what, path: path.to_owned(), cause };
        // Asked before opening: opening a FIFO would wait for a writer for ever.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() {
            let kind = if kind.is_dir() { "a directory" } else { "not a regular file" };
            return Err(BootError::NotAFile { what, path: path.to_owned(), kind });
        }
        let file = File::open(path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        Ok(Source { what, path: path.to_owned(), file, size })
    }

    /// Recognises the two kinds of kernel by their magic numbers.
    fn kind(&mut self) -> Result<Kind, BootError> {
        let mut head = Vec::with_capacity(0x206);
        let read = (&mut self.file).take(0x206).read_to_end(&mut head);
        read.map_err(|cause| self.failed(cause))?;
        if head.starts_with(b"\x7fELF") {
            Ok(Kind::Elf)
        } else if head.get(0x202..0x206) == Some(b"HdrS") {
            Ok(Kind::BzImage)
        } else {
            Err(BootError::NotAKernel(self.path.clone()))
        }
    }

    fn rewind(&mut self) -> Result<(), BootError> {
        self.file.seek(SeekFrom::Start(0)).map_err(|cause| self.failed(cause))?;
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> BootError {
        BootError::Read { what: self.what, path: self.path.clone(), cause }
    }

    fn damaged(&self, cause: linux_loader::loader::Error) -> BootError {
        BootError::Damaged { path: self.path.clone(), cause }
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
