//! Which features a NIC offers, which subsets make sense, and what they mean for the tap (virtio 1.2 §5.1.3).

use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::net::Offloads;

/// What a NIC of `pairs` queue pairs offers.
pub(super) fn offered(pairs: usize) -> u64 {
    let bits = [
        VIRTIO_NET_F_CSUM,
        VIRTIO_NET_F_GUEST_CSUM,
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
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
    ];
    let several = if pairs > 1 { bit(VIRTIO_NET_F_CTRL_VQ) | bit(VIRTIO_NET_F_MQ) } else { 0 };
    bits.into_iter().fold(several, |all, feature| all | bit(feature))
}

/// Whether every feature has what it requires (§5.1.3.1).
pub(super) fn consistent(features: u64) -> bool {
    const GUEST_TSO: [u32; 2] = [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6];
    const HOST_TSO: [u32; 2] = [VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6];
    let requirements: [(u32, &[u32]); 7] = [
        (VIRTIO_NET_F_GUEST_TSO4, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_TSO6, &[VIRTIO_NET_F_GUEST_CSUM]),
        (VIRTIO_NET_F_GUEST_ECN, &GUEST_TSO),
        (VIRTIO_NET_F_HOST_TSO4, &[VIRTIO_NET_F_CSUM]),
        (VIRTIO_NET_F_HOST_TSO6, &[VIRTIO_NET_F_CSUM]),
        (VIRTIO_NET_F_HOST_ECN, &HOST_TSO),
        (VIRTIO_NET_F_MQ, &[VIRTIO_NET_F_CTRL_VQ]),
    ];
    requirements.iter().all(|(feature, any_of)| !has(features, *feature) || any_of.iter().any(|f| has(features, *f)))
}

/// What the guest can take from the tap.
pub(super) fn offloads(features: u64) -> Offloads {
    Offloads {
        checksum: has(features, VIRTIO_NET_F_GUEST_CSUM),
        tso4: has(features, VIRTIO_NET_F_GUEST_TSO4),
        tso6: has(features, VIRTIO_NET_F_GUEST_TSO6),
        ecn: has(features, VIRTIO_NET_F_GUEST_ECN),
    }
}

/// Whether a received frame may be spread over several buffers.
pub(super) fn mergeable(features: u64) -> bool {
    has(features, VIRTIO_NET_F_MRG_RXBUF)
}

/// Whether there are several queue pairs and a control queue behind them.
pub(super) fn multi_queue(features: u64) -> bool {
    has(features, VIRTIO_NET_F_MQ)
}

fn bit(feature: u32) -> u64 {
    1 << feature
}

fn has(features: u64, feature: u32) -> bool {
    features & bit(feature) != 0
}
