//! Kernels made by hand, for tests: the headers of a real one around a few bytes of program.

use linux_loader::loader::bootparam::{boot_params, setup_header};
use vm_memory::ByteValued;

/// A bzImage with `program` as its protected-mode part; its 64-bit entry point is at byte 0x200 of it.
pub(crate) fn bzimage(program: &[u8], change: impl FnOnce(&mut setup_header)) -> Vec<u8> {
    const HEADER: usize = 0x1f1;
    let mut page = boot_params::default();
    page.hdr.setup_sects = 1;
    page.hdr.header = 0x5372_6448;
    page.hdr.version = 0x020f;
    page.hdr.loadflags = 1;
    page.hdr.code32_start = 0x10_0000;
    page.hdr.xloadflags = 1;
    page.hdr.cmdline_size = 2047;
    page.hdr.initrd_addr_max = 0x7fff_ffff;
    page.hdr.pref_address = 0x100_0000;
    page.hdr.init_size = 0x100_0000;
    change(&mut page.hdr);
    let mut image = vec![0; 1024];
    let end = HEADER + size_of_val(&page.hdr);
    image[HEADER..end].copy_from_slice(&page.as_slice()[HEADER..end]);
    image.extend(program);
    image
}
