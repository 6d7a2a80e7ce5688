//! SMBIOS: what the guest is told it runs on (DMTF DSP0134 3.x). cloud-init and others read it.
//!
//! Pure: values in, bytes out. The 64-bit entry point stands at [`layout::SMBIOS`], where a BIOS has it, and the
//! structures right behind it.

use crate::layout;

/// Bytes of the entry point (§5.2.2).
const ENTRY_POINT: usize = 24;
/// The version the structures are of.
const VERSION: [u8; 3] = [3, 2, 0];

/// What a guest is told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct System {
    /// The system's serial number. cloud-init takes its data source from here.
    pub(crate) serial: String,
    /// Its UUID, in the order it is written.
    pub(crate) uuid: [u8; 16],
}

/// Entry point and structures as one block.
pub(super) fn tables(system: &System) -> Vec<u8> {
    let mut structures = Vec::new();
    for (handle, (kind, body, strings)) in (0_u16..).zip([bios(), machine(system), chassis(), end()]) {
        structures.extend([kind, 4 + body.len() as u8]);
        structures.extend(handle.to_le_bytes());
        structures.extend(body);
        for text in &strings {
            structures.extend(text.bytes().filter(|byte| *byte != 0));
            structures.push(0);
        }
        // The strings end in an empty one; a structure without any has two zeros.
        structures.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
    }
    let mut block = b"_SM3_".to_vec();
    block.extend([0, ENTRY_POINT as u8]);
    block.extend(VERSION);
    block.extend([1, 0]); // revision of the entry point, reserved
    block.extend((structures.len() as u32).to_le_bytes());
    block.extend((layout::SMBIOS + ENTRY_POINT as u64).to_le_bytes());
    let sum = block.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    block[5] = sum.wrapping_neg();
    block.extend(structures);
    block
}

/// A structure: its type, its fields, its strings, which fields name by their place from 1 on.
type Structure = (u8, Vec<u8>, Vec<String>);

/// Firmware (type 0, §7.1): there is none, and it says so; but it is a virtual machine's.
fn bios() -> Structure {
    let mut body = vec![1, 2, 0, 0, 3, 0];
    body.extend((1_u64 << 3).to_le_bytes()); // characteristics: not supported
    body.extend([0, 1 << 4]); // ... but of a virtual machine
    body.extend([0xff; 4]); // no release numbers
    (0, body, vec!["netd".to_owned(), env!("CARGO_PKG_VERSION").to_owned(), "01/01/2025".to_owned()])
}

/// The system (type 1, §7.2): manufacturer, product, version, serial number, UUID, wake-up by power switch.
fn machine(system: &System) -> Structure {
    let [a, b, c, d, e, f, g, h, rest @ ..] = system.uuid;
    let mut body = vec![1, 2, 3, if system.serial.is_empty() { 0 } else { 4 }];
    // The first three fields of a UUID are little-endian here.
    body.extend([d, c, b, a, f, e, h, g]);
    body.extend(rest);
    body.extend([6, 0, 0]);
    let mut strings = vec!["netd".to_owned(), "vmm".to_owned(), env!("CARGO_PKG_VERSION").to_owned()];
    strings.extend((!system.serial.is_empty()).then(|| system.serial.clone()));
    (1, body, strings)
}

/// The enclosure (type 3, §7.4): of the kind "other", all well.
fn chassis() -> Structure {
    let mut body = vec![1, 1, 0, 0, 0, 3, 3, 3, 2];
    body.extend([0; 8]); // OEM, height, power cords, no contained elements
    body.push(0);
    (3, body, vec!["netd".to_owned()])
}

/// The end (type 127).
fn end() -> Structure {
    (127, Vec::new(), Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(serial: &str) -> System {
        System { serial: serial.to_owned(), uuid: std::array::from_fn(|i| i as u8) }
    }

    /// Type, fields and strings of each structure, as a reader walks them.
    fn walk(block: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        assert_eq!(&block[..5], b"_SM3_");
        assert_eq!(block[..24].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        let length = u32::from_le_bytes(block[12..16].try_into().unwrap()) as usize;
        assert_eq!(u64::from_le_bytes(block[16..24].try_into().unwrap()), layout::SMBIOS + 24);
        let mut rest = &block[24..24 + length];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let (fields, after) = rest.split_at(rest[1] as usize);
            let end = after.windows(2).position(|pair| pair == [0, 0]).unwrap();
            let strings = after[..end].split(|byte| *byte == 0).filter(|text| !text.is_empty());
            let strings = strings.map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
            found.push((fields[0], fields.to_vec(), strings));
            rest = &after[end + 2..];
        }
        found
    }

    #[test]
    fn a_reader_finds_every_structure_and_its_strings() {
        let found = walk(&tables(&system("ds=nocloud;s=http://10.0.0.1/")));
        assert_eq!(found.iter().map(|(kind, ..)| *kind).collect::<Vec<_>>(), [0, 1, 3, 127]);
        let (_, fields, strings) = &found[1];
        assert_eq!((fields.len(), strings[fields[7] as usize - 1].as_str()), (27, "ds=nocloud;s=http://10.0.0.1/"));
        assert_eq!(fields[8..24], [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!((found[0].1.len(), found[2].1.len()), (24, 22));
    }

    #[test]
    fn no_serial_number_is_no_string_and_the_longest_fits_its_place() {
        let found = walk(&tables(&system("")));
        assert_eq!((found[1].1[7], found[1].2.len()), (0, 3));
        let longest = tables(&system(&"x".repeat(crate::config::LONGEST_SERIAL)));
        assert!(layout::SMBIOS + longest.len() as u64 <= layout::RESET_VECTOR);
    }
}
