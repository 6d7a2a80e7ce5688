//! `netd doctor`: is this host fit for networks, and if not, what mends it?
//!
//! ```text
//! probe (EDGE: looks, never changes) ──► Facts ──► examine (pure: one Finding per check) ──► format
//! ```
//!
//! It needs no daemon and no privilege. What it may not see it says so about; it never guesses a PASS. Every WARN and
//! FAIL comes with the command that mends it, and the doctor itself runs none of them.

pub mod facts;
pub(crate) mod firewall;
mod format;
mod forwarding;
mod machine;
mod networks;
mod probe;
mod service;
mod sockets;

#[cfg(test)]
mod tests;

pub(crate) use firewall::{Place, Wanted, passage};
pub(crate) use format::{json, line, text};
pub(crate) use probe::{legacy_counters, legacy_tables, look, rules};

use facts::{Facts, Unseen};

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Good.
    Pass,
    /// Something is slower, weaker or less certain than it could be.
    Warn,
    /// A network or a guest will not work.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A word for programs, the same in every release.
    pub check: &'static str,
    /// What was looked for, to be read behind "Checking".
    pub title: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Why; for a PASS what is worth knowing besides.
    pub says: Option<String>,
    /// The command that mends it, or shows more where no command can.
    pub mend: Option<String>,
}

impl Finding {
    pub(crate) fn pass(check: &'static str, title: impl Into<String>) -> Self {
        Finding { check, title: title.into(), verdict: Verdict::Pass, says: None, mend: None }
    }

    pub(crate) fn noting(self, says: impl Into<String>) -> Self {
        Finding { says: Some(says.into()), ..self }
    }

    pub(crate) fn warn(
        check: &'static str,
        title: impl Into<String>,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding { verdict: Verdict::Warn, mend: Some(mend.into()), ..Self::pass(check, title).noting(says) }
    }

    pub(crate) fn fail(
        check: &'static str,
        title: impl Into<String>,
        says: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding { verdict: Verdict::Fail, ..Self::warn(check, title, says, mend) }
    }

    /// What could not be looked at. `by_hand` is the command that shows it to the user.
    fn unseen(check: &'static str, title: impl Into<String>, unseen: &Unseen, by_hand: &str) -> Self {
        match unseen {
            Unseen::Forbidden => Self::warn(check, title, "only root may look", "sudo netd doctor"),
            Unseen::Failed(why) => Self::warn(check, title, format!("could not be looked at: {why}"), by_hand),
        }
    }
}

/// Every check, in the order a host is put together: machine, packet filter, routing, networks, services.
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![
        machine::kvm_device(&facts.kvm),
        machine::kvm_runs_guests(&facts.vcpu),
        machine::vhost_net(&facts.vhost_net),
        machine::tun(&facts.tun),
        machine::modules(&facts.modules),
        machine::capabilities(&facts.capabilities, facts.daemon.answers()),
        machine::nft(&facts.nft),
        forwarding::ip_forward(&facts.ip_forward, &facts.networks),
    ];
    findings.extend(forwarding::reverse_path(&facts.rp_filter, &facts.host, &facts.networks));
    findings.push(forwarding::bridge_netfilter(&facts.bridge_netfilter));
    findings.extend(firewall::foreign_rules(facts));
    findings.extend([
        sockets::dns_port(&facts.listeners, &facts.networks),
        sockets::dhcp_port(&facts.listeners, &facts.networks),
    ]);
    findings.extend(networks::subnets(&facts.networks, &facts.host));
    findings.push(networks::bridges(&facts.networks, &facts.host));
    findings.push(service::resolvers(&facts.resolvers, &facts.listeners));
    findings.push(service::daemon(&facts.daemon));
    findings.extend(facts.directories.iter().map(service::directory));
    findings.push(service::room(&facts.room));
    if facts.root {
        // Not every host of root's has the program.
        for mend in findings.iter_mut().filter_map(|finding| finding.mend.as_mut()) {
            *mend = mend.replace(SUDO, "");
        }
    }
    findings
}

/// What commands that need root begin with.
pub(crate) const SUDO: &str = "sudo ";

/// Whether a report calls for a failing exit status.
pub fn has_failure(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Fail)
}
