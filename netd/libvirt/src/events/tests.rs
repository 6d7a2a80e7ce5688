use super::*;

const ONE: &str = "67f66aa0-94fe-4b86-aa89-eeaa4d8ed754";
const OTHER: &str = "11111111-94fe-4b86-aa89-eeaa4d8ed754";

fn event(kind: EventKind, uuid: &str) -> Event {
    Event {
        time: 0,
        kind,
        network: Some("default".into()),
        uuid: Some(uuid.into()),
        interface: None,
        guest: None,
        mac: None,
        address: None,
        hostname: None,
        detail: None,
        uri: None,
    }
}

#[test]
fn an_event_goes_to_the_callbacks_that_asked_for_it() {
    let mut callbacks = Callbacks::default();
    let all = callbacks.add(NetworkEvent::Lifecycle, None).unwrap();
    let one = callbacks.add(NetworkEvent::Lifecycle, ONE.parse().ok()).unwrap();
    let other = callbacks.add(NetworkEvent::Lifecycle, OTHER.parse().ok()).unwrap();
    let metadata = callbacks.add(NetworkEvent::Metadata, None).unwrap();
    let called = |callbacks: &Callbacks, event: &Event| -> Vec<i32> {
        let id = |frame: Vec<u8>| i32::from_be_bytes(frame[28..32].try_into().unwrap());
        frames(callbacks, event).into_iter().map(id).collect()
    };
    assert_eq!(called(&callbacks, &event(EventKind::Started, ONE)), [all, one]);
    assert_eq!(called(&callbacks, &event(EventKind::Started, OTHER)), [all, other]);
    assert_eq!(called(&callbacks, &event(EventKind::MetadataChanged, ONE)), [metadata]);
    for silent in [EventKind::Updated, EventKind::Leased, EventKind::PortUp, EventKind::Healed] {
        assert_eq!(called(&callbacks, &event(silent, ONE)), [0; 0], "{silent:?}");
    }
    callbacks.remove(all).unwrap();
    assert_eq!(called(&callbacks, &event(EventKind::Stopped, ONE)), [one]);
    let error = callbacks.remove(all).unwrap_err();
    assert_eq!(error.message, format!("internal error: network event callback {all} not registered"));
    assert_ne!(callbacks.add(NetworkEvent::Lifecycle, None).unwrap(), all, "a number is not given twice");
    callbacks.clear();
    assert_eq!(called(&callbacks, &event(EventKind::Stopped, ONE)), [0; 0]);
}

#[test]
fn events_have_the_protocols_form() {
    let mut callbacks = Callbacks::default();
    let id = callbacks.add(NetworkEvent::Lifecycle, None).unwrap();
    callbacks.add(NetworkEvent::Metadata, None).unwrap();
    for (kind, number) in
        [(EventKind::Defined, 0), (EventKind::Undefined, 1), (EventKind::Started, 2), (EventKind::Stopped, 3)]
    {
        let mut payload = Writer::default();
        payload.i32(id).string("default").uuid(ONE.parse().unwrap()).i32(number).i32(0);
        assert_eq!(frames(&callbacks, &event(kind, ONE)), [Header::event(315).with(&payload.finish())]);
    }
    let changed = Event {
        detail: Some("element".into()),
        uri: Some("http://example.org/x".into()),
        ..event(EventKind::MetadataChanged, ONE)
    };
    let mut payload = Writer::default();
    payload
        .i32(id + 1)
        .string("default")
        .uuid(ONE.parse().unwrap())
        .i32(2)
        .optional_string(Some("http://example.org/x"));
    assert_eq!(frames(&callbacks, &changed), [Header::event(446).with(&payload.finish())]);
}

#[test]
fn a_connection_has_so_many_callbacks_and_no_more() {
    let mut callbacks = Callbacks::default();
    for _ in 0..MOST_CALLBACKS {
        callbacks.add(NetworkEvent::Lifecycle, None).unwrap();
    }
    assert_eq!(callbacks.add(NetworkEvent::Lifecycle, None).unwrap_err().code, Code::OperationFailed);
}
