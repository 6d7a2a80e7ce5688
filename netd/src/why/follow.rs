//! EDGE: looks at all a flow passes and traces a packet of it; one trace at a time, its clock and its tables.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use nat::trace::{self, Event, Listener, Verdict, Walk, Watch};
use tokio::sync::Mutex;

use super::{Facts, Question, Routing, Traced, WhyError, ladder, legacy, probe, tap};
use crate::{
    apply::Kernel,
    doctor,
    model::MacAddr,
    observe::{
        Netlink, rules,
        way::{self, Way},
    },
};

/// There is one pair of tables.
pub(super) static TURN: Mutex<()> = Mutex::const_new(());

/// An answer from anywhere on Earth takes no longer than this after the question has left.
pub(super) const ANSWER: Duration = Duration::from_secs(2);

/// After the end of a packet is known, what the kernel still has to tell of it comes this soon.
const REST: Duration = Duration::from_millis(100);

/// The ports a probe is sent from: above those the kernel gives out by default (`ip_local_port_range`).
const FIRST_PORT: u16 = 61_000;

/// Looks, and traces.
pub(crate) async fn follow(host: &Kernel, question: &Question) -> Result<Facts, WhyError> {
    let _turn = TURN.lock().await;
    let netlink = &host.netlink;
    let links = netlink.links().await?;
    let bridge = question.bridge.as_ref().and_then(|name| links.iter().find(|link| link.name == *name));
    let port = netlink.port_look(question.port.index).await?;
    let routing = match bridge {
        Some(bridge) => Some(routing(netlink, question, bridge.index, &bridge.name).await?),
        None => None,
    };
    let mut facts = Facts {
        port,
        bridge: bridge.map(|bridge| bridge.index),
        routing,
        traced: Traced::Nothing,
        no_probe: None,
        walks: Vec::new(),
        listings: BTreeMap::new(),
        rules: None,
        legacy: doctor::legacy_tables(),
        legacy_drops: Vec::new(),
        links: links.iter().map(|link| (link.index, link.name.clone())).collect(),
        silent_hop: None,
    };
    if facts.port.is_none() {
        return Ok(facts);
    }
    let next = bridge.and_then(|bridge| next_mac(question, &facts, bridge.index, bridge.mac));
    let before = legacy::read(&facts.legacy).await;
    let traced = trace(question, next, &mut facts).await;
    // Whatever came of it.
    trace::remove().await?;
    traced?;
    facts.legacy_drops = legacy::drops(&before, &legacy::read(&facts.legacy).await);
    look_up(&mut facts).await;
    if let Some(Routing { way: Way::Via { link, gateway }, .. }) = facts.routing {
        let hop = gateway.unwrap_or(question.target);
        facts.silent_hop = netlink.is_silent(hop, link).await?.then_some(hop);
    }
    Ok(facts)
}

/// Whose tables the walks were in, and the rules of those that dropped something.
pub(super) async fn look_up(facts: &mut Facts) {
    for walk in &mut facts.walks {
        walk.family = family(walk).await;
    }
    for walk in facts.walks.iter().filter(|walk| walk.verdict == Verdict::Drop) {
        let key = (walk.family.to_owned(), walk.table.clone());
        if !facts.listings.contains_key(&key)
            && let Some(listing) = trace::listing(walk.family, &walk.table).await
        {
            facts.listings.insert(key, listing);
        }
    }
    if facts.walks.iter().any(|walk| walk.verdict == Verdict::Drop && walk.table != nat::TABLE) {
        facts.rules = Some(doctor::rules().await);
    }
}

/// The family of the table a walk was in. Of two of one name, one for both families, it is the one that has the chain.
async fn family(walk: &Walk) -> &'static str {
    let own = match walk.family {
        "ip" => rules::Family::Ip,
        "ip6" => rules::Family::Ip6,
        other => return other,
    };
    let is_there = |family| rules::has_table(family, &walk.table).unwrap_or(false);
    match (is_there(own), is_there(rules::Family::Inet)) {
        (_, false) => walk.family,
        (false, true) => "inet",
        (true, true) => {
            let listing = trace::listing(walk.family, &walk.table).await.unwrap_or_default();
            let chain = format!("chain {} {{", walk.chain);
            if listing.lines().any(|line| line.trim_start().starts_with(&chain)) { walk.family } else { "inet" }
        }
    }
}

/// Takes away what a trace that was broken off has left.
pub(crate) async fn tidy() {
    let left = [rules::Family::Inet, rules::Family::Bridge];
    if left.into_iter().any(|family| rules::has_table(family, trace::TABLE).unwrap_or(true))
        && let Err(error) = trace::remove().await
    {
        tracing::warn!("the tables {} of a trace stay: {error}", trace::TABLE);
    }
}

