//! Host names that clients claim: what of them is usable, and which names nobody may have.
//!
//! Who holds a name already is not known here; the server asks the lease table and the ports.

/// Longest label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// Names that would make the guest something it isn't to its neighbours: web proxy discovery, ISATAP, the loopback.
const REFUSED: [&str; 4] = ["localhost", "wpad", "isatap", "localdomain"];

/// Makes one DNS label (RFC 1123 §2.1: letters, digits and inner hyphens) of what a client sent, or nothing.
///
/// Only the first label counts: the domain is the network's. Underscores and spaces become hyphens, other bytes that
/// don't belong are left out. Digits alone are no name: resolvers read them as an address.
pub(crate) fn sanitise(claimed: &[u8]) -> Option<String> {
    let first = claimed.split(|byte| matches!(byte, b'.' | 0)).next()?;
    let kept: String = first
        .iter()
        .filter_map(|&byte| match byte {
            b'_' | b' ' => Some('-'),
            byte if byte.is_ascii_alphanumeric() || byte == b'-' => Some(byte.into()),
            _ => None,
        })
        .collect();
    let mut label = kept.trim_matches('-');
    if label.len() > MAX_LABEL {
        label = label[..MAX_LABEL].trim_end_matches('-');
    }
    let usable = !label.is_empty()
        && !label.bytes().all(|byte| byte.is_ascii_digit())
        && !REFUSED.iter().any(|refused| label.eq_ignore_ascii_case(refused));
    usable.then(|| label.to_owned())
}

/// The form names are compared in: DNS doesn't tell case apart (RFC 1035 §2.3.3).
pub(crate) fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::sanitise;

    fn name(claimed: &str) -> Option<String> {
        sanitise(claimed.as_bytes())
    }

    #[test]
    fn a_plain_name_keeps_its_case() {
        assert_eq!(name("Web-1").as_deref(), Some("Web-1"));
    }

    #[test]
    fn only_the_first_label_counts() {
        assert_eq!(name("web.example.com").as_deref(), Some("web"));
    }

    #[test]
    fn a_trailing_nul_is_no_part_of_the_name() {
        assert_eq!(name("web\0").as_deref(), Some("web"));
    }

    #[test]
    fn bytes_that_do_not_belong_are_mended_or_left_out() {
        assert_eq!(name("my_little vm").as_deref(), Some("my-little-vm"));
        assert_eq!(sanitise(b"w\xffeb\n").as_deref(), Some("web"));
        assert_eq!(name("--x--").as_deref(), Some("x"));
    }

    #[test]
    fn a_long_name_is_cut_to_one_label() {
        let long = format!("{}-tail", "a".repeat(62));
        assert_eq!(name(&long), Some("a".repeat(62)));
        assert_eq!(name(&"b".repeat(80)).map(|label| label.len()), Some(63));
    }

    #[test]
    fn names_nobody_may_have_are_refused() {
        for claimed in ["localhost", "WPAD", "isatap", "", "-", "42", "10.0.0.1", "\u{fffd}"] {
            assert_eq!(name(claimed), None, "{claimed:?}");
        }
    }
}
