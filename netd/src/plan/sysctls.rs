//! The sysctls that a network holds for as long as it is active. Pure.

use super::{Bridge, Desired, Ground};

/// What sysctls the bridge of an active network has: path and value. A path that does not exist is a bridge that is
/// gone, or a kernel without IPv6.
pub(crate) fn sysctls(desired: &Desired) -> Vec<(String, &'static str)> {
    // What is the host's stays as it is.
    let Ground::Own(Bridge { name: bridge, .. }) = &desired.ground else { return Vec::new() };
    let ipv6 = |name: &str, value| (format!("/proc/sys/net/ipv6/conf/{bridge}/{name}"), value);
    let mut held = if desired.ipv6 {
        vec![ipv6("disable_ipv6", "0"), ipv6("accept_ra", "0"), ipv6("autoconf", "0")]
    } else {
        vec![ipv6("disable_ipv6", "1")]
    };
    let route_localnet = if desired.route_localnet { "1" } else { "0" };
    held.push((format!("/proc/sys/net/ipv4/conf/{bridge}/route_localnet"), route_localnet));
    held
}

/// Where the host says whether it routes IPv4.
pub(crate) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// Where it says so of IPv6.
pub(crate) const FORWARDING6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
