//! The wire format held against RFC 1035, 2308, 6840 and 6891, and against another codec.

use hickory_proto::rr::{RData, RecordType};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::{name::skip, *};
use crate::dns::testing::{PLAIN, name, of_question, opt, query, query_with, read, record, response, soa};

fn parsed(bytes: &[u8]) -> Query {
    Query::parse(bytes).expect("a good query")
}

fn refused(bytes: &[u8]) -> Refusal {
    Query::parse(bytes).expect_err("a bad query")
}

fn rcode_of(refusal: &Refusal) -> Option<u16> {
    emit_refusal(refusal).map(|message| read(&message).metadata.response_code.into())
}

fn emit(reply: &Reply, to: &[u8], limit: usize, age: u32) -> Vec<u8> {
    reply.emit(Requester { query: &parsed(to), limit, age, cached: age > 0 })
}

const ADDRESS: [u8; 4] = [192, 0, 2, 1];

mod names {
    use super::*;

    #[test]
    fn a_name_of_255_octets_is_read_and_one_of_256_is_not() {
        let longest =
            [vec![[&[63u8][..], &[b'a'; 63]].concat(); 3].concat(), [&[61u8][..], &[b'a'; 61]].concat(), vec![0]]
                .concat();
        assert_eq!(longest.len(), 255);
        assert_eq!(Name::parse(&longest, 0).map(|name| name.bytes().len()), Ok(255));
        let mut longer = longest.clone();
        longer[192] = 62;
        longer.insert(193, b'a');
        assert_eq!(Name::parse(&longer, 0), Err(WireError::NameTooLong { offset: 0 }));
        assert_eq!(skip(&longer, 0), Err(WireError::NameTooLong { offset: 0 }));
    }

    #[test]
    fn a_label_of_64_octets_is_no_label_and_no_pointer() {
        let bytes = [&[64u8][..], &[b'a'; 64], &[0]].concat();
        assert_eq!(Name::parse(&bytes, 0), Err(WireError::LabelKind { offset: 0, kind: 64 }));
        assert_eq!(Name::from_text(&"a".repeat(64)), None);
    }

    #[test]
    fn a_name_without_an_end_says_what_is_missing() {
        let short = WireError::Short { what: "label", offset: 4, needed: 1, had: 0 };
        assert_eq!(Name::parse(b"\x03abc", 0), Err(short));
    }

    #[test]
    fn text_with_an_empty_label_is_no_name() {
        for text in ["", ".", "a..b", ".a"] {
            assert_eq!(Name::from_text(text), None, "{text:?}");
        }
        assert_eq!(Name::from_text("a.b."), Name::from_text("a.b"));
    }

    #[test]
    fn a_pointer_goes_backwards_or_is_refused() {
        // 12: "a.", 15: pointer to 12, 17: pointer to itself, 19: pointer to 21, 21: "b" and a pointer to 21.
        let mut bytes = vec![0; 12];
        bytes.extend(b"\x01a\0\xc0\x0c\xc0\x11\xc0\x15\x01b\xc0\x15");
        assert_eq!(skip(&bytes, 15), Ok(17));
        assert_eq!(skip(&bytes, 17), Err(WireError::PointerForward { offset: 17 }));
        assert_eq!(skip(&bytes, 19), Err(WireError::PointerForward { offset: 19 }));
        assert_eq!(skip(&bytes, 21), Err(WireError::PointerForward { offset: 23 }));
    }

    #[test]
    fn a_pointer_into_the_header_is_refused() {
        let mut bytes = vec![0; 12];
        bytes.extend(b"\xc0\x02");
        assert_eq!(skip(&bytes, 12), Err(WireError::PointerForward { offset: 12 }));
    }

    #[test]
    fn a_long_chain_of_pointers_is_refused() {
        let mut bytes = vec![0; 13];
        for at in 12u16..2000 {
            let previous = if at == 12 { 12 } else { 13 + (at - 13) * 2 };
            bytes.extend((0xc000 | previous).to_be_bytes());
        }
        assert_eq!(skip(&bytes, bytes.len() - 2), Err(WireError::NameTooLong { offset: bytes.len() - 2 }));
        assert_eq!(skip(&bytes, 13 + 2 * 100), Ok(13 + 2 * 101));
    }

