//! As much of HTTP/1.1 (RFC 9112) as a scraper needs: one request's head in, one answer out, and the connection ends.
//! Pure.

/// Longest head of a request, in bytes.
pub(crate) const LONGEST_HEAD: usize = 8192;

/// The one thing there is to get.
const PATH: &str = "/metrics";

/// The form of the page (OpenMetrics 1.0.0).
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The page, or only what stands before it.
    Page {
        /// With the page itself: not for HEAD.
        body: bool,
    },
    /// What we have not got.
    Refused {
        /// Status code and reason.
        status: &'static str,
        /// A sentence for the user.
        why: &'static str,
    },
}

/// The end of a request's head, if it is all there.
pub(crate) fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|four| four == b"\r\n\r\n") || head.windows(2).any(|two| two == b"\n\n")
}

/// Reads the request line; what follows it says nothing we need.
pub(crate) fn read(head: &[u8]) -> Asked {
    let line = head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let words: Vec<&str> = std::str::from_utf8(line).unwrap_or_default().split(' ').collect();
    let [method, target, version] = words[..] else { return BAD };
    if !version.starts_with("HTTP/1.") {
        return BAD;
    }
    if target.split('?').next() != Some(PATH) {
        return Asked::Refused { status: "404 Not Found", why: "there is only /metrics here" };
    }
    match method {
        "GET" => Asked::Page { body: true },
        "HEAD" => Asked::Page { body: false },
        _ => Asked::Refused { status: "405 Method Not Allowed", why: "metrics can only be read: use GET" },
    }
}

const BAD: Asked = Asked::Refused { status: "400 Bad Request", why: "this is not an HTTP/1.1 request" };

/// The answer's head for a body of this length.
pub(crate) fn page_head(length: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
}

/// A whole answer that is no page.
pub(crate) fn refusal(status: &str, why: &str) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = why.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{allow}Content-Length: {length}\r\n\
         Connection: close\r\n\r\n{why}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_can_be_had() {
        assert_eq!(read(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), Asked::Page { body: true });
        assert_eq!(read(b"GET /metrics?x=1 HTTP/1.0\n\n"), Asked::Page { body: true });
        assert_eq!(read(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Asked::Page { body: false });
        let status = |head: &[u8]| match read(head) {
            Asked::Refused { status, .. } => status.split(' ').next().unwrap().to_owned(),
            page => panic!("{page:?}"),
        };
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status(b"GET /metrics/../etc HTTP/1.1\r\n\r\n"), "404");
        assert_eq!(status(b"POST /metrics HTTP/1.1\r\n\r\n"), "405");
        for nonsense in
            [&b""[..], b"\r\n\r\n", b"GET /metrics\r\n\r\n", b"GET /metrics SMTP\r\n\r\n", b"\xff\xfe \x00 x\n\n"]
        {
            assert_eq!(status(nonsense), "400", "{nonsense:?}");
        }
    }

    #[test]
    fn a_head_is_whole_when_an_empty_line_ends_it() {
        assert!(is_whole(b"GET /metrics HTTP/1.1\r\n\r\n") && is_whole(b"GET / HTTP/1.0\n\n"));
        assert!(!is_whole(b"GET /metrics HTTP/1.1\r\n") && !is_whole(b""));
    }

    #[test]
    fn a_refusal_says_how_long_it_is() {
        let text = refusal("405 Method Not Allowed", "no");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "no\n");
        assert!(head.contains("Content-Length: 3") && head.contains("Allow: GET, HEAD"), "{head}");
    }
}
