//! Timetables: at t a message comes or time passes; what must leave then.

use super::*;
use crate::{
    config::DnsConfig,
    dns::{
        Names,
        testing::{PLAIN, of_question, opt, query, query_with, read, response, soa},
        wire::bits,
    },
};

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 122, 2));
const ONE: &str = "9.0.0.1:53";
const TWO: &str = "9.0.0.2:53";
const THREE: &str = "9.0.0.3:53";

/// A resolver with virtual time; clients are numbers.
struct Table {
    resolver: Resolver<u32>,
    start: Instant,
    now: Instant,
    next_client: u32,
    replies: Vec<(u32, Vec<u8>)>,
    asks: Vec<Sent>,
    forgotten: Vec<u64>,
}

/// A message to an upstream.
#[derive(Clone, Debug)]
struct Sent {
    ask: Ask,
    upstream: String,
    over: Transport,
    message: Vec<u8>,
}

impl Table {
    fn new(upstreams: &[&str]) -> Table {
        Table::with_limits(upstreams, Limits::default())
    }

    fn with_limits(upstreams: &[&str], limits: Limits) -> Table {
        let config = DnsConfig {
            listen: vec!["192.168.122.1".parse().unwrap()],
            forward: true,
            resolv_conf: "/etc/resolv.conf".into(),
            ..DnsConfig::default()
        };
        let names = Names { records: vec![("vm1".to_owned(), "192.168.122.101".parse().unwrap())] };
        let mut id = 0;
        let ids = move || {
            id += 1;
            id
        };
        let resolver = Resolver::new(Zone::new(&config, &names), true, limits, ids);
        let now = Instant::now();
        let mut table = Table {
            resolver,
            start: now,
            now,
            next_client: 0,
            replies: Vec::new(),
            asks: Vec::new(),
            forgotten: Vec::new(),
        };
        table.upstreams(upstreams);
        table
    }

    fn upstreams(&mut self, upstreams: &[&str]) {
        let addresses: Vec<SocketAddr> = upstreams.iter().map(|text| text.parse().unwrap()).collect();
        let mut out = Vec::new();
        self.resolver.set_routes(Routes::everything_to(addresses), self.now, &mut out);
        self.note(out);
    }

    fn note(&mut self, out: Vec<Action<u32>>) {
        for action in out {
            match action {
                Action::Reply { to, message } => self.replies.push((to, message)),
                Action::Ask { ask, upstream, over, message } => {
                    self.asks.push(Sent { ask, upstream: upstream.to_string(), over, message });
                }
                Action::Forget { lookup } => self.forgotten.push(lookup),
            }
        }
    }

    /// A client asks; its number.
    fn query_from(&mut self, address: IpAddr, over: Transport, message: &[u8]) -> u32 {
        self.next_client += 1;
        let mut out = Vec::new();
        self.resolver.query(address, over, self.next_client, message, self.now, &mut out);
        self.note(out);
        self.next_client
    }

    fn query(&mut self, message: &[u8]) -> u32 {
        self.query_from(CLIENT, Transport::Udp, message)
    }

    /// Lets time pass, waking the resolver when it wants to be woken and not otherwise.
    fn at(&mut self, milliseconds: u64) {
        let until = self.start + Duration::from_millis(milliseconds);
        while let Some(wake) = self.resolver.wake_at().filter(|wake| *wake <= until) {
            assert!(wake >= self.now, "it asks to be woken in the past");
            self.now = wake;
            let mut out = Vec::new();
            self.resolver.tick(self.now, &mut out);
            self.note(out);
            assert!(self.resolver.wake_at().is_none_or(|next| next > wake), "it would be woken for ever");
        }
        self.now = until;
    }

    fn reply(&mut self, to: &Sent, message: &[u8]) {
        let mut out = Vec::new();
        self.resolver.reply(to.ask, message, self.now, &mut out);
        self.note(out);
    }

    fn unreachable(&mut self, sent: &Sent) {
        let mut out = Vec::new();
        self.resolver.unreachable(sent.ask, self.now, &mut out);
        self.note(out);
    }

