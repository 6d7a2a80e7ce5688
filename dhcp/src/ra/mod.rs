//! Router advertisements (RFC 4861 §6.2) as a machine without edges: solicitations and time in, advertisements out.
//!
//! ```text
//! configured ──► three at once, far enough apart ──► one every 200 to 600 s
//! solicited  ──► from an address: to it, now          (RFC 4861 §6.2.6: a delay of 0 to 0.5 s)
//!            └─► from none: to all, at most every 3 s
//! changed    ──► as when configured; what is no more is told with a lifetime of 0 for as long as a guest may know it
//! stopped    ──► once, every lifetime 0
//! ```

mod message;

use std::{net::Ipv6Addr, time::Duration};

use ipnet::Ipv6Net;

use crate::config::Ipv6Config;
pub(crate) use message::Advertisement;
use message::Prefix;

/// `MaxRtrAdvInterval` and `MinRtrAdvInterval`, as their defaults are (RFC 4861 §6.2.1).
const MAX_INTERVAL: Duration = Duration::from_secs(600);
const MIN_INTERVAL: Duration = Duration::from_secs(200);

/// How many come close together at first, and how close (RFC 4861 §10).
const INITIAL: u8 = 3;
const MAX_INITIAL_INTERVAL: Duration = Duration::from_secs(16);

/// Between two to all nodes (RFC 4861 §10).
const MIN_DELAY: Duration = Duration::from_secs(3);

/// Answers to single guests in any second; who asks beyond that hears the next to all nodes.
const ANSWERS: u32 = 200;

/// How long guests keep us as a router, and what else is ours to say: three times the longest interval (RFC 4861
/// §6.2.1, RFC 8106 §5.1).
const LIFETIME: u32 = 1800;

/// How long guests keep their addresses without hearing of us: a day.
const VALID: u32 = 86_400;

/// The shortest valid lifetime that guests take from an advertisement for an address they have (RFC 4862 §5.5.3).
const SHORTEST_VALID: Duration = Duration::from_secs(7200);

/// What to do about a solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Send an advertisement to whoever asked, now.
    Now,
    /// One to all nodes is due soon, which [`Advertiser::due`] tells.
    Soon,
    /// There is nothing to advertise.
    Nothing,
}

/// The machine. Times are on a clock that only goes forward.
#[derive(Debug, Default)]
pub(crate) struct Advertiser {
    config: Option<Ipv6Config>,
    gone: Gone,
    /// Of those close together, how many are left.
    initial: u8,
    /// When the last to all nodes was sent.
    last: Option<Duration>,
    next: Option<Duration>,
    /// Answers to single guests in the second that began then.
    answers: (Duration, u32),
}

/// What was advertised and is not any more, each with the time until which to say so.
#[derive(Debug, Default)]
struct Gone {
    prefixes: Vec<(Ipv6Net, bool, Duration)>,
    routes: Vec<(Ipv6Net, Duration)>,
    resolvers: Vec<(Ipv6Addr, Duration)>,
    domains: Vec<(String, Duration)>,
}

impl Advertiser {
    /// Takes a configuration, or another, or none. Guests are told soon.
    pub(crate) fn configure(&mut self, config: Option<Ipv6Config>, now: Duration) {
        if self.config == config {
            return;
        }
        if let Some(before) = self.config.take() {
            self.gone.add(&before, now);
        }
        if let Some(config) = &config {
            self.gone.keep_what_is_not_in(config);
        } else {
            self.gone = Gone::default();
        }
        self.config = config;
        self.initial = INITIAL;
        self.next = self.config.as_ref().map(|_| self.earliest(now));
    }

    /// A valid solicitation came from this address.
    pub(crate) fn solicited(&mut self, from: Ipv6Addr, now: Duration) -> Answer {
        if self.config.is_none() {
            return Answer::Nothing;
        }
        if now.saturating_sub(self.answers.0) >= Duration::from_secs(1) {
            self.answers = (now, 0);
        }
        if !from.is_unspecified() && self.answers.1 < ANSWERS {
            self.answers.1 += 1;
            return Answer::Now;
        }
        let soon = self.earliest(now);
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        Answer::Soon
    }

    /// When the next to all nodes is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }

    /// Whether one to all nodes is due now, which is then taken for sent. `dice` is any number.
    pub(crate) fn due(&mut self, now: Duration, dice: u64) -> bool {
        if self.next.is_none_or(|next| next > now) {
            return false;
        }
        self.gone.forget_what_is_over(now);
        self.last = Some(now);
        let span = (MAX_INTERVAL - MIN_INTERVAL).as_millis() as u64;
        let mut wait = MIN_INTERVAL + Duration::from_millis(dice % (span + 1));
        if self.initial > 1 {
            self.initial -= 1;
            wait = MAX_INITIAL_INTERVAL;
        }
        self.next = Some(now + wait);
        true
    }