    #[test]
    fn reverse_names_and_addresses_stand_for_each_other() {
        for text in ["192.168.122.77", "0.0.0.0", "2001:db8::a:b", "::1"] {
            let address = text.parse().unwrap();
            assert_eq!(Name::reverse(address).reversed_address(), Some(address), "{text}");
        }
        assert_eq!(Name::reverse("192.168.122.77".parse().unwrap()).to_string(), "77.122.168.192.in-addr.arpa.");
        for text in
            ["07.122.168.192.in-addr.arpa", "256.1.1.1.in-addr.arpa", "1.1.1.in-addr.arpa", "+1.1.1.1.in-addr.arpa"]
        {
            assert_eq!(name(text).reversed_address(), None, "{text}");
        }
    }
}

mod queries {
    use super::*;

    #[test]
    fn what_is_too_short_or_a_response_gets_no_answer() {
        let whole = query(1, "a.example", rtype::A);
        for length in 0..HEADER {
            assert_eq!(refused(&whole[..length]), Refusal::Silent, "{length} octets");
        }
        assert_eq!(refused(&query_with(1, bits::RESPONSE, "a.example", rtype::A, None)), Refusal::Silent);
        assert_eq!(emit_refusal(&Refusal::Silent), None);
    }

    #[test]
    fn another_opcode_is_not_implemented() {
        let refusal = refused(&query_with(7, 0x2800, "a.example", rtype::SOA, None));
        assert_eq!(rcode_of(&refusal), Some(rcode::NOTIMP));
        assert_eq!(emit_refusal(&refusal).map(|m| m[..2].to_vec()), Some(vec![0, 7]));
    }

    #[test]
    fn anything_but_one_question_is_a_format_error() {
        for (count_at, value) in [(5, 0), (5, 2), (7, 1), (9, 1), (11, 1)] {
            let mut bytes = query(1, "a.example", rtype::A);
            bytes[count_at] = value;
            assert_eq!(rcode_of(&refused(&bytes)), Some(rcode::FORMERR), "count at {count_at} is {value}");
        }
        let whole = query(1, "a.example", rtype::A);
        for length in HEADER..whole.len() {
            assert_eq!(rcode_of(&refused(&whole[..length])), Some(rcode::FORMERR), "{length} octets");
        }
    }

    #[test]
    fn two_opt_records_or_one_with_a_name_are_a_format_error() {
        let mut two = query_with(1, PLAIN, "a.example", rtype::A, Some((1232, false)));
        two.extend(opt(1232, 0, false, &[]));
        two[11] = 2;
        assert_eq!(rcode_of(&refused(&two)), Some(rcode::FORMERR));
        let mut named = query(1, "a.example", rtype::A);
        named.extend(record("a", rtype::OPT, 0, &[]));
        named[11] = 1;
        assert_eq!(rcode_of(&refused(&named)), Some(rcode::FORMERR));
    }

    #[test]
    fn rfc6891_an_unknown_version_is_badvers_with_our_own_opt() {
        let mut bytes = query_with(1, PLAIN, "a.example", rtype::A, Some((1232, false)));
        let version = bytes.len() - 5;
        bytes[version] = 1;
        let reply = read(&emit_refusal(&refused(&bytes)).unwrap());
        assert_eq!(u16::from(reply.metadata.response_code), rcode::BADVERS);
        assert_eq!(reply.edns.map(|edns| edns.version()), Some(0));
    }

    #[test]
    fn the_clients_size_is_honoured_within_512_and_4096() {
        assert_eq!(parsed(&query(1, "a", rtype::A)).udp_limit(), 512);
        for (said, meant) in [(0, 512), (511, 512), (1400, 1400), (65535, 4096)] {
            assert_eq!(parsed(&query_with(1, PLAIN, "a", rtype::A, Some((said, false)))).udp_limit(), meant);
        }
    }

    #[test]
    fn what_we_ask_upstream_is_ours_but_for_the_question_and_rd_cd_do() {
        let flags = bits::RECURSION_DESIRED | bits::CHECKING_DISABLED;
        let client = parsed(&query_with(1, flags, "WwW.Example.ORG", rtype::AAAA, Some((4096, true))));
        let asked = read(&emit_upstream_query(&client, 0x1234, true));
        assert_eq!(asked.metadata.id, 0x1234);
        assert!(asked.metadata.recursion_desired && asked.metadata.checking_disabled && asked.metadata.authentic_data);
        assert_eq!(asked.queries[0].name().to_string(), "www.example.org.");
        assert_eq!(asked.queries[0].query_type(), RecordType::AAAA);
        let edns = asked.edns.expect("an OPT of ours");
        assert_eq!((edns.max_payload(), edns.flags().dnssec_ok), (1232, true));
        let plain = read(&emit_upstream_query(&client, 1, false));
        assert!(plain.edns.is_none());
    }
}