    /// What has been asked since the last look.
    fn asked(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.asks)
    }

    /// The one thing asked since the last look.
    fn sent(&mut self) -> Sent {
        let asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked.into_iter().next().unwrap()
    }

    /// The reply this client got since the last look, if any: the response code and the first address.
    fn got(&mut self, client: u32) -> Option<(u16, Option<String>)> {
        let place = self.replies.iter().position(|(to, _)| *to == client)?;
        let message = read(&self.replies.remove(place).1);
        let address = message.answers.first().map(|record| record.data.to_string());
        Some((message.metadata.response_code.into(), address))
    }

    /// Nothing waits, nothing is left.
    fn assert_idle(&self) {
        let r = &self.resolver;
        assert!(r.lookups.is_empty() && r.by_question.is_empty() && r.timers.is_empty());
        assert!(r.waiting == 0 && r.waiting_of.is_empty());
    }
}

fn good(sent: &Sent, last: u8) -> Vec<u8> {
    response(&sent.message, 0, [&[of_question(1, 60, &[198, 51, 100, last])], &[], &[opt(1232, 0, false, &[])]])
}

fn failing(sent: &Sent, code: u16) -> Vec<u8> {
    response(&sent.message, code, [&[], &[], &[opt(1232, 0, false, &[])]])
}

fn address(last: u8) -> Option<(u16, Option<String>)> {
    Some((rcode::NOERROR, Some(format!("198.51.100.{last}"))))
}

fn code(code: u16) -> Option<(u16, Option<String>)> {
    Some((code, None))
}

const SERVFAIL: Option<(u16, Option<String>)> = Some((rcode::SERVFAIL, None));

#[test]
fn a_known_name_is_answered_at_once_and_nobody_is_asked() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(7, "vm1", 1));
    assert_eq!(t.got(client), Some((0, Some("192.168.122.101".to_owned()))));
    assert!(t.asked().is_empty());
    t.assert_idle();
}

#[test]
fn an_answer_goes_to_the_client_and_into_the_cache() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    let sent = t.sent();
    assert_eq!((sent.upstream.as_str(), sent.over), (ONE, Transport::Udp));
    t.at(20);
    t.reply(&sent, &good(&sent, 1));
    assert_eq!(t.got(client), address(1));
    assert_eq!(t.forgotten, [sent.ask.lookup]);
    t.assert_idle();
    t.at(30_020);
    let again = t.query(&query(8, "A.example", 1));
    let message = read(&t.replies.last().unwrap().1);
    assert_eq!((message.metadata.id, message.answers[0].ttl), (8, 30));
    assert_eq!(t.got(again), address(1));
    assert!(t.asked().is_empty());
    t.at(60_020);
    t.query(&query(9, "a.example", 1));
    assert_eq!(t.sent().upstream, ONE, "asked again when the TTL is over");
}

#[test]
fn a_negative_answer_is_cached_too() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(7, "gone.example", 1));
    let sent = t.sent();
    t.reply(&sent, &response(&sent.message, rcode::NXDOMAIN, [&[], &[soa("example", 600, 60)], &[]]));
    assert_eq!(t.got(client), code(rcode::NXDOMAIN));
    t.at(59_999);
    let again = t.query(&query(8, "gone.example", 1));
    assert_eq!(t.got(again), code(rcode::NXDOMAIN));
    assert!(t.asked().is_empty());
}

#[test]
fn identical_questions_in_flight_are_asked_once_and_each_client_keeps_its_case() {
    let mut t = Table::new(&[ONE]);
    let first = t.query(&query(7, "www.Example.org", 1));
    let second = t.query(&query(8, "WWW.example.ORG", 1));
    let other = t.query(&query(9, "www.example.org", 28));
    let asked = t.asked();
    assert_eq!(asked.len(), 2, "one for each distinct question");
    t.reply(&asked[0], &good(&asked[0], 1));
    for (client, id, text) in [(first, 7, "www.Example.org."), (second, 8, "WWW.example.ORG.")] {
        let message = read(&t.replies.iter().find(|(to, _)| *to == client).unwrap().1);
        assert_eq!((message.metadata.id, message.queries[0].name().to_string()), (id, text.to_owned()));
        assert_eq!(message.answers[0].name.to_string(), text);
    }
    assert_eq!(t.got(other), None);
}

