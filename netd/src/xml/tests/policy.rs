//! What `<netd:guests>` and `<netd:host-access>` may not say.

use super::*;

fn refused(inside: &str) -> String {
    let text = format!(
        "<network xmlns:netd='{NAMESPACE}'><name>a</name><forward/>\n<ip address='10.0.0.1' prefix='24'/>\n{inside}</network>"
    );
    parse(&text).unwrap_err().to_string()
}

#[test]
fn policies_that_make_no_sense_are_refused_by_name() {
    let access = |inside: &str| refused(&format!("<netd:host-access>{inside}</netd:host-access>"));
    for (said, expected) in [
        (refused("<netd:guests/>"), "<netd:guests>: missing the attribute 'talk'"),
        (refused("<netd:guests talk='never'/>"), "<netd:guests>: talk is 'never', which is not yes or no"),
        (refused("<netd:guests talk='no'/><netd:guests talk='no'/>"), "<netd:guests>"),
        (refused("<netd:guests talk='no'><a/></netd:guests>"), "unknown element <a>"),
        (access("<netd:allow protocol='sctp' port='1'/>"), "protocol is 'sctp', which is not tcp, udp or icmp"),
        (access("<netd:allow protocol='tcp'/>"), "missing the attribute 'port'"),
        (access("<netd:allow protocol='icmp' port='1'/>"), "icmp has no ports"),
        (access("<netd:allow protocol='udp' port='9-1'/>"), "<netd:allow>"),
        (access("<netd:allow protocol='udp' port='0'/>"), "<netd:allow>"),
        (access("<netd:allow protocol='icmp'/><netd:allow protocol='icmp'/>"), "the service 'icmp' is there twice"),
        (access("<netd:deny/>"), "unknown element <netd:deny>; it can have netd:allow"),
    ] {
        assert!(said.contains(expected) && said.contains("line 3"), "{said}: {expected}");
    }
}
