//! What a discard or a write of zeros is about (virtio 1.2 §5.2.6): the segments' bytes in, checked ranges out.

use virtio_bindings::bindings::virtio_blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

use super::request::{Disk, Refusal, SECTOR};

/// Segments a request may have, and sectors each of them may have. Zeros may have to be written, so there are fewer.
pub(super) const DISCARD_SEGMENTS: usize = 64;
pub(super) const DISCARD_SECTORS: u32 = 1 << 22;
pub(super) const ZERO_SEGMENTS: usize = 1;
pub(super) const ZERO_SECTORS: u32 = 1 << 16;

/// Bytes of a segment: first sector, sectors, flags.
pub(super) const SEGMENT: usize = 16;

/// Bytes of the longest request.
pub(super) const LONGEST: usize = SEGMENT * DISCARD_SEGMENTS;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Discard,
    Zero,
}

/// A part of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Zeros, and the image need not keep room for them.
    pub(super) unmap: bool,
}

/// The segments of a request; all of them are in order, or none is touched.
pub(super) fn parse(kind: Kind, bytes: &[u8], disk: Disk) -> Result<Vec<Range>, Refusal> {
    let (most, sectors) = match kind {
        Kind::Discard => (DISCARD_SEGMENTS, DISCARD_SECTORS),
        Kind::Zero => (ZERO_SEGMENTS, ZERO_SECTORS),
    };
    let (segments, rest) = bytes.as_chunks::<SEGMENT>();
    if segments.is_empty() || segments.len() > most || !rest.is_empty() {
        return Err(Refusal::Segments { bytes: bytes.len() });
    }
    segments.iter().map(|segment| range(kind, segment, sectors, disk)).collect()
}

fn range(kind: Kind, segment: &[u8; SEGMENT], most: u32, disk: Disk) -> Result<Range, Refusal> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, c0, c1, c2, c3, flags @ ..] = *segment;
    let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let count = u32::from_le_bytes([c0, c1, c2, c3]);
    let flags = u32::from_le_bytes(flags);
    let known = if kind == Kind::Zero { VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP } else { 0 };
    if flags & !known != 0 {
        return Err(Refusal::Flags(flags));
    }
    let bytes = u64::from(count) * SECTOR;
    let offset = sector.checked_mul(SECTOR).filter(|offset| {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= disk.bytes);
        inside && count <= most && offset.is_multiple_of(disk.block) && bytes.is_multiple_of(disk.block)
    });
    let offset = offset.ok_or(Refusal::Range { sector, bytes: bytes as usize })?;
    Ok(Range { offset, bytes, unmap: kind == Kind::Discard || flags != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk { bytes: 1 << 30, readonly: false, block: 512 };

    fn segment(sector: u64, count: u32, flags: u32) -> Vec<u8> {
        [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
    }

    #[test]
    fn segments_inside_the_disk_are_ranges() {
        let two = [segment(1, 2, 0), segment(100, 0, 0)].concat();
        let range = |offset, bytes, unmap| Range { offset, bytes, unmap };
        assert_eq!(parse(Kind::Discard, &two, DISK), Ok(vec![range(512, 1024, true), range(51_200, 0, true)]));
        assert_eq!(parse(Kind::Zero, &two[..16], DISK), Ok(vec![range(512, 1024, false)]));
        assert_eq!(parse(Kind::Zero, &segment(0, 1, 1), DISK), Ok(vec![range(0, 512, true)]));
    }

    #[test]
    fn anything_else_is_refused_as_a_whole() {
        for (kind, bytes) in [
            (Kind::Discard, vec![]),
            (Kind::Discard, vec![0; 15]),
            (Kind::Discard, vec![0; 17]),
            (Kind::Discard, vec![0; SEGMENT * (DISCARD_SEGMENTS + 1)]),
            (Kind::Zero, vec![0; 2 * SEGMENT]),
            (Kind::Zero, segment(0, ZERO_SECTORS + 1, 0)),
            (Kind::Discard, segment(0, DISCARD_SECTORS + 1, 0)),
            (Kind::Discard, segment(1 << 21, 1, 0)),
            (Kind::Discard, segment((1 << 21) - 1, 2, 0)),
            (Kind::Discard, segment(u64::MAX, 1, 0)),
            (Kind::Discard, [segment(0, 1, 0), segment(u64::MAX / 512, 1, 0)].concat()),
            (Kind::Discard, segment(0, 1, 1)),
            (Kind::Zero, segment(0, 1, 2)),
        ] {
            assert!(parse(kind, &bytes, DISK).is_err(), "{kind:?} {bytes:?}");
        }
        let large = Disk { block: 4096, ..DISK };
        assert!(parse(Kind::Zero, &segment(1, 8, 0), large).is_err());
        assert!(parse(Kind::Zero, &segment(8, 8, 0), large).is_ok());
    }
}