mod replies {
    use super::*;

    #[test]
    fn the_bytes_of_an_answer_are_kept_but_for_id_case_and_opt() {
        let asked = query_with(9, PLAIN, "www.example.org", rtype::A, Some((1232, true)));
        let odd = record("x.example", 65280, 7, b"\xc0\x0c\xff octets \0 of no known type");
        let answers = [of_question(46, 300, b"a signature"), odd, of_question(rtype::A, 300, &ADDRESS)];
        let came =
            response(&asked, bits::AUTHENTIC, [&answers, &[record("org", 43, 9, b"ds")], &[opt(1400, 0, true, &[])]]);
        let to = query_with(0x4242, PLAIN, "wWw.example.ORG", rtype::A, Some((1232, true)));
        let sent = emit(&Reply::parse(&came).unwrap(), &to, LONGEST, 0);
        assert_eq!(&sent[..2], [0x42, 0x42]);
        let question = parsed(&to).question_end();
        assert_eq!(sent[12..question], to[12..question], "the client's own spelling");
        let records = sent.len() - 11;
        assert_eq!(sent[question..records], came[question..came.len() - 11]);
        assert_eq!(sent[records..], opt(1232, 0, true, &[]));
        assert_eq!(sent[2..12], came[2..12]);
    }

    #[test]
    fn rfc6891_a_client_without_opt_gets_none() {
        let asked = query(9, "a.example", rtype::A);
        let came = response(&asked, 0, [&[of_question(rtype::A, 5, &ADDRESS)], &[], &[opt(1400, 0, false, &[])]]);
        let sent = read(&emit(&Reply::parse(&came).unwrap(), &asked, LONGEST, 0));
        assert!(sent.edns.is_none() && sent.additionals.is_empty() && sent.answers.len() == 1);
    }

    #[test]
    fn an_opt_that_is_not_last_takes_what_follows_with_it() {
        let asked = query(9, "a.example", rtype::A);
        let glue = record("ns.example", rtype::A, 5, &ADDRESS);
        let came = response(
            &asked,
            0,
            [&[of_question(rtype::A, 5, &ADDRESS)], &[], &[glue.clone(), opt(1400, 0, false, &[]), glue]],
        );
        let sent = read(&emit(&Reply::parse(&came).unwrap(), &asked, LONGEST, 1));
        assert_eq!((sent.answers.len(), sent.additionals.len()), (1, 1));
    }

    #[test]
    fn an_opt_elsewhere_or_twice_is_refused() {
        let asked = query(9, "a.example", rtype::A);
        let stray = opt(1400, 0, false, &[]);
        let wrong = response(&asked, 0, [std::slice::from_ref(&stray), &[], &[]]);
        assert_eq!(Reply::parse(&wrong), Err(WireError::StrayOpt));
        assert_eq!(Reply::parse(&response(&asked, 0, [&[], &[], &[stray.clone(), stray]])), Err(WireError::StrayOpt));
    }

    #[test]
    fn what_follows_the_last_record_is_cut_off() {
        let asked = query(9, "a.example", rtype::A);
        let mut came = response(&asked, 0, [&[of_question(rtype::A, 5, &ADDRESS)], &[], &[]]);
        let length = came.len();
        came.extend(b"left over");
        assert_eq!(emit(&Reply::parse(&came).unwrap(), &asked, LONGEST, 0).len(), length);
    }

    #[test]
    fn ttls_count_down_and_end_at_zero() {
        let asked = query(9, "a.example", rtype::A);
        let answers = [of_question(rtype::A, 300, &ADDRESS), of_question(rtype::A, 20, &ADDRESS)];
        let came = response(&asked, 0, [&answers, &[record("example", rtype::NS, u32::MAX, b"\0")], &[]]);
        let sent = read(&emit(&Reply::parse(&came).unwrap(), &asked, LONGEST, 30));
        let ttls: Vec<u32> = sent.all_sections().map(|record| record.ttl).collect();
        assert_eq!(ttls, [270, 0, 0], "a TTL with the top bit set is 0 (RFC 2181 §8)");
    }