#[test]
fn ids_are_fresh_for_every_ask() {
    let mut t = Table::new(&[ONE, TWO]);
    t.query(&query(7, "a.example", 1));
    t.at(5_000);
    let ids: Vec<&[u8]> = t.asks.iter().map(|sent| &sent.message[..2]).collect();
    assert_eq!(ids, [[0, 1], [0, 2], [0, 3]]);
}

#[test]
fn a_silent_upstream_gives_the_turn_to_the_next_and_may_still_answer() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    let first = t.sent();
    t.at(1_499);
    assert!(t.asked().is_empty());
    t.at(1_500);
    let second = t.sent();
    assert_eq!(second.upstream, TWO);
    t.at(1_600);
    t.reply(&first, &good(&first, 1));
    assert_eq!(t.got(client), address(1));
    t.reply(&second, &good(&second, 2));
    assert_eq!(t.got(client), None, "a late one is dropped");
    t.assert_idle();
}

#[test]
fn when_all_are_silent_clients_hear_servfail_before_they_give_up() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    t.at(4_499);
    assert_eq!(t.asked().iter().map(|sent| sent.upstream.as_str()).collect::<Vec<_>>(), [ONE, TWO, ONE]);
    assert_eq!(t.got(client), None);
    t.at(4_500);
    assert_eq!(t.got(client), SERVFAIL);
    t.assert_idle();
}

#[test]
fn a_closed_port_gives_the_turn_to_the_next_at_once() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    let first = t.sent();
    t.unreachable(&first);
    let second = t.sent();
    assert_eq!(second.upstream, TWO);
    t.reply(&second, &good(&second, 2));
    assert_eq!(t.got(client), address(2));
}

#[test]
fn when_all_ports_are_closed_servfail_is_immediate() {
    let mut t = Table::new(&[ONE, TWO, THREE]);
    let client = t.query(&query(7, "a.example", 1));
    for upstream in [ONE, TWO, THREE] {
        let sent = t.sent();
        assert_eq!(sent.upstream, upstream);
        t.unreachable(&sent);
    }
    assert_eq!(t.got(client), SERVFAIL);
    assert_eq!(t.now, t.start);
    t.assert_idle();
}

#[test]
fn servfail_and_refused_give_the_turn_to_the_next() {
    for bad in [rcode::SERVFAIL, rcode::REFUSED, rcode::NOTIMP, rcode::FORMERR] {
        let mut t = Table::new(&[ONE, TWO]);
        let client = t.query(&query(7, "a.example", 1));
        let first = t.sent();
        t.reply(&first, &failing(&first, bad));
        let second = t.sent();
        assert_eq!(second.upstream, TWO);
        t.reply(&second, &good(&second, 2));
        assert_eq!(t.got(client), address(2), "after {bad}");
    }
}

#[test]
fn when_all_fail_the_client_hears_it_at_once_and_it_is_remembered_for_a_second() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    for _ in 0..2 {
        let sent = t.sent();
        t.reply(&sent, &failing(&sent, rcode::SERVFAIL));
    }
    assert_eq!(t.got(client), SERVFAIL);
    t.assert_idle();
    t.at(999);
    let again = t.query(&query(8, "a.example", 1));
    assert_eq!(t.got(again), SERVFAIL);
    assert!(t.asked().is_empty());
    t.at(1_000);
    t.query(&query(9, "a.example", 1));
    assert_eq!(t.sent().upstream, ONE);
}

#[test]
fn without_upstreams_servfail_is_immediate_and_not_remembered() {
    let mut t = Table::new(&[]);
    let client = t.query(&query(7, "a.example", 1));
    assert_eq!(t.got(client), SERVFAIL);
    t.upstreams(&[ONE]);
    t.query(&query(8, "a.example", 1));
    assert_eq!(t.sent().upstream, ONE);
}

