//! A block request (virtio 1.2 §5.2.6): the header's bytes in, a checked request out. Nothing is read or written here.

use virtio_bindings::bindings::virtio_blk::{
    VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::ranges::Kind;

/// Bytes of a sector, whatever `blk_size` says (§5.2.4).
pub(crate) const SECTOR: u64 = 512;

/// Bytes of the header: type, reserved, sector.
pub(super) const HEADER: usize = 16;

/// What the driver wants, within the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// Fill the buffers from byte `offset` on.
    Read { offset: u64 },
    /// Write the buffers from byte `offset` on.
    Write { offset: u64 },
    /// Make all finished writes durable.
    Flush,
    /// Fill in the serial number.
    GetId,
    /// Act on ranges that the data names.
    Ranges(Kind),
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("request type {0} is not offered")]
    Unsupported(u32),
    #[error("{bytes} bytes at sector {sector} are past the end, or not whole blocks")]
    Range { sector: u64, bytes: usize },
    #[error("a write to a read-only disk")]
    ReadOnly,
    #[error("{bytes} bytes are no segments of a discard, or too many")]
    Segments { bytes: usize },
    #[error("flags {0:#x} of a segment are not offered")]
    Flags(u32),
}

/// The disk, as far as it decides what may be done.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    pub(super) readonly: bool,
    /// Bytes that can be read and written: offsets and lengths are multiples of it.
    pub(super) block: u64,
}

/// `to_disk` and `from_disk` are the bytes of data the driver sends and has room for.
pub(super) fn parse(header: &[u8; HEADER], to_disk: usize, from_disk: usize, disk: Disk) -> Result<Request, Refusal> {
    let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = *header;
    let sector = u64::from_le_bytes(sector);
    let range = |bytes: usize| {
        let offset = sector.checked_mul(SECTOR);
        let inside = |offset: &u64| offset.checked_add(bytes as u64).is_some_and(|end| end <= disk.bytes);
        let whole = |offset: &u64| offset.is_multiple_of(disk.block) && (bytes as u64).is_multiple_of(disk.block);
        offset.filter(|offset| whole(offset) && inside(offset)).ok_or(Refusal::Range { sector, bytes })
    };
    match u32::from_le_bytes([t0, t1, t2, t3]) {
        VIRTIO_BLK_T_IN => Ok(Request::Read { offset: range(from_disk)? }),
        VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if disk.readonly => Err(Refusal::ReadOnly),
        VIRTIO_BLK_T_DISCARD => Ok(Request::Ranges(Kind::Discard)),
        VIRTIO_BLK_T_WRITE_ZEROES => Ok(Request::Ranges(Kind::Zero)),
        VIRTIO_BLK_T_OUT => Ok(Request::Write { offset: range(to_disk)? }),
        VIRTIO_BLK_T_FLUSH => Ok(Request::Flush),
        VIRTIO_BLK_T_GET_ID => Ok(Request::GetId),
        other => Err(Refusal::Unsupported(other)),
    }
}
