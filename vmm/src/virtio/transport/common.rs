//! The common configuration registers (virtio 1.2 §4.1.4.3) as plain state.
//!
//! A write answers what it means for the device ([`Effect`]); the transport acts on it. Registers are written in their
//! natural width, 64-bit ones also by halves (§4.1.3.1); any other write does nothing. Reads of any width work.

use std::ops::Range;

use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK,
};

/// Status bits (§2.1).
pub(super) const ACKNOWLEDGE: u8 = VIRTIO_CONFIG_S_ACKNOWLEDGE as u8;
pub(super) const DRIVER: u8 = VIRTIO_CONFIG_S_DRIVER as u8;
pub(super) const DRIVER_OK: u8 = VIRTIO_CONFIG_S_DRIVER_OK as u8;
pub(super) const FEATURES_OK: u8 = VIRTIO_CONFIG_S_FEATURES_OK as u8;
pub(super) const NEEDS_RESET: u8 = 0x40;
pub(super) const FAILED: u8 = VIRTIO_CONFIG_S_FAILED as u8;

/// Offsets of the registers.
pub(crate) mod reg {
    pub(crate) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(crate) const DEVICE_FEATURE: u64 = 4;
    pub(crate) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(crate) const DRIVER_FEATURE: u64 = 12;
    pub(crate) const CONFIG_VECTOR: u64 = 16;
    pub(crate) const NUM_QUEUES: u64 = 18;
    pub(crate) const STATUS: u64 = 20;
    pub(crate) const GENERATION: u64 = 21;
    pub(crate) const QUEUE_SELECT: u64 = 22;
    pub(crate) const QUEUE_SIZE: u64 = 24;
    pub(crate) const QUEUE_VECTOR: u64 = 26;
    pub(crate) const QUEUE_ENABLE: u64 = 28;
    pub(crate) const QUEUE_NOTIFY_OFF: u64 = 30;
    pub(crate) const QUEUE_DESC: u64 = 32;
    pub(crate) const QUEUE_DRIVER: u64 = 40;
    pub(crate) const QUEUE_DEVICE: u64 = 48;
    /// Bytes of registers; `queue_notify_data` and `queue_reset` behind them are of features we don't offer.
    pub(crate) const SIZE: usize = 56;
}

/// What the driver set up for one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct QueueSetup {
    /// Entries offered; a power of two.
    pub(super) max_size: u16,
    /// Entries chosen; a power of two.
    pub(super) size: u16,
    pub(super) enabled: bool,
    /// Guest-physical addresses of the descriptor table, the available and the used ring.
    pub(super) descriptors: u64,
    pub(super) available: u64,
    pub(super) used: u64,
}

/// What a write asks for beyond the register itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    /// Status was written 0: stop everything, then call [`CommonRegisters::reset`].
    Reset,
    /// The driver proposes its features: call [`CommonRegisters::accept_features`] if they will do.
    ProposeFeatures,
    /// The driver is ready; start. The status has DRIVER_OK already.
    Start,
    ConfigVector(u16),
    QueueVector(u16, u16),
}

/// What the registers show and others keep.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Elsewhere {
    pub(super) config_vector: u16,
    pub(super) queue_vector: u16,
    pub(super) needs_reset: bool,
    /// Of the device configuration.
    pub(super) generation: u8,
}

#[derive(Debug, Clone)]
pub(super) struct CommonRegisters {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueSetup>,
}

impl CommonRegisters {
    pub(super) fn new(offered: u64, queue_sizes: &[u16]) -> Self {
        let queue = |&max_size| QueueSetup { max_size, size: max_size, ..QueueSetup::default() };
        Self {
            offered,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(queue).collect(),
        }
    }

    pub(super) fn reset(&mut self) {
        let sizes: Vec<u16> = self.queues.iter().map(|queue| queue.max_size).collect();
        *self = Self::new(self.offered, &sizes);
    }

    pub(super) fn driver_features(&self) -> u64 {
        self.driver_features
    }

    pub(super) fn accept_features(&mut self) {
        self.status |= FEATURES_OK;
    }

    pub(super) fn queues(&self) -> &[QueueSetup] {
        &self.queues
    }

    pub(super) fn selected_queue(&self) -> u16 {
        self.queue_select
    }

