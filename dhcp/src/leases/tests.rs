//! The table against random operations, and what it does that no packet shows.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    time::Duration,
};

use super::{Binding, Change, Holder, Table, keep};
use crate::{
    config::{LeaseTime, Mac},
    testing::Random,
};

fn mac(number: u64) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, number as u8])
}

fn address(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number as u8)
}

fn binding(client: u64, place: u64, ends: u64) -> Binding {
    Binding {
        mac: mac(client),
        address: address(place),
        hostname: Some(format!("h{client}")),
        client_id: None,
        granted: LeaseTime::Seconds(100),
        ends: Some(Duration::from_secs(ends)),
    }
}

const NOW: Duration = Duration::from_secs(10);

#[test]
fn of_two_stored_bindings_of_an_address_the_later_stays() {
    let table = Table::load([binding(1, 5, 200), binding(2, 5, 100)]);
    assert_eq!(table.holder(address(5), NOW), Holder::Leased(mac(1)));
    assert_eq!(table.binding(mac(2)), None);
}

#[test]
fn a_change_that_failed_is_taken_back_only_when_no_later_one_is_on_its_way() {
    let mut table = Table::load([binding(1, 5, 100)]);
    let (first, second) = (Change::Bind(binding(1, 6, 200)), Change::Bind(binding(1, 7, 300)));
    table.apply(first.clone(), 1);
    table.apply(second.clone(), 2);
    table.settle(&first, 1, false);
    assert_eq!(table.binding(mac(1)), Some(&binding(1, 7, 300)));
    table.settle(&second, 2, false);
    assert_eq!(table.binding(mac(1)), Some(&binding(1, 5, 100)));
}

#[test]
fn after_one_that_worked_and_one_that_failed_the_one_that_worked_stays() {
    let mut table = Table::default();
    let (first, second) = (Change::Bind(binding(1, 6, 200)), Change::Forget(mac(1)));
    table.apply(first.clone(), 1);
    table.apply(second.clone(), 2);
    table.settle(&first, 1, true);
    assert_eq!(table.binding(mac(1)), None);
    table.settle(&second, 2, false);
    assert_eq!(table.binding(mac(1)), Some(&binding(1, 6, 200)));
}

#[test]
fn an_address_given_away_since_does_not_come_back() {
    let mut table = Table::load([binding(1, 5, 100)]);
    let (gone, taken) = (Change::Forget(mac(1)), Change::Bind(binding(2, 5, 300)));
    table.apply(gone.clone(), 1);
    table.apply(taken.clone(), 2);
    table.settle(&gone, 1, false);
    table.settle(&taken, 2, true);
    assert_eq!(table.holder(address(5), NOW), Holder::Leased(mac(2)));
    assert_eq!(table.binding(mac(1)), None);
}

#[test]
fn sweeping_drops_what_is_over_and_nothing_else() {
    let mut table = Table::load([binding(1, 5, 20)]);
    let secs = Duration::from_secs;
    table.apply(Change::Offer { mac: mac(2), address: address(6), until: secs(60) }, 1);
    table.apply(Change::Offer { mac: mac(3), address: address(7), until: secs(90) }, 1);
    table.apply(Change::Quarantine { address: address(8), until: secs(60) }, 1);
    table.sweep(secs(60));
    assert_eq!((table.offers.len(), table.offered.len(), table.quarantine.len()), (1, 1, 0));
    assert_eq!(table.offer(mac(3), secs(60)), Some(address(7)));
    assert_eq!(table.holder(address(5), secs(60)), Holder::Remembered(mac(1), secs(20)));
    assert_eq!(table.next_end(NOW), Some(secs(20)));
    assert_eq!(table.next_end(secs(20)), None);
}

#[test]
fn an_address_is_nobody_elses_until_its_release_is_on_disk() {
    let mut table = Table::load([binding(1, 5, 100)]);
    let released = Change::Bind(binding(1, 5, 10));
    table.apply(released.clone(), 1);
    assert_eq!(table.holder(address(5), NOW), Holder::Leased(mac(1)));
    table.settle(&released, 1, true);
    assert_eq!(table.holder(address(5), NOW), Holder::Remembered(mac(1), NOW));
    let moved = Change::Bind(binding(1, 6, 100));
    table.apply(moved.clone(), 2);
    assert_eq!(table.holder(address(5), NOW), Holder::Nobody);
    table.settle(&moved, 2, true);
    let moved = Change::Bind(binding(1, 7, 100));
    table.apply(moved.clone(), 3);
    assert_eq!(table.holder(address(6), NOW), Holder::Leased(mac(1)));
    assert_eq!(table.holder(address(7), NOW), Holder::Leased(mac(1)));
    table.settle(&moved, 3, true);
    assert_eq!(table.holder(address(6), NOW), Holder::Nobody);
}

