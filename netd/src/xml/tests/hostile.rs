//! Nothing that anybody sends makes `parse` panic, hang or eat the memory; what it accepts survives a round trip.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{golden_inputs, parse, write};

fn check(text: &str) {
    if let Ok(network) = parse(text) {
        let written = write(&network);
        assert_eq!(parse(&written).as_ref(), Ok(&network), "{text}\n{written}");
    }
}

/// What a mutation may put into a text.
const PIECES: [&str; 24] = [
    "<",
    ">",
    "/>",
    "</",
    "'",
    "\"",
    "&",
    "&#x0;",
    "&#x10ffff;",
    "&amp;",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "<?",
    "\u{0}",
    "\u{202e}",
    "é",
    "0",
    "-1",
    "4294967296",
    "255.255.255.255",
    " xmlns:a='b' a:c='d'",
    "\n",
];

fn mutate(random: &mut impl Rng, text: &str) -> String {
    let mut characters: Vec<char> = text.chars().collect();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=characters.len());
        let end = random.random_range(at..=characters.len().min(at + 40));
        match random.random_range(0..4) {
            0 => drop(characters.drain(at..end)),
            1 => {
                let piece: Vec<char> = characters[at..end].to_vec();
                let to = random.random_range(0..=characters.len());
                characters.splice(to..to, piece);
            }
            2 => drop(characters.splice(at..at, PIECES[random.random_range(0..PIECES.len())].chars())),
            _ => {
                if let Some(c) = characters.get_mut(at) {
                    *c = char::from(random.random_range(b'!'..=b'~'));
                }
            }
        }
    }
    characters.into_iter().collect()
}

#[test]
fn mutated_networks_are_refused_or_survive_a_round_trip() {
    let inputs = golden_inputs();
    let mut random = StdRng::seed_from_u64(20_261_120);
    for round in 0..20_000 {
        let (_, text) = &inputs[round % inputs.len()];
        check(&mutate(&mut random, text));
    }
}

#[test]
fn huge_texts_are_refused_quickly() {
    let many = |n: usize, piece: &dyn Fn(usize) -> String| (0..n).map(piece).collect::<String>();
    for (what, text) in [
        ("deep nesting", "<a>".repeat(500_000)),
        ("a long text", format!("<network><name>{}</name></network>", "x".repeat(3_000_000))),
        ("too long a text", " ".repeat(5_000_000)),
        ("many elements", format!("<network>{}</network>", "<ip/>".repeat(500_000))),
        ("many attributes", format!("<network {}/>", many(300_000, &|n| format!(" a{n}=''")))),
        (
            "many attributes in each of many tags",
            format!("<a>{}</a>", many(4000, &|_| { format!("<b {}/>", many(120, &|n| format!(" a{n}=''"))) })),
        ),
        ("name spaces in each other", many(50_000, &|n| format!("<a xmlns:b{n}='c'>"))),
        ("an open quote", format!("<network a='{}", "x".repeat(3_000_000))),
        ("many open brackets", "<".repeat(3_000_000)),
        ("an open comment", format!("<!--{}", "<!--".repeat(700_000))),
        ("entities", format!("<!DOCTYPE a [<!ENTITY b '{}'>]><a>&b;</a>", "b".repeat(1_000_000))),
        (
            "routes and subnets",
            format!(
                "<network><name>a</name>{}{}</network>",
                many(20_000, &|n| format!("<ip address='10.{}.{}.1' prefix='24'/>", n / 256, n % 256)),
                many(20_000, &|_| "<route address='1.0.0.0' prefix='8' gateway='10.70.1.2'/>".to_owned())
            ),
        ),
    ] {
        let start = Instant::now();
        let refused = parse(&text).err();
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", start.elapsed());
        if what != "routes and subnets" {
            let message = refused.expect(what).to_string();
            assert!(message.len() < 300 && !message.contains('\n'), "{what}: {message}");
        }
    }
}
