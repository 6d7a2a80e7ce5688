//! The client's name as the server sees it, in the client FQDN option (RFC 4702) and in search lists (RFC 3397).

/// Flags of option 81 (RFC 4702 §2.1): the server makes the name's record, not as the client wished, and the name is in
/// DNS's own form.
const S: u8 = 0x01;
const O: u8 = 0x02;
const E: u8 = 0x04;

/// Both fields for result codes, which nobody uses (RFC 4702 §2.2).
const NO_CODES: [u8; 2] = [255, 255];

/// Option 81 for a client that sent these flags and is known by `name`: our DNS has it, whoever wanted to make it
/// (RFC 4702 §4).
pub(super) fn reply(flags: u8, name: &str, domain: Option<&str>) -> Vec<u8> {
    let overridden = if flags & S == 0 { O } else { 0 };
    let mut value = vec![S | overridden | (flags & E)];
    value.extend(NO_CODES);
    let labels = || [name].into_iter().chain(domain.into_iter().flat_map(|domain| domain.split('.')));
    if flags & E == 0 {
        value.extend(labels().collect::<Vec<_>>().join(".").bytes());
    } else {
        encode(&mut value, labels());
        // Without a domain the name is no whole one, which is how that is said (RFC 4702 §2.3).
        if domain.is_some() {
            value.push(0);
        }
    }
    value
}

/// Option 119 with one domain.
pub(super) fn search(domain: &str) -> Vec<u8> {
    let mut value = Vec::new();
    encode(&mut value, domain.split('.'));
    value.push(0);
    value
}

/// Labels that are too long or empty are in no name that the configuration may have.
fn encode<'a>(value: &mut Vec<u8>, labels: impl Iterator<Item = &'a str>) {
    for label in labels.filter(|label| (1..=63).contains(&label.len())) {
        value.push(label.len() as u8);
        value.extend(label.bytes());
    }
}
