//! One file on its way to one client: which blocks to send when (RFC 1350 §2, RFC 7440 §4). Pure.
//!
//! ```text
//! request ─► OACK ── ACK 0 ──► blocks of a window ── ACK of the last ──► the next window … ──► done
//!    └ without options ─────────────►┘  └ ACK of an earlier one, or silence: again from the one after it
//! ```

use std::{ops::RangeInclusive, time::Duration};

use super::wire::Options;

/// A block without an option for it (RFC 1350 §2).
const BLOCK: u16 = 512;

/// Blocks in a row at most: 90 KiB, less than any socket takes.
const WINDOW: u16 = 64;

/// Until something is said again.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How often the same is said.
const TRIES: u32 = 6;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Say what is granted.
    Grant(Vec<(&'static str, u64)>),
    /// Send these blocks, counted from 1 and never starting anew.
    Blocks(RangeInclusive<u64>),
    /// Wait on: it was about something older.
    Wait,
    /// It is over, one way or the other.
    End,
}

/// The state of it.
#[derive(Debug)]
pub(super) struct Transfer {
    blksize: u16,
    window: u16,
    timeout: Duration,
    granted: Vec<(&'static str, u64)>,
    /// Blocks the client has; `None` until it has taken what was granted.
    acked: Option<u64>,
    last: u64,
    tries: u32,
}

impl Transfer {
    /// Of a file of this size, over a link whose packets carry blocks of `most` bytes at most.
    pub(super) fn new(options: Options, size: u64, most: u16) -> Self {
        let blksize = options.blksize.map(|size| size.min(most.max(BLOCK)));
        let window = options.windowsize.map(|blocks| blocks.min(WINDOW));
        let mut granted = Vec::new();
        granted.extend(blksize.map(|bytes| ("blksize", u64::from(bytes))));
        granted.extend(options.timeout.map(|seconds| ("timeout", u64::from(seconds))));
        granted.extend(options.tsize.then_some(("tsize", size)));
        granted.extend(window.map(|blocks| ("windowsize", u64::from(blocks))));
        let blksize = blksize.unwrap_or(BLOCK);
        Transfer {
            blksize,
            window: window.unwrap_or(1),
            timeout: options.timeout.map_or(TIMEOUT, |seconds| Duration::from_secs(seconds.into())),
            acked: granted.is_empty().then_some(0),
            granted,
            // The last one is shorter than the others, empty if need be.
            last: size / u64::from(blksize) + 1,
            tries: 0,
        }
    }

    /// Bytes of a block but the last.
    pub(super) fn blksize(&self) -> u16 {
        self.blksize
    }

    /// How long to wait for an ACK.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is said first, and again when nothing is heard.
    fn now(&self) -> Next {
        match self.acked {
            None => Next::Grant(self.granted.clone()),
            Some(acked) => Next::Blocks(acked + 1..=self.sent(acked)),
        }
    }

    /// The last block that is on its way.
    fn sent(&self, acked: u64) -> u64 {
        self.last.min(acked + u64::from(self.window))
    }

    /// The beginning.
    pub(super) fn begin(&self) -> Next {
        self.now()
    }

    /// Nothing was heard in time.
    pub(super) fn silence(&mut self) -> Next {
        self.tries += 1;
        if self.tries >= TRIES { Next::End } else { self.now() }
    }

    /// An ACK, of which only the lower 16 bits are said.
    pub(super) fn ack(&mut self, block: u16) -> Next {
        let Some(acked) = self.acked else {
            if block != 0 {
                return Next::Wait;
            }
            (self.acked, self.tries) = (Some(0), 0);
            return self.now();
        };
        let ahead = u64::from(block.wrapping_sub(acked as u16));
        // One that was there before is no reason to send all again (RFC 1123 §4.2.3.1).
        if ahead == 0 || acked + ahead > self.sent(acked) {
            return Next::Wait;
        }
        if acked + ahead == self.last {
            return Next::End;
        }
        (self.acked, self.tries) = (Some(acked + ahead), 0);
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(size: u64) -> Transfer {
        Transfer::new(Options::default(), size, 1468)
    }

    #[test]
    fn rfc1350_2_one_block_after_the_other_and_a_short_one_at_the_end() {
        let mut transfer = plain(1024);
        assert_eq!(transfer.begin(), Next::Blocks(1..=1));
        assert_eq!(transfer.ack(1), Next::Blocks(2..=2));
        assert_eq!(transfer.ack(1), Next::Wait, "said twice (RFC 1123 §4.2.3.1)");
        assert_eq!(transfer.ack(7), Next::Wait, "never sent");
        assert_eq!(transfer.ack(2), Next::Blocks(3..=3), "an empty block ends what fills its blocks");
        assert_eq!(transfer.ack(3), Next::End);
        assert_eq!(plain(0).begin(), Next::Blocks(1..=1));
    }

    #[test]
    fn rfc2347_options_are_granted_and_taken_before_the_first_block() {
        let options = Options { blksize: Some(9000), timeout: Some(2), tsize: true, windowsize: Some(1000) };
        let mut transfer = Transfer::new(options, 100_000, 1468);
        let granted = vec![("blksize", 1468), ("timeout", 2), ("tsize", 100_000), ("windowsize", 64)];
        assert_eq!(transfer.begin(), Next::Grant(granted.clone()));
        assert_eq!(transfer.ack(1), Next::Wait);
        assert_eq!(transfer.silence(), Next::Grant(granted));
        assert_eq!(transfer.ack(0), Next::Blocks(1..=64));
        assert_eq!(transfer.timeout(), Duration::from_secs(2));
        assert_eq!(transfer.blksize(), 1468);
    }

    #[test]
    fn rfc7440_4_a_window_goes_on_after_the_last_block_that_was_heard() {
        let options = Options { windowsize: Some(4), ..Options::default() };
        let mut transfer = Transfer::new(options, 512 * 10, 1468);
        transfer.begin();
        assert_eq!(transfer.ack(0), Next::Blocks(1..=4));
        assert_eq!(transfer.ack(2), Next::Blocks(3..=6), "the third was lost");
        assert_eq!(transfer.ack(6), Next::Blocks(7..=10));
        assert_eq!(transfer.ack(10), Next::Blocks(11..=11));
        assert_eq!(transfer.silence(), Next::Blocks(11..=11));
        assert_eq!(transfer.ack(11), Next::End);
    }

    #[test]
    fn block_numbers_start_anew_after_65535_and_the_file_goes_on() {
        let mut transfer = plain(512 * 70_000);
        transfer.begin();
        for block in 1..=70_000_u64 {
            assert_eq!(transfer.ack(block as u16), Next::Blocks(block + 1..=block + 1));
        }
        assert_eq!(transfer.ack(70_001_u64 as u16), Next::End);
    }

    #[test]
    fn a_client_that_is_gone_is_given_up() {
        let mut transfer = plain(1);
        transfer.begin();
        let said = std::iter::from_fn(|| Some(transfer.silence())).take_while(|next| *next != Next::End).count();
        assert_eq!(said, 5);
    }
}