    #[test]
    fn rfc6840_ad_is_for_clients_that_asked_for_it() {
        let asked = query(9, "a.example", rtype::A);
        let reply =
            Reply::parse(&response(&asked, bits::AUTHENTIC, [&[of_question(1, 5, &ADDRESS)], &[], &[]])).unwrap();
        let authentic = |flags, edns| {
            read(&emit(&reply, &query_with(1, flags, "a.example", 1, edns), LONGEST, 0)).metadata.authentic_data
        };
        assert!(!authentic(PLAIN, None));
        assert!(!authentic(PLAIN, Some((1232, false))));
        assert!(authentic(PLAIN | bits::AUTHENTIC, None));
        assert!(authentic(PLAIN, Some((1232, true))));
    }

    #[test]
    fn a_long_answer_is_cut_to_the_question_with_tc_and_opt() {
        let asked = query_with(9, PLAIN, "a.example", rtype::A, Some((600, false)));
        let answers = vec![of_question(rtype::A, 5, &ADDRESS); 60];
        let reply = Reply::parse(&response(&asked, 0, [&answers, &[], &[]])).unwrap();
        let cut = emit(&reply, &asked, parsed(&asked).udp_limit(), 0);
        let message = read(&cut);
        assert!(message.metadata.truncation && message.answers.is_empty() && message.edns.is_some());
        assert!(cut.len() <= 600);
        assert_eq!(read(&emit(&reply, &asked, LONGEST, 0)).answers.len(), 60);
    }

    #[test]
    fn a_long_extended_response_code_needs_edns() {
        let asked = query_with(9, PLAIN, "a.example", rtype::A, Some((1232, false)));
        let reply = Reply::parse(&response(&asked, 7, [&[], &[], &[opt(1400, 1, false, &[])]])).unwrap();
        assert_eq!(reply.rcode(), 0x17);
        assert_eq!(u16::from(read(&emit(&reply, &asked, LONGEST, 0)).metadata.response_code), 0x17);
        let plain = read(&emit(&reply, &query(9, "a.example", rtype::A), LONGEST, 0));
        assert_eq!(u16::from(plain.metadata.response_code), rcode::SERVFAIL);
    }

    #[test]
    fn rfc8914_extended_errors_are_passed_on_and_other_options_are_not() {
        let asked = query_with(9, PLAIN, "a.example", rtype::A, Some((1232, false)));
        let options = b"\x00\x0a\x00\x08cookie!!\x00\x0f\x00\x04\x00\x06ab\x00\x03\x00\x01x";
        let reply = Reply::parse(&response(&asked, 2, [&[], &[], &[opt(1400, 0, false, options)]])).unwrap();
        let sent = emit(&reply, &asked, LONGEST, 0);
        assert!(sent.ends_with(&opt(1232, 0, false, b"\x00\x0f\x00\x04\x00\x06ab")));
    }

    #[test]
    fn rfc2308_a_negative_answer_lives_as_long_as_its_soa_says() {
        let asked = query(9, "a.example", rtype::A);
        let lifetime = |flags, answers: &[Vec<u8>], authority: &[Vec<u8>]| {
            Reply::parse(&response(&asked, flags, [answers, authority, &[]])).unwrap().lifetime()
        };
        assert_eq!(lifetime(rcode::NXDOMAIN, &[], &[soa("example", 600, 60)]), Some(60));
        assert_eq!(lifetime(rcode::NXDOMAIN, &[], &[soa("example", 30, 60)]), Some(30));
        assert_eq!(lifetime(0, &[], &[soa("example", 600, 60)]), Some(60), "NODATA");
        let alias = of_question(5, 10, b"\x01b\0");
        assert_eq!(
            lifetime(0, std::slice::from_ref(&alias), &[soa("example", 600, 60)]),
            Some(10),
            "an alias to nothing"
        );
        assert_eq!(lifetime(rcode::NXDOMAIN, &[], &[]), None, "no SOA (§5)");
        assert_eq!(lifetime(0, &[], &[record("example", rtype::NS, 60, b"\0")]), None, "a referral");
        assert_eq!(lifetime(rcode::NXDOMAIN, &[], &[soa("example", 600, 0)]), None);
    }

    #[test]
    fn rfc2308_a_kept_soa_counts_down_from_the_negative_ttl() {
        let asked = query(9, "a.example", rtype::A);
        let reply = Reply::parse(&response(&asked, rcode::NXDOMAIN, [&[], &[soa("example", 600, 60)], &[]])).unwrap();
        let ttl = |age| read(&emit(&reply, &asked, LONGEST, age)).authorities[0].ttl;
        assert_eq!((ttl(0), ttl(10)), (600, 50));
    }