    /// What there is to say now.
    pub(crate) fn say(&self, now: Duration) -> Option<Advertisement> {
        let config = self.config.as_ref()?;
        let stateful = config.dhcp.as_ref().is_some_and(|dhcp| dhcp.is_stateful());
        let mut prefixes: Vec<Prefix> = Vec::new();
        for prefix in &config.prefixes {
            let net = prefix.server.trunc();
            // Two addresses of the host in one prefix are one prefix.
            match prefixes.iter_mut().find(|known| known.net == net) {
                Some(known) => known.autonomous &= prefix.autonomous,
                None => {
                    prefixes.push(Prefix { net, autonomous: prefix.autonomous, valid: VALID, preferred: VALID });
                }
            }
        }
        let Gone { prefixes: old, routes, resolvers, domains } = &self.gone;
        prefixes.extend(old.iter().filter(|(.., until)| *until > now).map(|(net, autonomous, until)| Prefix {
            net: *net,
            autonomous: *autonomous,
            valid: seconds(until.saturating_sub(now)),
            preferred: 0,
        }));
        Some(Advertisement {
            managed: stateful,
            other: config.dhcp.is_some(),
            lifetime: if config.router { LIFETIME as u16 } else { 0 },
            mtu: config.mtu,
            prefixes,
            routes: with_gone(config.routes.iter().cloned(), routes),
            resolvers: with_gone(config.dns.iter().cloned(), resolvers),
            domains: with_gone(config.domain.iter().cloned(), domains),
        })
    }

    /// The last word: we are no router any more, and nothing we said holds. Addresses last for as long as guests let
    /// them, two hours at most, and are not for new connections (RFC 4861 §6.2.5, RFC 4862 §5.5.3).
    pub(crate) fn farewell(&mut self, now: Duration) -> Option<Advertisement> {
        let mut last = self.say(now)?;
        self.config = None;
        self.next = None;
        last.lifetime = 0;
        last.prefixes.iter_mut().for_each(|prefix| (prefix.valid, prefix.preferred) = (0, 0));
        last.routes.iter_mut().for_each(|(_, lifetime)| *lifetime = 0);
        last.resolvers.iter_mut().for_each(|(_, lifetime)| *lifetime = 0);
        last.domains.iter_mut().for_each(|(_, lifetime)| *lifetime = 0);
        Some(last)
    }

    fn earliest(&self, now: Duration) -> Duration {
        self.last.map_or(now, |last| now.max(last + MIN_DELAY))
    }
}

impl Gone {
    fn add(&mut self, before: &Ipv6Config, now: Duration) {
        let until = now + Duration::from_secs(LIFETIME.into());
        for prefix in &before.prefixes {
            let net = prefix.server.trunc();
            self.prefixes.retain(|(known, ..)| *known != net);
            self.prefixes.push((net, prefix.autonomous, now + SHORTEST_VALID));
        }
        add(&mut self.routes, &before.routes, until);
        add(&mut self.resolvers, &before.dns, until);
        add(&mut self.domains, before.domain.as_slice(), until);
    }

    fn keep_what_is_not_in(&mut self, config: &Ipv6Config) {
        self.prefixes.retain(|(net, ..)| !config.prefixes.iter().any(|prefix| prefix.server.trunc() == *net));
        self.routes.retain(|(net, _)| !config.routes.contains(net));
        self.resolvers.retain(|(resolver, _)| !config.dns.contains(resolver));
        self.domains.retain(|(domain, _)| config.domain.as_ref() != Some(domain));
    }

    fn forget_what_is_over(&mut self, now: Duration) {
        self.prefixes.retain(|(.., until)| *until > now);
        self.routes.retain(|(_, until)| *until > now);
        self.resolvers.retain(|(_, until)| *until > now);
        self.domains.retain(|(_, until)| *until > now);
    }
}

fn add<T: Clone + PartialEq>(list: &mut Vec<(T, Duration)>, items: &[T], until: Duration) {
    list.retain(|(known, _)| !items.contains(known));
    list.extend(items.iter().map(|item| (item.clone(), until)));
}

fn with_gone<T: Clone>(now: impl Iterator<Item = T>, gone: &[(T, Duration)]) -> Vec<(T, u32)> {
    now.map(|item| (item, LIFETIME)).chain(gone.iter().map(|(item, _)| (item.clone(), 0))).collect()
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
