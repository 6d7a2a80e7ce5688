//! What the DHCPv6 server says about its work. Every line above debug goes through a limit, as with IPv4.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::{
    engine::{Handled, Unusable},
    server::{Note, Outcome},
    table::Key,
};
use crate::{limit::Limit, report::More};

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
        let Handled { mac, kind, outcomes, ignored, notes, .. } = handled;
        debug!(network, "DHCPv6 {kind:?} from {mac}: {outcomes:?}");
        if let Some(ignored) = ignored {
            debug!(network, "DHCPv6 {kind:?} from {mac} ignored: {ignored}");
        }
        for (_, outcome) in outcomes {
            match outcome {
                Outcome::Exhausted => self.trouble(now, |more| {
                    warn!(network, "no IPv6 address for {mac}: every one in the pool has a lease{more}");
                }),
                Outcome::Declined(address) => self.trouble(now, |more| {
                    warn!(
                        network,
                        "{mac} declined {address}: somebody else uses it; nobody gets it for 10 minutes{more}"
                    );
                }),
                _ => {}
            }
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

    /// Outcomes that are on disk.
    pub(crate) fn settled(&mut self, network: &str, outcomes: &[(Key, Outcome)], now: Duration) {
        for (key, outcome) in outcomes {
            let (said, address) = match outcome {
                Outcome::Leased { address, fresh: true } => ("leased to", address),
                Outcome::Released(address) => ("released by", address),
                _ => continue,
            };
            if let Some(more) = self.leases.pass(now) {
                info!(network, "{address} {said} {}{}", key.mac, More(more));
            }
        }
    }

    /// Any other trouble.
    pub(crate) fn trouble(&mut self, now: Duration, say: impl FnOnce(More)) {
        if let Some(more) = self.troubles.pass(now) {
            say(More(more));
        }
    }
}
