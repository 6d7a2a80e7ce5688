//! The block in a file like /etc/hosts (hosts(5)): everything outside its two marks stays as it is, byte by byte. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use dhcp::config::Mac;

use crate::nss::Known;

const BEGIN: &str = "# BEGIN netd: guests' names; what is written between these lines is lost";
const END: &str = "# END netd";

/// The lines: an address, a guest's name in the domain and without. A name that two machines have is the first one's.
pub(super) fn lines(networks: &[(Known, Option<String>)]) -> String {
    let mut names: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    let mut taken: Vec<(String, Mac)> = Vec::new();
    for (known, domain) in networks {
        let leases = known.leases.iter().map(|lease| (lease.mac, IpAddr::V4(lease.address), &lease.hostname));
        let leases6 = known.leases6.iter().map(|lease| (lease.mac, IpAddr::V6(lease.address), &lease.hostname));
        for (mac, address, hostname) in leases.chain(leases6) {
            let guest = known.ports.iter().find(|port| port.mac.0 == mac.0).and_then(|port| port.guest.as_ref());
            for name in guest.into_iter().chain(hostname).filter(|name| is_host_name(name)) {
                let name = name.to_ascii_lowercase();
                let full = domain.as_ref().map(|domain| format!("{name}.{domain}"));
                for name in full.into_iter().chain([name]) {
                    if !taken.iter().any(|(known, owner)| *known == name && *owner != mac) {
                        let of_address = names.entry(address).or_default();
                        if !of_address.contains(&name) {
                            of_address.push(name.clone());
                        }
                        taken.push((name, mac));
                    }
                }
            }
        }
    }
    names.into_iter().map(|(address, names)| format!("{address}\t{}\n", names.join(" "))).collect()
}

/// RFC 952 and RFC 1123 §2.1; never `localhost`, whoever calls itself so.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(plain) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label) && !name.eq_ignore_ascii_case("localhost")
}

/// The file with these lines in its block; without lines there is no block. `None` if it is so already, or if its marks
/// do not pair: then somebody has edited them, and nothing of the file is ours to change.
pub(super) fn replaced(file: &[u8], lines: &str) -> Option<Vec<u8>> {
    let (before, after) = match (find(file, BEGIN), find(file, END)) {
        (None, None) => (file, &b""[..]),
        (Some((start, begun)), Some((ending, end))) if begun <= ending => (&file[..start], &file[end..]),
        _ => return None,
    };
    let mut text = before.to_vec();
    if !lines.is_empty() {
        // A last line without its end stays without: the block has one before it instead, which goes with it.
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend(format!("{BEGIN}\n{lines}{END}\n").as_bytes());
    }
    text.extend(after);
    (text != file).then_some(text)
}

/// Where the only line that is exactly this begins, and where the next one does.
fn find(file: &[u8], mark: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut found = None;
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if line.strip_suffix(b"\n").unwrap_or(line) == mark.as_bytes() {
            found = found.or(Some((at, at + line.len())));
        }
        at += line.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use dhcp::{Lease, Lease6, config::Mac};

    use super::*;

    fn text(bytes: Option<Vec<u8>>) -> Option<String> {
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_block_comes_changes_and_goes_and_the_rest_is_untouched() {
        let own = "127.0.0.1 localhost\n\n# mine é\n";
        let with = text(replaced(own.as_bytes(), "10.0.0.2\tvm1\n")).unwrap();
        assert_eq!(with, format!("{own}{BEGIN}\n10.0.0.2\tvm1\n{END}\n"));
        assert_eq!(replaced(with.as_bytes(), "10.0.0.2\tvm1\n"), None);
        let below = format!("{with}10.9.9.9 theirs\n");
        let changed = text(replaced(below.as_bytes(), "10.0.0.3\tvm1\n")).unwrap();
        assert_eq!(changed, format!("{own}{BEGIN}\n10.0.0.3\tvm1\n{END}\n10.9.9.9 theirs\n"));
        assert_eq!(text(replaced(changed.as_bytes(), "")).unwrap(), format!("{own}10.9.9.9 theirs\n"));
        assert_eq!(replaced(own.as_bytes(), ""), None);
        assert_eq!(replaced(b"\xff\xfe", "1.1.1.1\ta\n").unwrap()[..3], *b"\xff\xfe\n");
    }

    #[test]
    fn a_file_whose_marks_were_edited_is_left_alone() {
        for broken in [format!("{BEGIN}\n"), format!("{END}\n"), format!("{END}\n{BEGIN}\n")] {
            assert_eq!(replaced(broken.as_bytes(), "10.0.0.2\tvm1\n"), None, "{broken}");
        }
    }

    #[test]
    fn names_that_are_none_never_reach_the_file() {
        let lease = |last, hostname: &str| Lease {
            mac: Mac([0x52, 0x54, 0, 0, 0, last]),
            address: Ipv4Addr::new(10, 0, 0, last),
            prefix: 24,
            hostname: Some(hostname.to_owned()),
            client_id: None,
            expiry: None,
        };
        let leases = ["Web", "localhost", "a b", "x\n1.2.3.4 bank", "-a", "web"];
        let leases = leases.into_iter().zip(2..).map(|(name, last)| lease(last, name)).collect();
        let lease6 = |mac, last: u16| Lease6 {
            mac: Mac([0x52, 0x54, 0, 0, 0, mac]),
            iaid: 1,
            address: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last),
            prefix: 64,
            hostname: Some("web".to_owned()),
            duid: vec![0, 3, 0],
            expiry: None,
        };
        // The same machine's, and another's that says it has the name.
        let leases6 = vec![lease6(2, 5), lease6(9, 6)];
        let known = Known { bridge: "br".into(), leases, leases6, duid: Vec::new(), ports: Vec::new() };
        let expected = "10.0.0.2\tweb.lab web\nfd00::5\tweb.lab web\n";
        assert_eq!(lines(&[(known, Some("lab".into()))]), expected);
    }
}