    #[test]
    fn an_answer_lives_as_long_as_its_shortest_record_and_a_failure_not_at_all() {
        let asked = query(9, "a.example", rtype::A);
        let answers = [of_question(rtype::A, 300, &ADDRESS), of_question(rtype::A, 20, &ADDRESS)];
        let glue = [record("ns.example", rtype::A, 1, &ADDRESS)];
        let lifetime = |flags| Reply::parse(&response(&asked, flags, [&answers, &[], &glue])).unwrap().lifetime();
        assert_eq!(lifetime(0), Some(20));
        assert_eq!(lifetime(bits::TRUNCATED), None);
        assert_eq!(lifetime(rcode::SERVFAIL), None);
        assert_eq!(lifetime(rcode::REFUSED), None);
    }

    #[test]
    fn a_query_in_place_of_a_response_is_refused() {
        assert_eq!(Reply::parse(&query(1, "a", 1)), Err(WireError::NotAResponse));
    }

    #[test]
    fn a_record_that_is_cut_short_says_what_is_missing() {
        let asked = query(9, "a", rtype::A);
        let came = response(&asked, 0, [&[of_question(rtype::A, 300, &ADDRESS)], &[], &[]]);
        let error = Reply::parse(&came[..came.len() - 1]).unwrap_err();
        assert_eq!(error.to_string(), "record data at octet 31 needs 4 octets, the message has 3 left");
    }
}

mod local {
    use super::*;

    #[test]
    fn another_codec_reads_our_records_as_we_mean_them() {
        let asked = parsed(&query_with(3, PLAIN, "Vm1.lab", rtype::ANY, Some((1232, false))));
        let records = [
            Record::Address("192.0.2.1".parse().unwrap()),
            Record::Address("2001:db8::1".parse().unwrap()),
            Record::Pointer(name("vm1.lab")),
            Record::NameServer,
            Record::Authority,
        ];
        let message = read(&emit_local(&asked, true, rcode::NOERROR, &records, &name("lab"), LONGEST));
        assert!(message.metadata.authoritative && message.metadata.recursion_available);
        let text: Vec<String> = message.answers.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "Vm1.lab. 0 IN A 192.0.2.1",
                "Vm1.lab. 0 IN AAAA 2001:db8::1",
                "Vm1.lab. 0 IN PTR vm1.lab.",
                "Vm1.lab. 0 IN NS lab.",
                "Vm1.lab. 0 IN SOA lab. nobody.invalid. 1 3600 1200 604800 0",
            ]
        );
        assert!(message.edns.is_some());
    }

    #[test]
    fn a_negative_answer_carries_the_zones_soa() {
        let asked = parsed(&query(3, "gone.lab", rtype::A));
        let message = read(&emit_local(&asked, false, rcode::NXDOMAIN, &[], &name("lab"), 512));
        assert!(!message.metadata.recursion_available);
        let soa = &message.authorities[0];
        assert_eq!((soa.name.to_string(), soa.ttl), ("lab.".to_owned(), 0));
        assert!(matches!(&soa.data, RData::SOA(soa) if soa.minimum == 0));
    }

    #[test]
    fn more_addresses_than_fit_are_cut_with_tc() {
        let asked = parsed(&query(3, "many.lab", rtype::A));
        let records: Vec<Record> = (0..60).map(|n| Record::Address(std::net::Ipv4Addr::from(n).into())).collect();
        let cut = emit_local(&asked, true, 0, &records, &name("lab"), 512);
        assert!(cut.len() <= 512 && read(&cut).metadata.truncation);
        assert_eq!(read(&emit_local(&asked, true, 0, &records, &name("lab"), LONGEST)).answers.len(), 60);
        let endless = vec![Record::Address([1, 2, 3, 4].into()); 10_000];
        assert!(read(&emit_local(&asked, true, 0, &endless, &name("lab"), LONGEST)).metadata.truncation);
    }

    #[test]
    fn an_error_says_why_to_who_understands_it() {
        let asked = query_with(3, PLAIN, "a.example", rtype::A, Some((1232, false)));
        let message = emit_error(&parsed(&asked), true, rcode::REFUSED, Some(Why::Prohibited));
        assert!(message.ends_with(&opt(1232, 0, false, &[0, 15, 0, 2, 0, 18])));
        let plain = emit_error(&parsed(&query(3, "a.example", 1)), true, rcode::REFUSED, Some(Why::Prohibited));
        assert!(read(&plain).edns.is_none());
    }
}

