//! What the guest says about its memory (virtio 1.2 §5.5.6.3): bytes in, values out.

/// Bytes of one entry: a tag and a value, packed.
const ENTRY: usize = 10;

/// Entries looked at; drivers send about a dozen.
const MOST: usize = 32;

/// Bytes of a report that are looked at.
pub(super) const LONGEST: usize = ENTRY * MOST;

/// A guest's memory by its own account; a value it does not give is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Bytes nobody uses.
    pub(crate) free: Option<u64>,
    /// Bytes there are, for the guest's own view.
    pub(crate) total: Option<u64>,
    /// Bytes that could be had without swapping.
    pub(crate) available: Option<u64>,
    /// Bytes of files kept in memory.
    pub(crate) caches: Option<u64>,
    /// Bytes swapped in and out since it booted.
    pub(crate) swapped_in: Option<u64>,
    pub(crate) swapped_out: Option<u64>,
    /// Page faults since it booted: those that read a disk, and the others.
    pub(crate) major_faults: Option<u64>,
    pub(crate) minor_faults: Option<u64>,
}

/// Reads a report; entries with tags we don't know, and a rest that is no whole entry, are left out.
pub(super) fn parse(bytes: &[u8]) -> Stats {
    let mut stats = Stats::default();
    for entry in bytes.as_chunks::<ENTRY>().0.iter().take(MOST) {
        let [t0, t1, value @ ..] = *entry;
        let value = u64::from_le_bytes(value);
        let place = match u16::from_le_bytes([t0, t1]) {
            0 => &mut stats.swapped_in,
            1 => &mut stats.swapped_out,
            2 => &mut stats.major_faults,
            3 => &mut stats.minor_faults,
            4 => &mut stats.free,
            5 => &mut stats.total,
            6 => &mut stats.available,
            7 => &mut stats.caches,
            _ => continue,
        };
        // "Not known" is all ones.
        *place = (value != u64::MAX).then_some(value);
    }
    stats
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_tags_are_taken_and_everything_else_is_left_out() {
        let entry = |tag: u16, value: u64| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat();
        let report = [entry(4, 100), entry(5, 200), entry(99, 7), entry(6, u64::MAX), vec![7, 0, 1]].concat();
        assert_eq!(parse(&report), Stats { free: Some(100), total: Some(200), ..Stats::default() });
        assert_eq!(parse(&[]), Stats::default());
    }
}
