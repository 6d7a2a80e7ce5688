//! What the threads of one NIC share, with each other and with whoever changes the NIC while it runs: its link, its
//! receive filter, its counters.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use virtio_bindings::bindings::virtio_net::{VIRTIO_NET_S_ANNOUNCE, VIRTIO_NET_S_LINK_UP};

use super::filter::{Address, Filter};
use crate::pci::lock;
use crate::virtio::DeviceConfig;
use crate::virtio::throttle::Limiter;

/// Where MAC and status are in `struct virtio_net_config` (§5.1.4).
const CONFIG_MAC: usize = 0;
const CONFIG_STATUS: usize = 6;

/// A NIC as its threads see it.
pub(crate) struct Nic {
    config: Arc<DeviceConfig>,
    mac: Address,
    link_up: AtomicBool,
    filter: Mutex<Filter>,
    /// Moves with each change of the filter, so that a thread knows whether its copy is still true.
    filter_version: AtomicU32,
    /// The driver negotiated GUEST_ANNOUNCE.
    announces: AtomicBool,
    pub(super) received: Traffic,
    pub(super) sent: Traffic,
    receive_limit: Arc<Limiter>,
    send_limit: Arc<Limiter>,
}

/// Frames in one direction since the machine was built.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    frames: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    filtered: AtomicU64,
}

/// The same at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Frames that arrived at the other side.
    pub(crate) frames: u64,
    /// Their bytes, without the virtio header.
    pub(crate) bytes: u64,
    /// Frames that were lost: no room for them, a link that is down, a tap that refused them.
    pub(crate) dropped: u64,
    /// Frames the driver had not asked for.
    pub(crate) filtered: u64,
}

impl Traffic {
    /// Adds what one thread has counted, and has it start from nothing.
    pub(super) fn add(&self, count: &mut Count) {
        let Count { frames, bytes, dropped, filtered } = std::mem::take(count);
        for (total, more) in
            [(&self.frames, frames), (&self.bytes, bytes), (&self.dropped, dropped), (&self.filtered, filtered)]
        {
            if more > 0 {
                total.fetch_add(more, Ordering::Relaxed);
            }
        }
    }

    fn count(&self) -> Count {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Count {
            frames: of(&self.frames),
            bytes: of(&self.bytes),
            dropped: of(&self.dropped),
            filtered: of(&self.filtered),
        }
    }
}

impl Nic {
    /// `config` holds MAC and status.
    pub(super) fn new(config: Arc<DeviceConfig>, mac: Address) -> Self {
        Self {
            config,
            mac,
            link_up: AtomicBool::new(true),
            filter: Mutex::new(Filter::new(mac)),
            filter_version: AtomicU32::new(0),
            announces: AtomicBool::new(false),
            received: Traffic::default(),
            sent: Traffic::default(),
            receive_limit: Arc::default(),
            send_limit: Arc::default(),
        }
    }

    /// Plugs the cable in or pulls it. While it is out, frames are lost both ways. A driver that can is asked to announce
    /// itself when it is back: whoever switches its frames may have forgotten where it is.
    pub(crate) fn set_link(&self, up: bool) {
        if self.link_up.swap(up, Ordering::AcqRel) == up {
            return;
        }
        let announce = if self.announces.load(Ordering::Acquire) { VIRTIO_NET_S_ANNOUNCE } else { 0 };
        let status = if up { VIRTIO_NET_S_LINK_UP | announce } else { 0 };
        self.config.set(CONFIG_STATUS, &(status as u16).to_le_bytes());
    }

    pub(crate) fn is_link_up(&self) -> bool {
        self.link_up.load(Ordering::Acquire)
    }

    /// What was received by the guest, and what it sent.
    pub(crate) fn counts(&self) -> (Count, Count) {
        (self.received.count(), self.sent.count())
    }

    /// How fast the guest may receive, and send.
    pub(crate) fn limits(&self) -> [&Arc<Limiter>; 2] {
        [&self.receive_limit, &self.send_limit]
    }

    /// The address the NIC was made with.
    pub(crate) fn mac(&self) -> Address {
        self.mac
    }

    /// The driver announced itself.
    pub(super) fn announced(&self) {
        let up = if self.is_link_up() { VIRTIO_NET_S_LINK_UP } else { 0 };
        self.config.set_as_asked(CONFIG_STATUS, &(up as u16).to_le_bytes());
    }

    pub(super) fn set_announces(&self, announces: bool) {
        self.announces.store(announces, Ordering::Release);
    }

    /// The driver has another address.
    pub(super) fn set_mac(&self, mac: Address) {
        self.config.set_as_asked(CONFIG_MAC, &mac);
        self.change_filter(|filter| filter.set_mac(mac));
    }

    pub(super) fn change_filter(&self, change: impl FnOnce(&mut Filter)) {
        change(&mut lock(&self.filter));
        self.filter_version.fetch_add(1, Ordering::Release);
    }

    /// Brings a thread's copy of the filter up to date; most of the time it is.
    pub(super) fn refresh(&self, copy: &mut (u32, Filter)) {
        let version = self.filter_version.load(Ordering::Acquire);
        if copy.0 != version {
            *copy = (version, lock(&self.filter).clone());
        }
    }

    /// A copy for [`Nic::refresh`].
    pub(super) fn filter(&self) -> (u32, Filter) {
        (self.filter_version.load(Ordering::Acquire), lock(&self.filter).clone())
    }

    /// The driver is gone: what it had set is forgotten, the link stays as it is.
    pub(super) fn reset(&self) {
        self.set_announces(false);
        self.announced();
        self.config.set_as_asked(CONFIG_MAC, &self.mac);
        self.change_filter(|filter| *filter = Filter::new(self.mac));
    }
}
