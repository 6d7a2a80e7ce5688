//! The MSI-X table, the pending bits and the control register as plain state (PCI Local Bus 3.0 §6.8.2).
//!
//! It says which vectors may be delivered and remembers those that may not; it delivers nothing itself.

use super::MsiMessage;

/// Bytes of one table entry: address low, address high, data, control.
pub(crate) const ENTRY_SIZE: usize = 16;
/// Message control: MSI-X is on.
pub(crate) const CONTROL_ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
pub(crate) const CONTROL_FUNCTION_MASK: u16 = 1 << 14;

/// Byte of an entry that holds the mask bit (bit 0), the only bit of vector control there is.
const VECTOR_CONTROL: usize = 12;

#[derive(Debug, Clone)]
pub(super) struct MsixTable {
    entries: Vec<[u8; ENTRY_SIZE]>,
    pending: Vec<bool>,
    control: u16,
}

impl MsixTable {
    /// `vectors` masked entries, MSI-X off.
    pub(super) fn new(vectors: usize) -> Self {
        let mut masked = [0; ENTRY_SIZE];
        masked[VECTOR_CONTROL] = 1;
        Self { entries: vec![masked; vectors], pending: vec![false; vectors], control: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn set_control(&mut self, control: u16) {
        self.control = control & (CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
        if control & CONTROL_ENABLE == 0 {
            self.pending.fill(false);
        }
    }

    pub(super) fn enabled(&self) -> bool {
        self.control & CONTROL_ENABLE != 0
    }

    /// Reads `data.len()` bytes of the table; past its end zeros.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(i);
            *byte = self.entries.get(at / ENTRY_SIZE).map_or(0, |entry| entry[at % ENTRY_SIZE]);
        }
    }

    /// Writes into the table; past its end nothing.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        for (i, byte) in data.iter().enumerate() {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(i);
            if let Some(entry) = self.entries.get_mut(at / ENTRY_SIZE) {
                entry[at % ENTRY_SIZE] = match at % ENTRY_SIZE {
                    0 => byte & !3, // the message address is a multiple of 4
                    VECTOR_CONTROL => byte & 1,
                    13.. => 0,
                    _ => *byte,
                };
            }
        }
    }

    /// Reads the pending bits, 64 to a group of 8 bytes; past the last vector zeros.
    pub(super) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(i).saturating_mul(8);
            *byte = (0..8).filter(|bit| self.is_pending(at.saturating_add(*bit))).fold(0, |all, bit| all | 1 << bit);
        }
    }

    pub(super) fn is_pending(&self, vector: usize) -> bool {
        self.pending.get(vector).copied().unwrap_or(false)
    }

    pub(super) fn set_pending(&mut self, vector: usize, pending: bool) {
        if let Some(bit) = self.pending.get_mut(vector) {
            *bit = pending;
        }
    }

    /// The message to send for `vector`, if it is not held back by MSI-X being off, the function mask or its own mask.
    pub(super) fn deliverable(&self, vector: usize) -> Option<MsiMessage> {
        let entry = self.entries.get(vector)?;
        if self.control != CONTROL_ENABLE || entry[VECTOR_CONTROL] & 1 != 0 {
            return None;
        }
        let (address, rest) = entry.split_first_chunk::<8>()?;
        let (data, _) = rest.split_first_chunk::<4>()?;
        Some(MsiMessage { address: u64::from_le_bytes(*address), data: u32::from_le_bytes(*data) })
    }
}
