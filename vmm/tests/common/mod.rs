//! Kernels of a few instructions, for tests that need a guest and no operating system.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A bzImage whose 64-bit entry runs `program`.
pub(crate) fn kernel(directory: &Path, program: &[u8]) -> PathBuf {
    let mut image = vec![0; 1024 + 0x200];
    let fields: [(usize, &[u8]); 8] = [
        (0x1f1, &[1]),                           // setup_sects
        (0x202, b"HdrS"),                        // header
        (0x206, &0x020f_u16.to_le_bytes()),      // version
        (0x211, &[1]),                           // loadflags: LOADED_HIGH
        (0x214, &0x10_0000_u32.to_le_bytes()),   // code32_start
        (0x22c, &0x7fff_ffff_u32.to_le_bytes()), // initrd_addr_max
        (0x236, &1_u16.to_le_bytes()),           // xloadflags: XLF_KERNEL_64
        (0x238, &2047_u32.to_le_bytes()),        // cmdline_size
    ];
    for (at, bytes) in fields {
        image[at..at + bytes.len()].copy_from_slice(bytes);
    }
    image.extend(program);
    let path = directory.join("vmlinuz");
    fs::write(&path, image).unwrap();
    path
}

/// mov dx, 0x3f8; mov al, byte; out dx, al
pub(crate) fn say(byte: u8) -> [u8; 7] {
    [0x66, 0xba, 0xf8, 0x03, 0xb0, byte, 0xee]
}
