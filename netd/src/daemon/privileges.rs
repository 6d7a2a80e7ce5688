//! EDGE: what the process is allowed to do, checked before it does anything.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// `CAP_NET_BIND_SERVICE` for DNS on port 53, `CAP_NET_ADMIN` for everything the daemon makes, `CAP_NET_RAW` for DHCP's
/// packet sockets (capability.h).
const NEEDED: [(u32, &str); 3] = [(10, "CAP_NET_BIND_SERVICE"), (12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW")];

/// The process may not do what a daemon does.
#[derive(Debug, thiserror::Error)]
#[error("the daemon needs {0}: run it as root or as its systemd unit")]
pub struct MissingPrivilege(String);

/// Whether all that is needed is there.
pub(super) fn check() -> Result<(), MissingPrivilege> {
    // Without procfs every later step says more clearly what is missing.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    match missing(&status) {
        names if names.is_empty() => Ok(()),
        names => Err(MissingPrivilege(names.join(", "))),
    }
}

/// The capabilities a daemon needs that a process with this `/proc/PID/status` has not got.
pub(crate) fn missing(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(u64::MAX);
    NEEDED.into_iter().filter(|(bit, _)| effective & (1 << bit) == 0).map(|(_, name)| name).collect()
}

/// Every connection, queue and server holds descriptors: as many as the system lets us have.
pub(crate) fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(missing("Name:\tnetd\nCapEff:\t0000000000000000\n").len(), 3);
        assert_eq!(missing("CapEff:\t0000000000002400\n"), ["CAP_NET_ADMIN"]);
        assert!(missing("CapEff:\t000001ffffffffff\n").is_empty());
    }
}