/// The fuzz body: anything a socket can bring.
fn chew(bytes: &[u8]) {
    match Query::parse(bytes) {
        Ok(query) => {
            let again = parsed(&emit_upstream_query(&query, query.id, query.edns.is_some()));
            assert_eq!(again.name, query.name.folded());
            assert_eq!((again.qtype, again.qclass, again.dnssec_ok()), (query.qtype, query.qclass, query.dnssec_ok()));
        }
        Err(refusal) => {
            if let Some(message) = emit_refusal(&refusal) {
                assert!(message.len() <= bytes.len().max(HEADER) + 11, "a refusal amplifies nothing");
            }
        }
    }
    if let Ok(reply) = Reply::parse(bytes) {
        let name = Name::parse(bytes, HEADER).expect("parsed before");
        let edns = Some((u16::MAX, true));
        let (qtype, qclass) =
            (u16_at(bytes, HEADER + name.bytes().len(), ""), u16_at(bytes, HEADER + name.bytes().len() + 2, ""));
        let query = Query { id: 1, flags: PLAIN, name, qtype: qtype.unwrap(), qclass: qclass.unwrap(), edns: None };
        let query = Query { edns: edns.map(|(size, dnssec_ok)| query::Edns { size, dnssec_ok }), ..query };
        assert!(reply.answers(&query));
        for limit in [PLAIN_UDP, LONGEST] {
            let sent = reply.emit(Requester { query: &query, limit, age: 0, cached: false });
            assert!(sent.len() <= limit.max(query.question_end() + 11));
            let again = Reply::parse(&sent).expect("what we send is sound");
            assert!(again.answers(&query) && again.rcode() == reply.rcode());
            if limit == LONGEST {
                let twice = again.emit(Requester { query: &query, limit, age: 0, cached: false });
                assert_eq!(twice, sent, "parse, emit, parse");
            }
        }
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = StdRng::seed_from_u64(53);
    for _ in 0..20_000 {
        let mut bytes = vec![0; random.random_range(0..200)];
        random.fill_bytes(&mut bytes);
        chew(&bytes);
    }
}

#[test]
fn broken_messages_never_panic() {
    let mut random = StdRng::seed_from_u64(1035);
    let asked = query_with(9, PLAIN, "www.example.org", rtype::A, Some((1232, true)));
    let answers = [of_question(5, 60, b"\x01x\xc0\x10"), record("x.example.org", 1, 60, &ADDRESS)];
    let errors = opt(1400, 0, true, b"\x00\x0f\x00\x02\x00\x06");
    let came = response(&asked, 0, [&answers, &[soa("example.org", 60, 60)], &[errors]]);
    chew(&asked);
    chew(&came);
    for whole in [asked, came] {
        for length in 0..whole.len() {
            chew(&whole[..length]);
        }
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = [0, 1, 0x3f, 0xc0, 12, random.random()][random.random_range(0..6)];
            }
            chew(&bytes);
        }
    }
}

#[test]
fn the_longest_message_with_the_worst_names_is_read_in_bounded_work() {
    // As many records as fit, every one named by the longest chain of pointers that is followed.
    let asked = query(9, "a", rtype::A);
    let mut chain = Vec::new();
    let start = parsed(&asked).question_end() + 11;
    for hop in 0..126 {
        let target = if hop == 0 { 12 } else { start + 2 * (hop - 1) };
        chain.extend((0xc000 | target as u16).to_be_bytes());
    }
    let first = record(".", 65280, 1, &chain);
    let mut worst = (0xc000 | (start + 2 * 125) as u16).to_be_bytes().to_vec();
    worst.extend([0xff, 0, 0, 1, 0, 0, 0, 1, 0, 0]);
    let count = (LONGEST - start - first.len()) / worst.len();
    let records: Vec<Vec<u8>> = std::iter::once(first).chain(std::iter::repeat_n(worst, count)).collect();
    let came = response(&asked, 0, [&records, &[], &[]]);
    assert!(came.len() <= LONGEST && records.len() > 5000);
    // 5,400 records of 127 steps each: 700,000 steps, and no more for any message.
    let sent = emit(&Reply::parse(&came).expect("legal"), &asked, LONGEST, 1);
    assert_eq!(sent.len(), came.len());
}
