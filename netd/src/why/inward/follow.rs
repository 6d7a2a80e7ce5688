//! EDGE: looks at all a flow to a guest passes and traces a packet of it, as `why::follow` does the other way.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use nat::trace::{self, Arriving, Listener};

use super::{Arrival, Inward, InwardFacts, inject, ladder::Seen, own};
use crate::{
    apply::Kernel,
    doctor,
    host::Link,
    model::MacAddr,
    observe::{
        Netlink,
        way::{self, Way},
    },
    why::{
        Facts, Routing, Traced, WhyError,
        follow::{ANSWER, TURN, first_port, hear, look_up},
        legacy, probe,
    },
};

/// Whoever the frame comes from on its link: a locally administered address that nobody has.
const SOMEBODY: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0x99]);

/// Looks, and traces.
pub(crate) async fn follow(host: &Kernel, question: &Inward) -> Result<InwardFacts, WhyError> {
    let _turn = TURN.lock().await;
    let netlink = &host.netlink;
    let links = netlink.links().await?;
    let bridge = question.bridge.as_ref().and_then(|name| links.iter().find(|link| link.name == *name));
    let arrival = match netlink.way(question.source, None, None).await? {
        Way::Local => Arrival::Own,
        Way::Via { link, .. } => Arrival::Link(link),
        Way::Nowhere(errno) => Arrival::Nowhere(errno),
    };
    let mut source = question.source;
    // From its loopback address nothing gets to a guest's own address; a forward is asked at one of the host's.
    if arrival == Arrival::Own && source.is_loopback() && !question.forwarded {
        source = own::source(question.target).unwrap_or(source);
    }
    let mut facts = Facts {
        port: netlink.port_look(question.port.index).await?,
        bridge: bridge.map(|bridge| bridge.index),
        routing: routing(netlink, question, arrival, source, &links).await?,
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
    let on_its_bridge = matches!(arrival, Arrival::Link(link) if Some(link) == facts.bridge);
    if facts.port.is_some() && !on_its_bridge && !matches!(arrival, Arrival::Nowhere(_)) {
        let before = legacy::read(&facts.legacy).await;
        let traced = follow_packet(question, arrival, source, &links, &mut facts).await;
        // Whatever came of it.
        trace::remove().await?;
        traced?;
        facts.legacy_drops = legacy::drops(&before, &legacy::read(&facts.legacy).await);
        look_up(&mut facts).await;
        let guest = question.ends.first().map_or(question.target, |end| end.address);
        if let Some(bridge) = facts.bridge {
            facts.silent_hop = netlink.is_silent(guest, bridge).await?.then_some(guest);
        }
    }
    Ok(InwardFacts { facts, arrival, source })
}

/// Where the host would send such a packet once it is for the guest.
async fn routing(
    netlink: &Netlink,
    question: &Inward,
    arrival: Arrival,
    source: IpAddr,
    links: &[Link],
) -> Result<Option<Routing>, WhyError> {
    let guest = question.ends.first().map_or(question.target, |end| end.address);
    let (source, input) = match arrival {
        Arrival::Own => (None, None),
        Arrival::Link(link) => (Some(source), Some(link)),
        Arrival::Nowhere(_) => return Ok(None),
    };
    let way = netlink.way(guest, source, input).await?;
    let name = input.and_then(|index| links.iter().find(|link| link.index == index)).map(|link| link.name.as_str());
    let (forwarding, rp_filter) = name.map_or((true, 0), |name| way::forwarding(guest, name));
    Ok(Some(Routing { way, forwarding, rp_filter, back: input }))
}

async fn follow_packet(
    question: &Inward,
    arrival: Arrival,
    source: IpAddr,
    links: &[Link],
    facts: &mut Facts,
) -> Result<(), WhyError> {
    let listener = Listener::open().map_err(WhyError::Listen)?;
    let own = arrival == Arrival::Own;
    let mut watch = Arriving {
        source,
        source_port: None,
        target: question.target,
        protocol: question.protocol,
        own,
        ends: question.ends.clone(),
    };
    let has_ended = |walks: &[trace::Walk]| Seen::new(question, source, own, walks).has_ended();
    let mut events = Vec::new();
    if question.may_probe {
        let from = first_port();
        trace::install_arriving(&Arriving { source_port: Some(from), ..watch.clone() }).await?;
        match send(question, arrival, source, from, links).await {
            Ok(()) => {
                facts.traced = Traced::Probe;
                hear(&listener, &mut events, ANSWER, has_ended).await?;
                facts.walks = trace::walks(&events);
                return Ok(());
            }
            Err(why) => facts.no_probe = Some(why),
        }
    }
    watch.source_port = None;
    trace::install_arriving(&watch).await?;
    hear(&listener, &mut events, Duration::from_secs(question.patience), has_ended).await?;
    facts.walks = trace::walks(&events);
    if !facts.walks.is_empty() {
        facts.traced = Traced::Passing;
    }
    Ok(())
}

/// Sends the probe; or says why there is none.
async fn send(question: &Inward, arrival: Arrival, source: IpAddr, from: u16, links: &[Link]) -> Result<(), String> {
    let (index, mac) = match arrival {
        Arrival::Own => (None, SOMEBODY),
        Arrival::Link(index) => {
            let link = links.iter().find(|link| link.index == index).ok_or("the link is gone")?;
            (Some(index), link.mac.ok_or_else(|| format!("{} is no Ethernet link", link.name))?)
        }
        Arrival::Nowhere(_) => return Err("the host has no way there".to_owned()),
    };
    let frame = probe::frame((SOMEBODY, mac), source, question.target, from, question.protocol);
    let frame = frame.ok_or("the addresses are of two families")?;
    let target = question.target;
    let begun = Instant::now();
    let sent = tokio::task::spawn_blocking(move || match index {
        Some(index) => inject::take_in(index, &frame),
        None => own::send(target, frame.get(probe::ETHERNET..).unwrap_or_default()),
    });
    let sent = sent.await.map_err(|error| error.to_string())?;
    tracing::debug!("a probe from {source} to {target} was sent within {:?}", begun.elapsed());
    sent.map_err(|error| error.to_string())
}