#[test]
fn an_address_on_its_way_to_the_disk_is_nobody_elses_though_its_client_has_moved_on() {
    let mut table = Table::load([binding(1, 5, 100)]);
    let (first, second) = (Change::Bind(binding(1, 6, 100)), Change::Bind(binding(1, 7, 100)));
    table.apply(first.clone(), 1);
    table.apply(second.clone(), 2);
    // Its client will be told of it, and has it again if the second write fails.
    assert_eq!(table.holder(address(6), NOW), Holder::Leased(mac(1)));
    table.settle(&first, 1, true);
    assert_eq!(table.holder(address(6), NOW), Holder::Leased(mac(1)));
    table.settle(&second, 2, true);
    assert_eq!(table.holder(address(6), NOW), Holder::Nobody);
    assert_eq!(table.holder(address(7), NOW), Holder::Leased(mac(1)));
}

/// Every index says the same as the bindings.
fn check(table: &Table) {
    assert_eq!(table.by_address.len(), table.bindings.len());
    for (mac, binding) in &table.bindings {
        assert_eq!(binding.mac, *mac);
        assert_eq!(table.by_address.get(&binding.address), Some(mac));
    }
    assert_eq!(table.ends.len(), table.bindings.values().filter(|binding| binding.ends.is_some()).count());
    for mac in table.by_name.values() {
        assert!(table.bindings.contains_key(mac));
    }
    let mut kept = BTreeMap::new();
    for one in table.unsettled.values() {
        let coming = one.coming.iter().map(|(_, binding)| binding);
        one.on_disk.iter().chain(coming).for_each(|binding| keep(&mut kept, binding));
    }
    assert_eq!(kept, table.kept);
    assert_eq!(table.offers.len(), table.offered.len());
    for (mac, offer) in &table.offers {
        assert_eq!(table.offered.get(&offer.address), Some(mac));
    }
}

#[test]
fn random_changes_keep_every_index_true_and_end_in_what_the_disk_has() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut table = Table::default();
        let mut disk: HashMap<Mac, Binding> = HashMap::new();
        let mut waiting: Vec<(Change, u64)> = Vec::new();
        for ticket in 1..200 {
            let client = random.below(6);
            // A place of the client's own, so that the model needs no rule for who wins.
            let place = client * 10 + random.below(3);
            let until = Duration::from_secs(random.below(500));
            let change = match random.below(6) {
                0 => Change::Offer { mac: mac(client), address: address(place), until },
                1 => Change::Withdraw(mac(client)),
                2 => Change::Quarantine { address: address(place), until },
                3 => Change::Forget(mac(client)),
                _ => Change::Bind(binding(client, place, random.below(500))),
            };
            table.apply(change.clone(), ticket);
            check(&table);
            if change.binding_of().is_some() {
                waiting.push((change, ticket));
            }
            while !waiting.is_empty() && random.once_in(3) {
                settle(&mut table, &mut disk, waiting.remove(0), !random.once_in(3));
            }
        }
        for waiting in waiting {
            settle(&mut table, &mut disk, waiting, !random.once_in(3));
        }
        assert!(table.unsettled.is_empty() && table.kept.is_empty());
        let table: HashMap<_, _> = table.bindings.into_iter().collect();
        assert_eq!(table, disk, "seed {seed}");
    }
}

fn settle(table: &mut Table, disk: &mut HashMap<Mac, Binding>, (change, ticket): (Change, u64), written: bool) {
    if written {
        match &change {
            Change::Bind(binding) => drop(disk.insert(binding.mac, binding.clone())),
            Change::Forget(mac) => drop(disk.remove(mac)),
            _ => {}
        }
    }
    table.settle(&change, ticket, written);
    check(table);
}