#[test]
fn an_upstream_that_is_silent_three_times_in_a_row_is_asked_last_for_a_while() {
    let mut t = Table::new(&[ONE, TWO]);
    for round in 0..3 {
        let start = round * 2_000;
        t.at(start);
        let client = t.query(&query(7, &format!("r{round}.example"), 1));
        assert_eq!(t.sent().upstream, ONE);
        t.at(start + 1_500);
        let second = t.sent();
        t.reply(&second, &good(&second, 2));
        assert_eq!(t.got(client), address(2));
    }
    t.query(&query(7, "r3.example", 1));
    let sent = t.sent();
    assert_eq!(sent.upstream, TWO, "it rests");
    t.reply(&sent, &good(&sent, 2));
    t.at(5_500 + 9_999);
    t.query(&query(7, "r4.example", 1));
    let sent = t.sent();
    assert_eq!(sent.upstream, TWO);
    t.reply(&sent, &good(&sent, 2));
    t.at(5_500 + 10_000);
    t.query(&query(7, "r5.example", 1));
    let sent = t.sent();
    assert_eq!(sent.upstream, ONE, "it gets another chance");
    t.reply(&sent, &good(&sent, 1));
    t.query(&query(7, "r6.example", 1));
    assert_eq!(t.sent().upstream, ONE);
}

#[test]
fn while_all_are_known_to_be_silent_all_are_asked_at_once_and_servfail_comes_soon() {
    let mut t = Table::new(&[ONE, TWO]);
    for round in 0..3 {
        t.query(&query(7, &format!("r{round}.example"), 1));
    }
    t.at(4_500);
    assert_eq!(t.replies.len(), 3);
    t.asked();
    let client = t.query(&query(7, "again.example", 1));
    let asked = t.asked();
    assert_eq!(asked.iter().map(|sent| sent.upstream.as_str()).collect::<Vec<_>>(), [ONE, TWO]);
    t.at(4_500 + 1_500);
    assert_eq!(t.got(client), SERVFAIL);
    t.assert_idle();
    let client = t.query(&query(7, "back.example", 1));
    let asked = t.asked();
    t.reply(&asked[1], &good(&asked[1], 2));
    assert_eq!(t.got(client), address(2));
    t.query(&query(7, "more.example", 1));
    assert_eq!(t.sent().upstream, TWO, "the one that is back is asked alone");
}

#[test]
fn a_truncated_answer_is_asked_for_over_tcp() {
    let mut t = Table::new(&[ONE, TWO]);
    let client = t.query(&query(7, "a.example", 1));
    let first = t.sent();
    t.reply(&first, &failing(&first, bits::TRUNCATED));
    let second = t.sent();
    assert_eq!((second.upstream.as_str(), second.over), (ONE, Transport::Tcp));
    t.reply(&second, &good(&second, 1));
    assert_eq!(t.got(client), address(1));
}

#[test]
fn a_server_without_tcp_gives_the_turn_to_the_next() {
    let mut t = Table::new(&[ONE, TWO]);
    t.query(&query(7, "a.example", 1));
    let first = t.sent();
    t.reply(&first, &failing(&first, bits::TRUNCATED));
    let second = t.sent();
    t.unreachable(&second);
    let third = t.sent();
    assert_eq!((third.upstream.as_str(), third.over), (TWO, Transport::Udp));
}

#[test]
fn a_server_that_does_not_know_edns_is_asked_without() {
    for old in [rcode::FORMERR, rcode::NOTIMP] {
        let mut t = Table::new(&[ONE]);
        let client = t.query(&query(7, "a.example", 1));
        let first = t.sent();
        t.reply(&first, &response(&first.message, old, [&[], &[], &[]]));
        let second = t.sent();
        assert_eq!(second.upstream, ONE);
        assert!(read(&first.message).edns.is_some() && read(&second.message).edns.is_none());
        t.reply(&second, &good(&second, 1));
        assert_eq!(t.got(client), address(1));
    }
    let mut t = Table::new(&[ONE]);
    t.query(&query(7, "a.example", 1));
    let first = t.sent();
    t.reply(&first, &[first.message[0], first.message[1], 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(read(&t.sent().message).edns.is_none(), "a bare header will do");
}

#[test]
fn a_wrong_id_or_question_is_dropped_and_the_right_answer_taken() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(7, "a.example", 1));
    let sent = t.sent();
    let mut wrong_id = good(&sent, 66);
    wrong_id[0] ^= 1;
    t.reply(&sent, &wrong_id);
    let mut wrong_name = good(&sent, 66);
    wrong_name[13] ^= 1;
    t.reply(&sent, &wrong_name);
    let mut wrong_type = good(&sent, 66);
    wrong_type[24] ^= 1;
    t.reply(&sent, &wrong_type);
    t.reply(&sent, &sent.message.clone());
    t.reply(&sent, b"");
    assert_eq!(t.got(client), None);
    assert!(t.asked().is_empty());
    t.reply(&sent, &good(&sent, 1));
    assert_eq!(t.got(client), address(1));
}

