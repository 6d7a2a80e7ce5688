//! Which features a NIC offers, which subsets make sense, and what they mean for the tap (virtio 1.2 §5.1.3).

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX,
    VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::request::{Command, Mode};
use crate::net::Offloads;

/// What a NIC of `pairs` queue pairs offers; `uso` if its tap takes large UDP packets.
pub(super) fn offered(pairs: usize, uso: bool) -> u64 {
    let bits = [
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
        VIRTIO_NET_F_MTU,
        VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6,
        VIRTIO_NET_F_GUEST_ECN,
        VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN,
        VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_NET_F_STATUS,
        VIRTIO_NET_F_CTRL_VQ,
        VIRTIO_NET_F_CTRL_RX,
        VIRTIO_NET_F_CTRL_RX_EXTRA,
        VIRTIO_NET_F_CTRL_MAC_ADDR,
        VIRTIO_NET_F_GUEST_ANNOUNCE,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
    ];
    let several = if pairs > 1 { bit(VIRTIO_NET_F_MQ) } else { 0 };
    let large_udp = [VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6];
    let large_udp = large_udp.into_iter().filter(|_| uso);
    bits.into_iter().chain(large_udp).fold(several, |all, feature| all | bit(feature))
}

/// Whether every feature has what it requires (§5.1.3.1).
pub(super) fn consistent(features: u64) -> bool {
    const GUEST_TSO: [u32; 2] = [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6];
    const HOST_TSO: [u32; 2] = [VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6];
    const CONTROL: [u32; 1] = [VIRTIO_NET_F_CTRL_VQ];
    let requirements: [(u32, &[u32]); 14] = [
        (VIRTIO_NET_F_GUEST_TSO4, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_TSO6, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_USO4, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_USO6, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_ECN, &GUEST_TSO),
        (VIRTIO_NET_F_HOST_TSO4, &[VIRTIO_NET_F_CSUM]),
        (VIRTIO_NET_F_HOST_TSO6, &[VIRTIO_NET_F_CSUM]),
        (VIRTIO_NET_F_HOST_USO, &[VIRTIO_NET_F_CSUM]),
        (VIRTIO_NET_F_HOST_ECN, &HOST_TSO),
        (VIRTIO_NET_F_MQ, &CONTROL),
        (VIRTIO_NET_F_CTRL_RX, &CONTROL),
        (VIRTIO_NET_F_CTRL_RX_EXTRA, &CONTROL),
        (VIRTIO_NET_F_CTRL_MAC_ADDR, &CONTROL),
        (VIRTIO_NET_F_GUEST_ANNOUNCE, &CONTROL),
    ];
    requirements.iter().all(|(feature, any_of)| !has(features, *feature) || any_of.iter().any(|f| has(features, *f)))
}

/// Feature bits that are offloads the guest takes from the tap, which it may turn off and on again.
const GUEST_OFFLOADS: [u32; 6] = [
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
];

/// Whether what was negotiated has this command.
pub(super) fn allows(features: u64, command: &Command) -> bool {
    match command {
        Command::Receive(Mode::Promiscuous | Mode::AllMulticast, _) | Command::Tables(..) => {
            has(features, VIRTIO_NET_F_CTRL_RX)
        }
        Command::Receive(..) => has(features, VIRTIO_NET_F_CTRL_RX_EXTRA),
        Command::Mac(_) => has(features, VIRTIO_NET_F_CTRL_MAC_ADDR),
        Command::Announced => announces(features),
        Command::Pairs(_) => multi_queue(features),
        Command::Offloads(wanted) => {
            let negotiated = GUEST_OFFLOADS.iter().filter(|f| has(features, **f)).fold(0, |all, f| all | bit(*f));
            has(features, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) && wanted & !negotiated == 0
        }
    }
}

/// What the guest can take from the tap.
pub(super) fn offloads(features: u64) -> Offloads {
    Offloads {
        checksum: has(features, VIRTIO_NET_F_GUEST_CSUM),
        tso4: has(features, VIRTIO_NET_F_GUEST_TSO4),
        tso6: has(features, VIRTIO_NET_F_GUEST_TSO6),
        ecn: has(features, VIRTIO_NET_F_GUEST_ECN),
        // The kernel has one switch for both.
        uso: has(features, VIRTIO_NET_F_GUEST_USO4) && has(features, VIRTIO_NET_F_GUEST_USO6),
    }
}

/// Whether a received frame may be spread over several buffers.
pub(super) fn mergeable(features: u64) -> bool {
    has(features, VIRTIO_NET_F_MRG_RXBUF)
}

/// Whether there are several queue pairs.
pub(super) fn multi_queue(features: u64) -> bool {
    has(features, VIRTIO_NET_F_MQ)
}

/// Whether there is a control queue behind the pairs.
pub(super) fn control(features: u64) -> bool {
    has(features, VIRTIO_NET_F_CTRL_VQ)
}

/// Whether the driver announces itself when asked.
pub(super) fn announces(features: u64) -> bool {
    has(features, VIRTIO_NET_F_GUEST_ANNOUNCE)
}

fn bit(feature: u32) -> u64 {
    1 << feature
}

fn has(features: u64, feature: u32) -> bool {
    features & bit(feature) != 0
}
