//! The kernel's table of Unix sockets (`/proc/net/unix`), read.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

/// `__SO_ACCEPTCON`: it listens.
const LISTENS: u32 = 1 << 16;

/// A socket that listens at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listener<'a> {
    /// By which it is found among a process's descriptors.
    pub(crate) inode: u64,
    /// As it was bound.
    pub(crate) path: &'a Path,
}

/// Lines are `Num RefCount Protocol Flags Type St Inode Path`, hexadecimal but for the inode.
pub(crate) fn listeners(table: &[u8]) -> impl Iterator<Item = Listener<'_>> {
    table.split(|byte| *byte == b'\n').filter_map(|line| {
        // A path can have spaces in it.
        let mut words = line.splitn(8, |byte| *byte == b' ').skip(3);
        let flags = u32::from_str_radix(text(words.next()?)?, 16).ok()?;
        let rest = words.nth(2)?;
        let path = words.next()?;
        // The inode is padded with blanks, so that it and the path may have come as one.
        let (inode, path) = match text(rest) {
            Some(inode) if !inode.is_empty() => (inode, path),
            _ => {
                let trimmed = path.trim_ascii_start();
                let end = trimmed.iter().position(|byte| *byte == b' ')?;
                (text(trimmed.get(..end)?)?, trimmed.get(end + 1..)?)
            }
        };
        let absolute = path.first() == Some(&b'/');
        (flags & LISTENS != 0 && absolute)
            .then_some(Listener { inode: inode.parse().ok()?, path: Path::new(OsStr::from_bytes(path)) })
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_their_paths() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 17655 /run/libvirt/libvirt-sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01   176 /run/a b\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 17656 /run/libvirt/libvirt-sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 99 @abstract\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 18000\n";
        let found: Vec<_> = listeners(table).collect();
        let at = |inode, path| Listener { inode, path: Path::new(path) };
        assert_eq!(found, [at(17655, "/run/libvirt/libvirt-sock"), at(176, "/run/a b")]);
        assert_eq!(listeners(b"nonsense\n\n: : :\n").count(), 0);
    }
}