#[test]
fn a_flood_of_wrong_answers_moves_the_question_to_tcp() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(7, "a.example", 1));
    let sent = t.sent();
    for guess in 100..108u16 {
        assert!(t.asks.is_empty());
        let mut forged = good(&sent, 66);
        forged[..2].copy_from_slice(&guess.to_be_bytes());
        t.reply(&sent, &forged);
    }
    let again = t.sent();
    assert_eq!((again.over, again.upstream.as_str()), (Transport::Tcp, ONE));
    t.reply(&sent, &good(&sent, 66));
    assert_eq!(t.got(client), None, "the guess that hits comes too late");
    t.reply(&again, &good(&again, 1));
    assert_eq!(t.got(client), address(1));
}

#[test]
fn an_answer_that_is_broken_is_a_failure() {
    let mut t = Table::new(&[ONE, TWO]);
    t.query(&query(7, "a.example", 1));
    let sent = t.sent();
    let whole = good(&sent, 1);
    t.reply(&sent, &whole[..whole.len() - 3]);
    assert_eq!(t.sent().upstream, TWO);
}

#[test]
fn a_duplicate_answer_is_dropped() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(7, "a.example", 1));
    let sent = t.sent();
    t.reply(&sent, &good(&sent, 1));
    t.reply(&sent, &good(&sent, 2));
    assert_eq!(t.got(client), address(1));
    assert_eq!(t.got(client), None);
    let again = t.query(&query(8, "a.example", 1));
    assert_eq!(t.got(again), address(1));
}

#[test]
fn over_the_clients_limit_is_refused_and_others_are_served() {
    let limits = Limits { total: 5, per_client: 2, ..Limits::default() };
    let mut t = Table::with_limits(&[ONE], limits);
    let other = |last| IpAddr::from([192, 168, 122, last]);
    t.query(&query(1, "a.example", 1));
    t.query(&query(2, "a.example", 1));
    let third = t.query(&query(3, "c.example", 1));
    assert_eq!(t.got(third), code(rcode::REFUSED), "waiting for the same counts too");
    let known = t.query(&query(4, "vm1", 1));
    assert!(t.got(known).is_some(), "what is known costs nothing");
    for last in [3, 4, 5] {
        let client = t.query_from(other(last), Transport::Udp, &query(1, "d.example", 1));
        assert_eq!(t.got(client), None);
    }
    let sixth = t.query_from(other(6), Transport::Udp, &query(1, "e.example", 1));
    assert_eq!(t.got(sixth), code(rcode::REFUSED), "the total");
    t.at(4_500);
    t.assert_idle();
    let again = t.query(&query(5, "f.example", 1));
    assert_eq!(t.got(again), None, "places are given back");
}

#[test]
fn the_clients_size_counts_over_udp_only() {
    let mut t = Table::new(&[ONE]);
    let small = t.query(&query(1, "a.example", 1));
    let large = t.query_from(CLIENT, Transport::Udp, &query_with(2, PLAIN, "a.example", 1, Some((4000, false))));
    let stream = t.query_from(CLIENT, Transport::Tcp, &query(3, "a.example", 1));
    let sent = t.sent();
    let records = vec![of_question(1, 60, &[1, 2, 3, 4]); 100];
    t.reply(&sent, &response(&sent.message, 0, [&records, &[], &[]]));
    let counts = [small, large, stream].map(|client| {
        let message = read(&t.replies.iter().find(|(to, _)| *to == client).unwrap().1);
        (message.metadata.truncation, message.answers.len())
    });
    assert_eq!(counts, [(true, 0), (false, 100), (false, 100)]);
}

