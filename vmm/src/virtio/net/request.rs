//! Commands on the control queue (virtio 1.2 §5.1.6.5): bytes in, a checked command out.

use virtio_bindings::bindings::virtio_net::{VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET};

/// Bytes of the longest command we know: class, command, number of pairs.
pub(super) const LONGEST: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Use so many queue pairs from now on; between 1 and what the device has.
    Pairs(usize),
}

/// `None` for a command we don't offer, or one out of range; the driver is told so.
pub(super) fn parse(bytes: &[u8], pairs: usize) -> Option<Command> {
    match *bytes {
        [class, command, low, high]
            if u32::from(class) == VIRTIO_NET_CTRL_MQ && u32::from(command) == VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET =>
        {
            let wanted = usize::from(u16::from_le_bytes([low, high]));
            (1..=pairs).contains(&wanted).then_some(Command::Pairs(wanted))
        }
        _ => None,
    }
}
