//! Events as lines of text. Pure.

use netd_api::{Event, EventKind, Told};

/// A line of `netd events`, without its newline. `time` writes seconds since the epoch as the user's clock shows them.
pub(super) fn line(told: &Told, time: impl Fn(i64) -> String) -> String {
    let Some(event) = &told.event else {
        return format!("{} events were missed: what is read here is read too slowly", told.missed);
    };
    let milliseconds = event.time.rem_euclid(1000);
    let head = format!(
        "{}.{milliseconds:03}  {}  {:<15}",
        time(event.time.div_euclid(1000)),
        event.network.as_deref().unwrap_or("-"),
        event.kind.name().replace('_', "-"),
    );
    let rest = [&event.address, &event.mac, &event.guest, &event.interface, &event.detail, &event.uri];
    let mut words: Vec<String> = rest.into_iter().flatten().cloned().collect();
    // The name it gave itself only where that is news.
    if let Some(name) = event.hostname.as_ref().filter(|name| event.guest.as_ref() != Some(*name)) {
        words.push(format!("\"{name}\""));
    }
    if words.is_empty() { head.trim_end().to_owned() } else { format!("{head}  {}", words.join("  ")) }
}

/// virsh's kinds of network events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NetEvent {
    /// Defined, Undefined, Started, Stopped.
    Lifecycle,
    /// The title, the description or an element of the metadata.
    MetadataChange,
}

impl NetEvent {
    /// As `--list` lists them.
    pub(super) const ALL: [NetEvent; 2] = [NetEvent::Lifecycle, NetEvent::MetadataChange];

    pub(super) fn name(self) -> &'static str {
        match self {
            NetEvent::Lifecycle => "lifecycle",
            NetEvent::MetadataChange => "metadata-change",
        }
    }

    /// The event as virsh prints it, if it is of this kind.
    pub(super) fn line(self, event: &Event) -> Option<String> {
        let network = event.network.as_deref()?;
        match self {
            NetEvent::Lifecycle => {
                let what = match event.kind {
                    EventKind::Defined => "Defined",
                    EventKind::Undefined => "Undefined",
                    EventKind::Started => "Started",
                    EventKind::Stopped => "Stopped",
                    _ => return None,
                };
                Some(format!("event 'lifecycle' for network {network}: {what}"))
            }
            NetEvent::MetadataChange if event.kind == EventKind::MetadataChanged => {
                let part = event.detail.as_deref().unwrap_or("element");
                let uri = event.uri.as_deref().unwrap_or("<null>");
                Some(format!("event 'metadata-change' for network {network}: type {part}, uri {uri}"))
            }
            NetEvent::MetadataChange => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            time: 1_800_000_000_042,
            kind,
            network: Some("default".into()),
            interface: None,
            guest: None,
            mac: None,
            address: None,
            hostname: None,
            detail: None,
            uri: None,
            uuid: None,
        }
    }

    fn shown(event: Event) -> String {
        line(&Told { event: Some(event), missed: 0 }, |seconds| format!("@{seconds}"))
    }

    #[test]
    fn a_line_says_when_where_what_and_about_whom() {
        assert_eq!(shown(event(EventKind::Started)), "@1800000000.042  default  started");
        let leased = Event {
            address: Some("192.168.122.7".into()),
            mac: Some("52:54:00:00:00:01".into()),
            hostname: Some("vm1".into()),
            ..event(EventKind::Leased)
        };
        let by_hand = "@1800000000.042  default  leased           192.168.122.7  52:54:00:00:00:01  \"vm1\"";
        assert_eq!(shown(leased.clone()), by_hand);
        let named = Event { guest: Some("vm1".into()), interface: Some("vnet0".into()), ..leased };
        let port = "@1800000000.042  default  leased           192.168.122.7  52:54:00:00:00:01  vm1  vnet0";
        assert_eq!(shown(named), port);
        let healed = Event { network: None, detail: Some("the table was put back".into()), ..event(EventKind::Healed) };
        assert_eq!(shown(healed), "@1800000000.042  -  healed           the table was put back");
        let missed = line(&Told { event: None, missed: 7 }, |_| unreachable!());
        assert!(missed.starts_with("7 events were missed"), "{missed}");
    }

    #[test]
    fn virsh_shows_its_two_kinds_of_events_in_its_words_and_no_others() {
        let lifecycle = |kind| NetEvent::Lifecycle.line(&event(kind));
        assert_eq!(lifecycle(EventKind::Started).unwrap(), "event 'lifecycle' for network default: Started");
        assert_eq!(lifecycle(EventKind::Undefined).unwrap(), "event 'lifecycle' for network default: Undefined");
        assert_eq!(lifecycle(EventKind::Updated), None);
        assert_eq!(lifecycle(EventKind::MetadataChanged), None);
        let title = Event { detail: Some("title".into()), ..event(EventKind::MetadataChanged) };
        let line = NetEvent::MetadataChange.line(&title).unwrap();
        assert_eq!(line, "event 'metadata-change' for network default: type title, uri <null>");
        assert_eq!(NetEvent::MetadataChange.line(&event(EventKind::Started)), None);
    }
}