async fn routing(netlink: &Netlink, question: &Question, bridge: u32, name: &str) -> Result<Routing, WhyError> {
    let way = netlink.way(question.target, question.source, Some(bridge)).await?;
    let back = match question.source {
        Some(source) => match netlink.way(source, None, None).await? {
            Way::Via { link, .. } => Some(link),
            Way::Local | Way::Nowhere(_) => None,
        },
        None => None,
    };
    let (forwarding, rp_filter) = way::forwarding(question.target, name);
    Ok(Routing { way, forwarding, rp_filter, back })
}

/// Whom a guest would send the frame to: the other guest, or the bridge as the gateway. None where a guest would only
/// ask for the address in vain.
fn next_mac(question: &Question, facts: &Facts, bridge: u32, mac: Option<MacAddr>) -> Option<MacAddr> {
    if let Some(peer) = &question.peer {
        return Some(peer.mac);
    }
    match &facts.routing.as_ref()?.way {
        Way::Via { link, gateway: None } if *link == bridge => None,
        _ => mac,
    }
}

async fn trace(question: &Question, next: Option<MacAddr>, facts: &mut Facts) -> Result<(), WhyError> {
    let listener = Listener::open().map_err(WhyError::Listen)?;
    let mut watch = Watch {
        interface: question.port.interface.clone(),
        source: None,
        source_port: None,
        target: question.target,
        protocol: question.protocol,
    };
    let has_ended = |walks: &[Walk]| has_ended(walks, question.port.index);
    let mut events = Vec::new();
    match frame(question, next) {
        Ok((frame, source, from)) => {
            let narrow = Watch { source: Some(source), source_port: Some(from), ..watch.clone() };
            trace::install(&narrow).await?;
            let interface = question.port.interface.clone();
            let sent = tokio::task::spawn_blocking(move || tap::send(&interface, &frame)).await;
            match sent {
                Ok(Ok(())) => {
                    facts.traced = Traced::Probe;
                    hear(&listener, &mut events, ANSWER, has_ended).await?;
                    facts.walks = trace::walks(&events);
                    return Ok(());
                }
                Ok(Err(error)) => facts.no_probe = Some(error.to_string()),
                Err(error) => facts.no_probe = Some(error.to_string()),
            }
        }
        Err(why) => facts.no_probe = why,
    }
    watch.source_port = None;
    trace::install(&watch).await?;
    hear(&listener, &mut events, Duration::from_secs(question.patience), has_ended).await?;
    facts.walks = trace::walks(&events);
    if !facts.walks.is_empty() {
        facts.traced = Traced::Guest;
    }
    Ok(())
}

/// The probe, who it is from and its port; or why there is none, if that is worth saying.
fn frame(question: &Question, next: Option<MacAddr>) -> Result<(Vec<u8>, IpAddr, u16), Option<String>> {
    if !question.may_probe {
        return Err(None);
    }
    let Some(source) = question.source else { return Err(Some("nobody knows the guest's address".to_owned())) };
    let Some(next) = next else { return Err(Some("no guest of the network is known to have the address".to_owned())) };
    let from = first_port();
    let frame = probe::frame((question.port.mac, next), source, question.target, from, question.protocol);
    frame.map(|frame| (frame, source, from)).ok_or_else(|| Some("the addresses are of two families".to_owned()))
}

/// The port a probe is sent from, any of those.
pub(super) fn first_port() -> u16 {
    let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
    FIRST_PORT + u16::from_ne_bytes([a, b]) % (u16::MAX - FIRST_PORT)
}

/// Listens until the packet's fate is known or the time is over: `first` until there is anything, and [`ANSWER`] from
/// then on.
pub(super) async fn hear(
    listener: &Listener,
    events: &mut Vec<Event>,
    first: Duration,
    has_ended: impl Fn(&[Walk]) -> bool,
) -> Result<(), WhyError> {
    let mut deadline = Instant::now() + first;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, listener.hear()).await {
            Ok(heard) => {
                let heard = heard.map_err(WhyError::Listen)?;
                if events.is_empty() && !heard.is_empty() {
                    deadline = Instant::now() + ANSWER;
                }
                events.extend(heard);
                if has_ended(&trace::walks(events)) {
                    deadline = deadline.min(Instant::now() + REST);
                }
            }
            Err(_) => return Ok(()),
        }
    }
}

/// Whether the packet's fate is known. Several of the guest's may be under way: one is enough.
fn has_ended(walks: &[Walk], port: u32) -> bool {
    walks.iter().any(|walk| walk.verdict == Verdict::Drop || ladder::is_delivered(walk, port))
}
