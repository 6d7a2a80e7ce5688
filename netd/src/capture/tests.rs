//! Files read back block by block; the kernel tests have them read by other programs.

use super::*;

/// A file's blocks: type and body.
fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut found = Vec::new();
    while !file.is_empty() {
        let length = word(file, 4) as usize;
        assert_eq!(length % 4, 0);
        assert_eq!(word(file, length - 4) as usize, length, "the length stands at both ends");
        found.push((word(file, 0), file[8..length - 4].to_vec()));
        file = &file[length..];
    }
    found
}

fn frame(interface: u32, bytes: &[u8]) -> Frame<'_> {
    let at = Duration::new(1_700_000_000, 123_456_789);
    Frame { interface, at, bytes, original: bytes.len() as u32, direction: Direction::of(libc::PACKET_OUTGOING) }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_file_names_its_interfaces_and_guests_and_keeps_nanoseconds_and_directions() {
    let mut recording = Recording::new(WHOLE_FRAME, None);
    assert_eq!(recording.interface("vnet0", "guest vm1, network default"), 0);
    assert_eq!(recording.interface("vnet1", ""), 1);
    let names: [(IpAddr, String); 2] =
        [([10, 0, 0, 7].into(), "vm1".into()), ("fe80::7".parse().unwrap(), "vm1".into())];
    recording.names(names.clone());
    recording.names(names);
    recording.frame(frame(1, b"12345678901234 odd"), None);
    recording.statistics(1, Duration::from_secs(1_700_000_001), 1, 2);
    let mut file = recording.take();
    assert_eq!(recording.frames(), 1);
    file.extend(recording.finish());
    let blocks = blocks(&file);
    let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [0x0a0d_0d0a, 1, 1, 4, 6, 5], "names are written once");
    assert!(contains(&blocks[1].1, b"vnet0") && contains(&blocks[1].1, b"guest vm1, network default"));
    assert!(contains(&blocks[3].1, b"\x01\0\x08\0\x0a\0\0\x07vm1\0"));
    let body = &blocks[4].1;
    let nanos = 1_700_000_000_123_456_789_u64;
    assert_eq!(body[..4], [1, 0, 0, 0]);
    assert_eq!(body[4..12], [(nanos >> 32) as u32, nanos as u32].map(u32::to_le_bytes).concat()[..]);
    assert_eq!(body[12..20], [18, 0, 0, 0, 18, 0, 0, 0]);
    assert!(body.ends_with(&[2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]), "outgoing: {body:?}");
    assert!(contains(&blocks[5].1, &[4, 0, 8, 0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 0, 8, 0, 2]));
}

#[test]
fn a_ring_keeps_the_newest_frames_and_writes_them_at_the_end() {
    let mut recording = Recording::new(WHOLE_FRAME, Some(10_000));
    recording.interface("vnet0", "");
    for number in 0..1000_u32 {
        let mut bytes = [0; 100];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        recording.frame(frame(0, &bytes), None);
        assert!(recording.take().is_empty());
    }
    recording.statistics(0, Duration::ZERO, 1000, 0);
    let left_out = recording.left_out();
    let file = recording.finish();
    assert!(file.len() < 10_500, "{}", file.len());
    let blocks = blocks(&file);
    assert_eq!((blocks[0].0, blocks[1].0, blocks.last().unwrap().0), (0x0a0d_0d0a, 1, 5));
    let frames: Vec<u32> = blocks
        .iter()
        .filter(|(kind, _)| *kind == 6)
        .map(|(_, body)| u32::from_le_bytes(body[20..24].try_into().unwrap()))
        .collect();
    assert_eq!(frames, (u32::try_from(left_out).unwrap()..1000).collect::<Vec<_>>());
}

#[test]
fn a_ring_that_is_too_small_for_a_frame_is_an_empty_file() {
    let mut recording = Recording::new(WHOLE_FRAME, Some(10));
    recording.interface("vnet0", "");
    recording.frame(frame(0, &[0; 100]), None);
    assert_eq!(recording.left_out(), 1);
    assert_eq!(blocks(&recording.finish()).len(), 2);
}

#[test]
fn a_vlan_tag_is_put_back_where_it_was() {
    let mut recording = Recording::new(64, None);
    recording.interface("vnet0", "");
    recording.take();
    recording.frame(frame(0, b"to....from..\x08\x06payload"), Some((0x8100, 5)));
    recording.frame(frame(0, &[7; 64]), Some((0x8100, 5)));
    let blocks = blocks(&recording.take());
    assert_eq!(&blocks[0].1[12..20], [25, 0, 0, 0, 25, 0, 0, 0]);
    assert_eq!(&blocks[0].1[20..45], b"to....from..\x81\x00\x00\x05\x08\x06payload");
    assert_eq!(&blocks[1].1[12..20], [64, 0, 0, 0, 68, 0, 0, 0], "never longer than asked for");
}
