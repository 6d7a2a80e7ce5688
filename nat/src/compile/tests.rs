use serde_json::json;

use super::*;

fn rule(statements: Value) -> Value {
    json!({ "add": { "rule": { "family": "inet", "table": crate::TABLE, "chain": "c", "expr": statements } } })
}

#[test]
fn one_unknown_word_leaves_all_to_nft() {
    let known = rule(json!([{ "accept": null }]));
    assert!(batch([known.clone()]).is_some());
    let ip = |right: Value| json!([{ "match": { "op": "==", "right": right, "left": { "payload": { "protocol": "ip", "field": "saddr" } } } }]);
    assert!(batch([rule(ip(json!("10.0.0.1")))]).is_some());
    let unknown = [
        json!({ "add": { "table": { "family": "inet", "name": "netd" } } }),
        json!({ "add": { "chain": { "family": "inet", "table": "netd", "name": "c", "hook": "input" } } }),
        json!({ "add": { "chain": { "family": "ip", "table": "netd", "name": "c" } } }),
        json!({ "add": { "chain": { "family": "inet", "table": "filter", "name": "c" } } }),
        json!({ "add": { "element": { "family": "inet", "table": "netd", "name": "unknown", "elem": ["a"] } } }),
        json!({ "add": { "element": { "family": "inet", "table": "netd", "name": "forward_bridges", "elem": ["a-name-of-16-byt"] } } }),
        rule(json!([{ "log": null }])),
        rule(json!([{ "match": { "op": "!=", "left": { "meta": { "key": "iifname" } }, "right": "a" } }])),
        rule(json!([{ "match": { "op": "==", "left": { "meta": { "key": "skuid" } }, "right": 0 } }])),
        rule(ip(json!("fd00::1"))),
        rule(ip(json!("10.0.0.0/24"))),
        rule(ip(json!({ "prefix": { "addr": "10.0.0.0", "len": 0 } }))),
        rule(ip(json!({ "prefix": { "addr": "10.0.0.0", "len": 33 } }))),
        rule(ip(json!("@somewhere"))),
        rule(json!([{ "counter": "named" }])),
        rule(json!([{ "reject": { "type": "tcp reset" } }])),
        rule(json!([{ "masquerade": { "flags": "random" } }])),
        rule(json!([{ "dnat": { "addr": "10.0.0.1" } }])),
        json!(7),
        json!({ "add": {} }),
    ];
    for command in unknown {
        assert!(batch([known.clone(), command.clone(), known.clone()]).is_none(), "{command}");
    }
}
