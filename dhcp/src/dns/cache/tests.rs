//! The cache under a clock of its own.

use super::*;
use crate::dns::{
    testing::{PLAIN, of_question, query_with, response, soa},
    wire::rcode,
};

fn parsed(text: &str) -> (Vec<u8>, Query) {
    let bytes = query_with(1, PLAIN, text, 1, None);
    let query = Query::parse(&bytes).unwrap();
    (bytes, query)
}

fn key(text: &str) -> Key {
    Key::of(&parsed(text).1)
}

fn positive(text: &str, ttl: u32) -> Reply {
    Reply::parse(&response(&parsed(text).0, 0, [&[of_question(1, ttl, &[192, 0, 2, 1])], &[], &[]])).unwrap()
}

fn negative(text: &str, ttl: u32) -> Reply {
    Reply::parse(&response(&parsed(text).0, rcode::NXDOMAIN, [&[], &[soa("example", ttl, ttl)], &[]])).unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How old the kept answer is, if it is kept.
fn age(cache: &mut Cache, text: &str, now: Instant) -> Option<u32> {
    cache.get(&key(text), now).map(|(_, age)| age)
}

#[test]
fn an_answer_is_kept_for_its_ttl_and_not_longer() {
    let (mut cache, start) = (Cache::new(Bounds::default()), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 30), start);
    assert_eq!(age(&mut cache, "a.example", start), Some(0));
    assert_eq!(age(&mut cache, "A.EXAMPLE", start + seconds(29)), Some(29));
    assert_eq!(age(&mut cache, "a.example", start + seconds(30)), None);
    assert_eq!(cache.octets, 0, "what is over is forgotten when it is found");
}

#[test]
fn an_answer_that_may_not_be_kept_is_not() {
    let (mut cache, start) = (Cache::new(Bounds::default()), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 0), start);
    assert_eq!(age(&mut cache, "a.example", start), None);
}

#[test]
fn lifetimes_have_a_ceiling() {
    let (mut cache, start) = (Cache::new(Bounds::default()), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 10_000_000), start);
    cache.insert(key("b.example"), negative("b.example", 10_000_000), start);
    assert!(age(&mut cache, "a.example", start + seconds(86_399)).is_some());
    assert!(age(&mut cache, "a.example", start + seconds(86_400)).is_none());
    assert!(age(&mut cache, "b.example", start + seconds(3_599)).is_some());
    assert!(age(&mut cache, "b.example", start + seconds(3_600)).is_none());
}

#[test]
fn rfc9520_a_failure_is_remembered_for_a_second() {
    let (mut cache, start) = (Cache::new(Bounds::default()), Instant::now());
    let failure = Reply::failure(&parsed("a.example").1, super::super::wire::Why::NoReachableAuthority);
    cache.insert(key("a.example"), failure, start);
    assert!(age(&mut cache, "a.example", start + Duration::from_millis(999)).is_some());
    assert!(age(&mut cache, "a.example", start + seconds(1)).is_none());
}

#[test]
fn questions_that_differ_in_do_cd_rd_or_type_have_answers_of_their_own() {
    let base = |flags, qtype, edns| Key::of(&Query::parse(&query_with(1, flags, "a.example", qtype, edns)).unwrap());
    let keys = [
        base(PLAIN, 1, None),
        base(PLAIN, 28, None),
        base(0, 1, None),
        base(PLAIN | bits::CHECKING_DISABLED, 1, None),
        base(PLAIN, 1, Some((1232, true))),
    ];
    for (place, one) in keys.iter().enumerate() {
        assert_eq!(keys.iter().position(|key| key == one), Some(place));
    }
    assert_eq!(base(PLAIN, 1, Some((4096, false))), keys[0], "the client's size makes no difference");
    assert_eq!(base(PLAIN | bits::AUTHENTIC, 1, None), keys[0], "nor does AD");
}

#[test]
fn the_least_recently_used_goes_first() {
    let bounds = Bounds { entries: 2, octets: 1 << 20 };
    let (mut cache, start) = (Cache::new(bounds), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 30), start);
    cache.insert(key("b.example"), positive("b.example", 30), start);
    assert!(age(&mut cache, "a.example", start).is_some());
    cache.insert(key("c.example"), positive("c.example", 30), start);
    assert!(age(&mut cache, "a.example", start).is_some());
    assert!(age(&mut cache, "b.example", start).is_none());
    assert!(age(&mut cache, "c.example", start).is_some());
}

#[test]
fn an_answer_too_big_for_the_cache_pushes_nothing_out() {
    let bounds = Bounds { entries: 10, octets: 8_000 };
    let (mut cache, start) = (Cache::new(bounds), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 30), start);
    let big = vec![of_question(1, 30, &[1; 4]); 200];
    let big = Reply::parse(&response(&parsed("b.example").0, 0, [&big, &[], &[]])).unwrap();
    cache.insert(key("b.example"), big, start);
    assert!(age(&mut cache, "a.example", start).is_some());
    assert!(age(&mut cache, "b.example", start).is_none());
}

#[test]
fn clearing_forgets_everything() {
    let (mut cache, start) = (Cache::new(Bounds::default()), Instant::now());
    cache.insert(key("a.example"), positive("a.example", 30), start);
    cache.clear();
    assert!(age(&mut cache, "a.example", start).is_none());
    assert_eq!((cache.octets, cache.order.len()), (0, 0));
}

/// A small model: what the cache says must be what a plain list would say, and its books must balance.
#[test]
fn random_use_keeps_the_bounds_and_the_books() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(2308);
    let bounds = Bounds { entries: 20, octets: 16_000 };
    let (mut cache, mut now) = (Cache::new(bounds), Instant::now());
    let mut model: HashMap<String, (Instant, Instant)> = HashMap::new();
    for _ in 0..20_000 {
        let text = format!("n{}.example", random.random_range(0..40));
        now += Duration::from_millis(random.random_range(0..400));
        if random.random_bool(0.4) {
            let ttl = random.random_range(0..20);
            cache.insert(key(&text), positive(&text, ttl), now);
            if ttl > 0 {
                model.insert(text, (now, now + seconds(ttl.into())));
            }
        } else if let Some(age) = age(&mut cache, &text, now) {
            let (stored, expires) = model[&text];
            assert!(now < expires, "{text} is over");
            assert_eq!(u64::from(age), (now - stored).as_secs());
        }
        assert!(cache.entries.len() <= bounds.entries && cache.octets <= bounds.octets);
        assert_eq!(cache.order.len(), cache.entries.len());
        assert_eq!(cache.octets, cache.entries.values().map(|entry| entry.cost).sum::<usize>());
    }
}