    /// Reads; the values that live elsewhere are passed in.
    pub(super) fn read(&self, offset: u64, data: &mut [u8], elsewhere: Elsewhere) {
        let Elsewhere { config_vector, queue_vector, needs_reset, generation } = elsewhere;
        let mut image = [0u8; reg::SIZE];
        let mut put = |at: u64, bytes: &[u8]| image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        put(reg::DEVICE_FEATURE_SELECT, &self.device_feature_select.to_le_bytes());
        put(reg::DEVICE_FEATURE, &half(self.offered, self.device_feature_select).to_le_bytes());
        put(reg::DRIVER_FEATURE_SELECT, &self.driver_feature_select.to_le_bytes());
        put(reg::DRIVER_FEATURE, &half(self.driver_features, self.driver_feature_select).to_le_bytes());
        put(reg::CONFIG_VECTOR, &config_vector.to_le_bytes());
        put(reg::NUM_QUEUES, &(self.queues.len() as u16).to_le_bytes());
        put(reg::STATUS, &[self.status | if needs_reset { NEEDS_RESET } else { 0 }]);
        put(reg::GENERATION, &[generation]);
        put(reg::QUEUE_SELECT, &self.queue_select.to_le_bytes());
        // A queue that does not exist has size 0 (§4.1.4.3); its other registers read as zero too.
        if let Some(queue) = self.queues.get(usize::from(self.queue_select)) {
            put(reg::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(reg::QUEUE_ENABLE, &u16::from(queue.enabled).to_le_bytes());
            put(reg::QUEUE_NOTIFY_OFF, &self.queue_select.to_le_bytes());
            put(reg::QUEUE_DESC, &queue.descriptors.to_le_bytes());
            put(reg::QUEUE_DRIVER, &queue.available.to_le_bytes());
            put(reg::QUEUE_DEVICE, &queue.used.to_le_bytes());
        }
        put(reg::QUEUE_VECTOR, &queue_vector.to_le_bytes());
        let from = usize::try_from(offset).unwrap_or(reg::SIZE).min(reg::SIZE);
        let len = data.len().min(reg::SIZE - from);
        data[..len].copy_from_slice(&image[from..from + len]);
        data[len..].fill(0);
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match (offset, data) {
            (reg::DEVICE_FEATURE_SELECT, &[a, b, c, d]) => {
                self.device_feature_select = u32::from_le_bytes([a, b, c, d])
            }
            (reg::DRIVER_FEATURE_SELECT, &[a, b, c, d]) => {
                self.driver_feature_select = u32::from_le_bytes([a, b, c, d])
            }
            (reg::DRIVER_FEATURE, &[a, b, c, d]) => self.set_driver_feature(u32::from_le_bytes([a, b, c, d])),
            (reg::CONFIG_VECTOR, &[a, b]) => return Effect::ConfigVector(u16::from_le_bytes([a, b])),
            (reg::STATUS, &[status]) => return self.set_status(status),
            (reg::QUEUE_SELECT, &[a, b]) => self.queue_select = u16::from_le_bytes([a, b]),
            (reg::QUEUE_VECTOR, &[a, b]) => return Effect::QueueVector(self.queue_select, u16::from_le_bytes([a, b])),
            (reg::QUEUE_SIZE..reg::QUEUE_VECTOR | reg::QUEUE_ENABLE.., _) => self.write_queue(offset, data),
            _ => {}
        }
        Effect::None
    }

    fn set_driver_feature(&mut self, bits: u32) {
        if self.status & FEATURES_OK == 0 && self.driver_feature_select < 2 {
            let shift = 32 * self.driver_feature_select;
            self.driver_features = self.driver_features & !(0xffff_ffff << shift) | u64::from(bits) << shift;
        }
    }

    /// Bits are only ever added, in the order of §3.1.1; taking them away is what a reset is for.
    fn set_status(&mut self, status: u8) -> Effect {
        if status == 0 {
            return Effect::Reset;
        }
        let new = status & !self.status;
        self.status |= new & (ACKNOWLEDGE | DRIVER | FAILED);
        if new & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            self.status |= DRIVER_OK;
            Effect::Start
        } else if new & FEATURES_OK != 0 {
            Effect::ProposeFeatures
        } else {
            Effect::None
        }
    }

    /// An enabled queue's registers don't change until the reset (§4.1.4.3.2).
    fn write_queue(&mut self, offset: u64, data: &[u8]) {
        let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)).filter(|queue| !queue.enabled) else {
            return;
        };
        match (offset, data) {
            (reg::QUEUE_SIZE, &[a, b]) => {
                let size = u16::from_le_bytes([a, b]);
                if size.is_power_of_two() && size <= queue.max_size {
                    queue.size = size;
                }
            }
            (reg::QUEUE_ENABLE, &[1, 0]) => queue.enabled = true,
            (reg::QUEUE_DESC..reg::QUEUE_DRIVER, _) => put_address(&mut queue.descriptors, offset, data),
            (reg::QUEUE_DRIVER..reg::QUEUE_DEVICE, _) => put_address(&mut queue.available, offset, data),
            (reg::QUEUE_DEVICE.., _) => put_address(&mut queue.used, offset, data),
            _ => {}
        }
    }
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

/// Writes a 64-bit register as a whole or by one of its halves. All of them start at a multiple of 8.
fn put_address(register: &mut u64, offset: u64, data: &[u8]) {
    let at: Range<usize> = match (offset, data.len()) {
        (reg::QUEUE_DESC | reg::QUEUE_DRIVER | reg::QUEUE_DEVICE, 4 | 8) => 0..data.len(),
        (36 | 44 | 52, 4) => 4..8,
        _ => return,
    };
    let mut bytes = register.to_le_bytes();
    bytes[at].copy_from_slice(data);
    *register = u64::from_le_bytes(bytes);
}
