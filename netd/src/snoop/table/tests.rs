//! Who is believed, for how long, and how much.

use super::*;

const ONE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const TWO: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);
const STRANGER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 9]);
const NET: &str = "office";

fn table() -> (Table, Instant) {
    let mut table = Table::default();
    table.set_ports(NET, &[ONE, TWO]);
    (table, Instant::now())
}

fn ip(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn has(mac: MacAddr, number: u8) -> Word {
    Word::Has(mac, ip(number), Origin::Arp)
}

fn wants(mac: MacAddr) -> (Word, IpAddr) {
    let address = "fe80::1".parse().unwrap();
    (Word::Wants(mac, address), address)
}

fn addresses(table: &Table, mac: MacAddr, now: Instant) -> Vec<IpAddr> {
    table.of(mac, now).into_iter().map(|seen| seen.address).collect()
}

#[test]
fn an_address_is_news_once_and_its_age_counts_from_the_last_time() {
    let (mut table, start) = table();
    let sighting = table.hear(NET, has(ONE, 7), start).expect("news");
    assert_eq!(sighting, Sighting { network: NET.into(), mac: ONE, address: ip(7), origin: Origin::Arp });
    let later = start + Duration::from_secs(30);
    let renewed = Word::Has(ONE, ip(7), Origin::Dhcp);
    assert_eq!(table.hear(NET, renewed, later), None);
    let seen = table.of(ONE, later + Duration::from_secs(5));
    assert_eq!(seen, [Seen { address: ip(7), origin: Origin::Dhcp, age: 5 }]);
}

#[test]
fn only_ports_of_the_network_speak_and_only_for_themselves() {
    let (mut table, now) = table();
    assert_eq!(table.hear(NET, has(STRANGER, 7), now), None);
    assert_eq!(table.hear("lab", has(ONE, 7), now), None, "another network's bridge");
    assert_eq!(table.hear("lab", wants(ONE).0, now), None);
    assert_eq!(table.hear("lab", Word::Gives(STRANGER, ONE, ip(7)), now), None);
    assert_eq!(table.hear(NET, Word::Gives(TWO, ONE, ip(7)), now), None, "a guest is no DHCP server");
    assert_eq!((table.of(ONE, now), table.of(TWO, now)), (vec![], vec![]));
    assert!(table.hear(NET, Word::Gives(STRANGER, ONE, ip(7)), now).is_some());
    assert_eq!(addresses(&table, ONE, now), [ip(7)]);
}

#[test]
fn an_address_has_one_owner_the_last_who_spoke() {
    let (mut table, now) = table();
    table.hear(NET, has(ONE, 7), now);
    assert!(table.hear(NET, has(TWO, 7), now).is_some());
    assert_eq!((addresses(&table, ONE, now), addresses(&table, TWO, now)), (vec![], vec![ip(7)]));
    assert!(table.hear(NET, has(ONE, 7), now).is_some(), "it moved back");
}

#[test]
fn who_asks_whether_it_may_have_an_address_has_it_until_another_objects() {
    let (mut table, now) = table();
    let (word, address) = wants(ONE);
    assert!(table.hear(NET, word, now).is_some());
    assert_eq!(addresses(&table, ONE, now), [address]);
    assert_eq!(table.hear(NET, wants(TWO).0, now), None, "the first has it");
    table.hear(NET, Word::Has(STRANGER, address, Origin::Nd), now);
    assert_eq!(addresses(&table, ONE, now), [] as [IpAddr; 0]);

    table.hear(NET, word, now);
    table.hear(NET, Word::Has(ONE, address, Origin::Nd), now);
    table.hear(NET, Word::Has(STRANGER, address, Origin::Nd), now);
    assert_eq!(addresses(&table, ONE, now), [address], "it is in use: a stranger's word is not enough");
}

#[test]
fn a_released_address_and_a_port_that_is_gone_leave_nothing() {
    let (mut table, now) = table();
    table.hear(NET, has(ONE, 7), now);
    table.hear(NET, Word::Leaves(TWO, ip(7)), now);
    assert_eq!(addresses(&table, ONE, now), [ip(7)], "one releases one's own");
    table.hear(NET, Word::Leaves(ONE, ip(7)), now);
    table.hear(NET, has(ONE, 8), now);
    table.set_ports(NET, &[TWO]);
    assert_eq!(addresses(&table, ONE, now), [] as [IpAddr; 0]);
    assert!(table.owners.is_empty());
    table.set_ports("lab", &[ONE]);
    table.set_ports(NET, &[TWO, ONE]);
    assert!(table.hear(NET, has(ONE, 8), now).is_some(), "the MAC is on another network now");
}

#[test]
fn an_address_not_seen_for_a_day_goes_but_the_last_one_stays() {
    let (mut table, start) = table();
    let hour = Duration::from_hours(1);
    table.hear(NET, has(ONE, 7), start);
    table.hear(NET, has(ONE, 8), start + hour);
    table.hear(NET, Word::Has(ONE, "fe80::1".parse().unwrap(), Origin::Nd), start);
    assert_eq!(table.of(ONE, start + hour * 23).len(), 3);
    let late = addresses(&table, ONE, start + hour * 48);
    assert_eq!(late, [ip(8), "fe80::1".parse().unwrap()], "one of each family");
}

#[test]
fn a_guest_that_claims_many_addresses_loses_only_its_own() {
    let (mut table, start) = table();
    table.hear(NET, has(TWO, 1), start);
    for number in 2..=250 {
        table.hear(NET, has(ONE, number), start + Duration::from_secs(number.into()));
    }
    let now = start + Duration::from_secs(300);
    assert_eq!(addresses(&table, TWO, now), [ip(1)]);
    let kept = addresses(&table, ONE, now);
    assert_eq!((kept.len(), kept[0], kept[15]), (MOST_PER_PORT, ip(250), ip(235)));
    assert_eq!(table.owners.len(), MOST_PER_PORT + 1);
}

#[test]
fn all_ports_together_keep_no_more_than_the_table_holds() {
    let mut table = Table::default();
    let now = Instant::now();
    let mac = |n: u32| MacAddr([0x52, 0x54, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8]);
    let ports: Vec<MacAddr> = (0..5_000).map(mac).collect();
    table.set_ports(NET, &ports);
    for (n, &mac) in (0_u32..).zip(&ports) {
        for k in 0..16 {
            table.hear(
                NET,
                Word::Has(mac, std::net::Ipv4Addr::from(0x0a00_0000 + n * 16 + k).into(), Origin::Arp),
                now,
            );
        }
    }
    assert_eq!(table.owners.len(), MOST);
    let entries: usize = table.ports.values().map(|port| port.entries.len()).sum();
    assert_eq!(entries, MOST);
}

#[test]
fn a_guest_that_makes_addresses_up_is_soon_no_news() {
    let (mut table, start) = table();
    let told =
        |table: &mut Table, now| (1..=200).filter(|&number| table.hear(NET, has(ONE, number), now).is_some()).count();
    assert_eq!(told(&mut table, start), 32);
    assert_eq!(table.of(ONE, start).len(), MOST_PER_PORT, "they are listed all the same");
    assert!(table.hear(NET, has(TWO, 1), start).is_some(), "others are news");
    assert_eq!(told(&mut table, start + NEWS_PERIOD), 32);
}
