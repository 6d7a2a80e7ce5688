//! Flow control of one connection (virtio 1.2 §5.10.6.3): neither side sends more than the other has room for.
//!
//! Pure. Both sides count bytes over the connection's life, modulo 2^32.

use std::num::Wrapping;

/// Bytes kept for what the guest sends and the host's program has not read yet.
pub(super) const ROOM: u32 = 256 << 10;

/// What both sides said and did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Credit {
    guest_room: u32,
    guest_passed_on: Wrapping<u32>,
    sent: Wrapping<u32>,
    received: Wrapping<u32>,
    passed_on: Wrapping<u32>,
    /// Of `passed_on`, what the guest knows.
    told: Wrapping<u32>,
}

impl Credit {
    /// The guest's header said so.
    pub(super) fn heard(&mut self, buf_alloc: u32, fwd_cnt: u32) {
        self.guest_room = buf_alloc;
        self.guest_passed_on = Wrapping(fwd_cnt);
    }

    /// Bytes the guest has room for.
    pub(super) fn available(&self) -> u32 {
        self.guest_room.saturating_sub((self.sent - self.guest_passed_on).0)
    }

    /// So many were sent to it.
    pub(super) fn sent(&mut self, bytes: u32) {
        self.sent += bytes;
    }

    /// The guest sent so many; false if that is more than it was allowed.
    pub(super) fn received(&mut self, bytes: u32) -> bool {
        self.received += bytes;
        bytes <= ROOM && (self.received - self.passed_on).0 <= ROOM
    }

    /// So many of them are in the hands of the host's program.
    pub(super) fn passed_on(&mut self, bytes: u32) {
        self.passed_on += bytes;
    }

    /// What a header tells the guest: our room, and what was passed on.
    pub(super) fn tell(&mut self) -> (u32, u32) {
        self.told = self.passed_on;
        (ROOM, self.passed_on.0)
    }

    /// Whether the guest should be told, because it believes that half of our room is taken and it is not.
    pub(super) fn is_stale(&self) -> bool {
        (self.passed_on - self.told).0 >= ROOM / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_gets_no_more_than_it_has_room_for_even_if_it_counts_wrongly() {
        let mut credit = Credit::default();
        assert_eq!(credit.available(), 0);
        credit.heard(1000, 0);
        credit.sent(900);
        assert_eq!(credit.available(), 100);
        credit.heard(1000, 900);
        assert_eq!(credit.available(), 1000);
        credit.heard(500, 0);
        assert_eq!(credit.available(), 0, "it took room away");
        credit.heard(1000, 5000);
        assert_eq!(credit.available(), 0, "it passed on what it never got");
    }

    #[test]
    fn the_guest_sends_no_more_than_our_room_and_hears_when_there_is_some() {
        let mut credit = Credit::default();
        assert!(credit.received(ROOM) && !credit.is_stale());
        assert!(!Credit { ..credit }.received(1));
        assert!(!Credit { ..credit }.received(u32::MAX));
        credit.passed_on(ROOM / 2);
        assert!(credit.is_stale());
        assert_eq!(credit.tell(), (ROOM, ROOM / 2));
        assert!(!credit.is_stale() && credit.received(ROOM / 2));
    }

    #[test]
    fn counters_go_round() {
        let mut credit = Credit { sent: Wrapping(u32::MAX), guest_passed_on: Wrapping(u32::MAX), ..Credit::default() };
        credit.heard(100, u32::MAX);
        credit.sent(50);
        assert_eq!(credit.available(), 50);
        credit.heard(100, 49);
        assert_eq!(credit.available(), 100);
    }
}