#[test]
fn new_upstreams_are_asked_at_once_and_what_the_old_ones_said_is_forgotten() {
    let mut t = Table::new(&[ONE]);
    t.query(&query(1, "kept.example", 1));
    let sent = t.sent();
    t.reply(&sent, &good(&sent, 1));
    let waiting = t.query(&query(2, "waiting.example", 1));
    let old = t.sent();
    t.at(100);
    t.upstreams(&[TWO]);
    let new = t.sent();
    assert_eq!(new.upstream, TWO);
    t.query(&query(3, "kept.example", 1));
    let sent = t.sent();
    assert_eq!(sent.upstream, TWO, "the cache is empty");
    t.reply(&sent, &good(&sent, 2));
    t.reply(&old, &good(&old, 1));
    assert_eq!(t.got(waiting), address(1), "an old answer is better than none");
    t.query(&query(4, "waiting.example", 1));
    assert_eq!(t.sent().upstream, TWO, "but it is not kept");
}

#[test]
fn the_same_upstreams_again_change_nothing() {
    let mut t = Table::new(&[ONE]);
    t.query(&query(1, "kept.example", 1));
    let sent = t.sent();
    t.reply(&sent, &good(&sent, 1));
    t.upstreams(&[ONE]);
    let again = t.query(&query(2, "kept.example", 1));
    assert_eq!(t.got(again), address(1));
}

#[test]
fn when_all_upstreams_go_away_those_who_wait_are_told() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(1, "a.example", 1));
    let sent = t.sent();
    t.upstreams(&[]);
    t.unreachable(&sent);
    assert_eq!(t.got(client), SERVFAIL);
    t.assert_idle();
}

#[test]
fn malformed_queries_are_answered_or_not_as_the_wire_says() {
    let mut t = Table::new(&[ONE]);
    let client = t.query(&query(1, "a.example", 1)[..20]);
    assert_eq!(t.got(client), code(rcode::FORMERR));
    let client = t.query(b"\0\x01\x01");
    assert_eq!(t.got(client), None);
    t.assert_idle();
}

/// Random events against what must hold after each: everybody is answered exactly once, in time, and nothing is left.
#[test]
fn whatever_happens_every_client_is_answered_once_and_in_time() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..200 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let limits = Limits { total: 20, per_client: 12, ..Limits::default() };
        let mut t = Table::with_limits(&[ONE, TWO], limits);
        let mut clients = Vec::new();
        let (mut clock, mut open) = (0, Vec::new());
        for _ in 0..300 {
            open.append(&mut t.asks);
            match random.random_range(0..10) {
                0..3 => {
                    let text = format!("n{}.example", random.random_range(0..9));
                    let from = IpAddr::from([192, 168, 122, random.random_range(2..5)]);
                    clients.push((t.query_from(from, Transport::Udp, &query(1, &text, 1)), clock));
                }
                3..7 if !open.is_empty() => {
                    let sent: Sent = open.swap_remove(random.random_range(0..open.len()));
                    match random.random_range(0..7) {
                        0 => t.unreachable(&sent),
                        1 => t.reply(&sent, &failing(&sent, rcode::SERVFAIL)),
                        2 => t.reply(&sent, &failing(&sent, bits::TRUNCATED)),
                        3 => t.reply(&sent, b"junk of some length"),
                        4 => t.reply(&sent, &response(&sent.message, rcode::FORMERR, [&[], &[], &[]])),
                        _ => t.reply(&sent, &good(&sent, 1)),
                    }
                }
                7 => t.upstreams(&[[ONE, TWO], [TWO, THREE], [THREE, ONE]][random.random_range(0..3)]),
                _ => {
                    clock += random.random_range(0..900);
                    t.at(clock);
                }
            }
            let waiting: usize = t.resolver.lookups.values().map(|lookup| lookup.clients.len()).sum();
            assert_eq!(waiting, t.resolver.waiting);
            assert_eq!(waiting, t.resolver.waiting_of.values().sum::<usize>());
            assert_eq!(t.resolver.lookups.len(), t.resolver.timers.len());
            for (client, asked) in &clients {
                let answers = t.replies.iter().filter(|(to, _)| to == client).count();
                assert!(answers <= 1, "seed {seed}: client {client} has {answers} answers");
                assert!(answers == 1 || clock <= asked + 4_500, "seed {seed}: client {client} waits since {asked}");
            }
        }
        t.at(clock + 4_500);
        assert_eq!(t.replies.len(), clients.len(), "seed {seed}");
        t.assert_idle();
    }
}
