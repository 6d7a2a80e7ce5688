//! Commands on the control queue (virtio 1.2 §5.1.6.5): bytes in, a checked command out.

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK, VIRTIO_NET_CTRL_GUEST_OFFLOADS,
    VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET,
    VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_CTRL_RX,
    VIRTIO_NET_CTRL_RX_ALLMULTI, VIRTIO_NET_CTRL_RX_ALLUNI, VIRTIO_NET_CTRL_RX_NOBCAST, VIRTIO_NET_CTRL_RX_NOMULTI,
    VIRTIO_NET_CTRL_RX_NOUNI, VIRTIO_NET_CTRL_RX_PROMISC,
};

use super::filter::{Address, MOST, Table};

/// Bytes of a command that are looked at: two full tables of addresses fit.
pub(super) const LONGEST: usize = 2 + 2 * (4 + 6 * MOST);

/// A mode of the receive filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Promiscuous,
    AllMulticast,
    AllUnicast,
    NoMulticast,
    NoUnicast,
    NoBroadcast,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Turn a mode of the receive filter on or off.
    Receive(Mode, bool),
    /// These are the unicast and multicast addresses wanted beside the NIC's own.
    Tables(Table, Table),
    /// The NIC has another address from now on.
    Mac(Address),
    /// The driver has announced itself.
    Announced,
    /// Use so many queue pairs from now on; between 1 and what the device has.
    Pairs(usize),
    /// The guest takes these offloads, as feature bits, and no others from now on.
    Offloads(u64),
}

/// `None` for a command we don't offer, or one out of range; the driver is told so. `bytes` are the first [`LONGEST`] of
/// `length`.
pub(super) fn parse(bytes: &[u8], length: usize, pairs: usize) -> Option<Command> {
    let (&[class, command], rest) = bytes.split_first_chunk::<2>()?;
    match (u32::from(class), u32::from(command)) {
        (VIRTIO_NET_CTRL_RX, command) => {
            let &[on] = rest else { return None };
            Some(Command::Receive(mode(command)?, on != 0))
        }
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) => tables(rest, length > bytes.len()),
        (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) => {
            let mac: Address = rest.try_into().ok()?;
            (mac[0] & 1 == 0 && mac != [0; 6]).then_some(Command::Mac(mac))
        }
        (VIRTIO_NET_CTRL_ANNOUNCE, VIRTIO_NET_CTRL_ANNOUNCE_ACK) => rest.is_empty().then_some(Command::Announced),
        (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) => {
            let wanted = usize::from(u16::from_le_bytes(rest.try_into().ok()?));
            (1..=pairs).contains(&wanted).then_some(Command::Pairs(wanted))
        }
        (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET) => {
            Some(Command::Offloads(u64::from_le_bytes(rest.try_into().ok()?)))
        }
        _ => None,
    }
}

fn mode(command: u32) -> Option<Mode> {
    Some(match command {
        VIRTIO_NET_CTRL_RX_PROMISC => Mode::Promiscuous,
        VIRTIO_NET_CTRL_RX_ALLMULTI => Mode::AllMulticast,
        VIRTIO_NET_CTRL_RX_ALLUNI => Mode::AllUnicast,
        VIRTIO_NET_CTRL_RX_NOMULTI => Mode::NoMulticast,
        VIRTIO_NET_CTRL_RX_NOUNI => Mode::NoUnicast,
        VIRTIO_NET_CTRL_RX_NOBCAST => Mode::NoBroadcast,
        _ => return None,
    })
}

/// Two tables, each a number of addresses and the addresses. A command longer than was looked at names more than are kept.
fn tables(bytes: &[u8], cut_off: bool) -> Option<Command> {
    if cut_off {
        return Some(Command::Tables(Table::everything(), Table::everything()));
    }
    let (unicast, rest) = table(bytes)?;
    let (multicast, rest) = table(rest)?;
    rest.is_empty().then_some(Command::Tables(unicast, multicast))
}

fn table(bytes: &[u8]) -> Option<(Table, &[u8])> {
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (addresses, rest) = rest.split_at_checked(count.checked_mul(6)?)?;
    let addresses = addresses.as_chunks::<6>().0;
    Some((Table::new(addresses.iter().copied()), rest))
}
