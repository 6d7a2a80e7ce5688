//! Writes the `newc` archives that Linux unpacks as its initramfs. Values in, bytes out.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Every number is eight digits of
//! hex; names and contents are padded to four bytes.

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// An archive being written.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; its parent must have been added before.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, REGULAR | mode, (0, 0), contents);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER | 0o600, (major, minor), &[]);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY != 0 { 2 } else { 1 };
        let name = path.trim_start_matches('/');
        let numbers = [
            self.entries,          // inode
            mode,                  // mode
            0,                     // uid
            0,                     // gid
            links,                 // nlink
            0,                     // mtime: the same inputs give the same bytes
            contents.len() as u32, // filesize
            0,                     // devmajor
            0,                     // devminor
            device.0,              // rdevmajor
            device.1,              // rdevminor
            name.len() as u32 + 1, // namesize, with its NUL
            0,                     // check
        ];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_the_kernel_documentation_describes() {
        let mut archive = Archive::default();
        archive.directory("/etc");
        archive.file("/etc/name", 0o644, b"guest");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // 110 bytes of header, "etc" and its NUL, padded to 116.
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[116 + 110..116 + 120], b"etc/name\0\0");
        assert_eq!(&bytes[116 + 120..116 + 128], b"guest\0\0\0");
        assert!(text.contains("TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
