//! What the DHCP server says about its work: a line for each lease in bounds, everything at debug level.
//!
//! A guest chooses how many messages it sends, so every line above debug goes through a limit.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::{
    config::Mac,
    engine::{Handled, Unusable},
    limit::Limit,
    v4::server::{Ignored, Note, Outcome},
};

/// The log of one network.
#[derive(Debug)]
pub(crate) struct Report {
    leases: Limit,
    troubles: Limit,
}

impl Report {
    pub(crate) fn new() -> Self {
        Report { leases: Limit::new(50, Duration::from_secs(10)), troubles: Limit::new(5, Duration::from_secs(10)) }
    }

    /// A frame that is no request.
    pub(crate) fn unusable(&mut self, network: &str, cause: &Unusable) {
        debug!(network, "frame ignored: {cause}");
    }

    /// A decision, before it is on disk.
    pub(crate) fn handled(&mut self, network: &str, handled: &Handled, now: Duration) {
        let Handled { mac, kind, outcome, notes, oddities, .. } = handled;
        for oddity in oddities {
            debug!(network, "{kind:?} from {mac}: {oddity:?}");
        }
        debug!(network, "{kind:?} from {mac}: {outcome:?}");
        match outcome {
            Outcome::Ignored(Ignored::PoolExhausted) => self.trouble(now, |more| {
                warn!(network, "no address left for {mac}: every one in the pool has a lease{more}");
            }),
            Outcome::Declined(address) => self.trouble(now, |more| {
                warn!(network, "{mac} declined {address}: somebody else uses it; nobody gets it for 10 minutes{more}");
            }),
            Outcome::Refused(reason) => self.trouble(now, |more| info!(network, "refused {mac}: {reason}{more}")),
            _ => {}
        }
        for note in notes {
            self.trouble(now, |more| match note {
                Note::NameTaken(name) => warn!(network, "{mac} calls itself '{name}', which another has{more}"),
                Note::ReservationTaken(address) => {
                    warn!(network, "{address} is reserved for {mac}, but another client has it or declined it{more}");
                }
            });
        }
    }

    /// A decision that is on disk.
    pub(crate) fn settled(&mut self, network: &str, mac: Mac, outcome: &Outcome, now: Duration) {
        let said = match outcome {
            Outcome::Acked { address, fresh: true } => ("leased to", address),
            Outcome::Released(address) => ("released by", address),
            _ => return,
        };
        if let Some(more) = self.leases.pass(now) {
            info!(network, "{} {} {mac}{}", said.1, said.0, More(more));
        }
    }

    /// Any other trouble.
    pub(crate) fn trouble(&mut self, now: Duration, say: impl FnOnce(More)) {
        if let Some(more) = self.troubles.pass(now) {
            say(More(more));
        }
    }
}

/// Lines that were held back, as the end of the next one.
pub(crate) struct More(pub(crate) u64);

impl std::fmt::Display for More {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " ({more} more such lines held back)"),
        }
    }
}
