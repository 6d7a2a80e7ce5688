//! Listeners that are slow, and what events say.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use dhcp::{LeaseWatch, config::Mac};
use futures_util::FutureExt;

use super::*;

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn vnet0() -> Port {
    Port {
        interface: "vnet0".into(),
        index: 3,
        network: "default".into(),
        guest: Some("vm1".into()),
        mac: MAC,
        mtu: 1500,
        queues: 1,
        guards: true,
        group: None,
        host_bridge: None,
        macvtap: None,
        kept: false,
    }
}

fn change(kind: LeaseKind) -> LeaseChange {
    LeaseChange { mac: Mac(MAC.0), hostname: Some("web".into()), kind }
}

fn heard(listener: &mut Listener) -> Vec<Heard> {
    std::iter::from_fn(|| listener.waiting()).collect()
}

#[test]
fn a_slow_listener_loses_the_oldest_and_is_told_how_many_and_nobody_waits_for_it() {
    let bus = Bus::default();
    let mut slow = bus.listen();
    let mut told = 0;
    // Nothing in here waits: this is a function like any other.
    while told < 5000 {
        bus.tell(healed(None, told.to_string()));
        told += 1;
    }
    let heard = heard(&mut slow);
    let Some(Heard::Missed(missed)) = heard.first() else { panic!("{:?}", heard.first()) };
    assert!(*missed >= 3000, "{missed}");
    let rest: Vec<String> = heard[1..]
        .iter()
        .map(|heard| match heard {
            Heard::Event(event) => event.detail.clone().unwrap(),
            Heard::Missed(again) => panic!("{again} more missed"),
        })
        .collect();
    let expected: Vec<String> = (*missed..5000).map(|number| number.to_string()).collect();
    assert_eq!(rest, expected);
}

#[test]
fn an_event_about_a_mac_names_its_port_and_guest_for_as_long_as_they_are_there() {
    let bus = Bus::default();
    let mut listener = bus.listen();
    let address = Ipv4Addr::new(192, 168, 122, 7);
    let whose = |listener: &mut Listener| {
        let heard = heard(listener);
        let [Heard::Event(event)] = &heard[..] else { panic!("{heard:?}") };
        assert!(event.time > 1_700_000_000_000, "{event:?}");
        (event.interface.clone(), event.guest.clone())
    };
    bus.tell(lease("default", &change(LeaseKind::Leased(address.into()))));
    assert_eq!(whose(&mut listener), (None, None));
    bus.port_up(&vnet0());
    let named = (Some("vnet0".to_owned()), Some("vm1".to_owned()));
    assert_eq!(whose(&mut listener), named);
    bus.tell(lease("default", &change(LeaseKind::Renewed(address.into()))));
    assert_eq!(whose(&mut listener), named);
    bus.port_down(&vnet0());
    assert_eq!(whose(&mut listener), named);
    bus.tell(address_seen("default", MAC, address.into()));
    assert_eq!(whose(&mut listener), (None, None));
}

/// Notes what the listener knew when it was asked.
#[derive(Debug)]
struct First {
    listener: Mutex<Listener>,
    knew: Mutex<Vec<usize>>,
}

impl LeaseWatch for First {
    fn changed<'a>(
        &'a self,
        _network: &'a str,
        _changes: &'a [LeaseChange],
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.knew.lock().unwrap().push(heard(&mut self.listener.lock().unwrap()).len());
        })
    }
}

#[test]
fn who_must_know_first_has_answered_before_anyone_else_hears() {
    let bus = Bus::default();
    let mut listener = bus.listen();
    let first = Arc::new(First { listener: Mutex::new(bus.listen()), knew: Mutex::default() });
    let front = LeaseFront::new(first.clone(), bus);
    let changes = [change(LeaseKind::Discovering), change(LeaseKind::Leased(Ipv4Addr::new(10, 0, 0, 2).into()))];
    let mut telling = front.changed("default", &changes);
    assert!((&mut telling).now_or_never().is_none());
    assert_eq!(heard(&mut listener), []);
    assert!((&mut telling).now_or_never().is_some());
    assert_eq!(*first.knew.lock().unwrap(), [0]);
    let kinds: Vec<EventKind> = heard(&mut listener)
        .into_iter()
        .map(|heard| match heard {
            Heard::Event(event) => event.kind,
            missed => panic!("{missed:?}"),
        })
        .collect();
    assert_eq!(kinds, [EventKind::DiscoverSeen, EventKind::Leased]);
}
