//! Rules of any packet filter, and what they would do with one packet. Pure.
//!
//! A condition that we cannot read is neither true nor false, and the answer says whether anything hung on one. Nothing
//! here is exact enough to filter by: it is for telling a user where packets go.

use std::{collections::BTreeMap, net::Ipv4Addr};

/// The kernel's limit on nested jumps (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// More rules are not looked at for one packet: chains that jump to each other back and forth have no end that matters.
const MOST_RULES: usize = 100_000;

/// Where a base chain hooks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    Input,
    Forward,
}

/// Whose rules these are: what to change them with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Nft,
    IptablesNft,
    IptablesLegacy,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) origin: Origin,
    pub(super) family: String,
    pub(super) name: String,
    pub(super) chains: BTreeMap<String, Chain>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// For a base chain of filter type at a hook that guests' packets meet.
    pub(super) hook: Option<Hook>,
    /// What a base chain does at its end.
    pub(super) drops_by_policy: bool,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// How the rule is shown to a user.
    pub(super) text: String,
    /// All must hold.
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// On to the next rule: a counter, a log.
    Continue,
    Accept,
    /// Drops or rejects.
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// The packet's fate is decided where we cannot look: a queue to a program, say.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) negated: bool,
    pub(super) test: Test,
}

/// A property of packets. Of several values any one will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Interface names; a `*` at the end stands for anything.
    Input(Vec<String>),
    Output(Vec<String>),
    /// Connection tracking states in lower case.
    State(Vec<String>),
    /// Transport protocols in lower case.
    Protocol(Vec<String>),
    Source(Vec<(Ipv4Addr, Ipv4Addr)>),
    Destination(Vec<(Ipv4Addr, Ipv4Addr)>),
    SourcePort(Vec<(u16, u16)>),
    DestinationPort(Vec<(u16, u16)>),
    /// The port the sender wrote, before any redirect.
    OriginalPort(Vec<(u16, u16)>),
    /// The destination is an address of this host.
    DestinationLocal,
    /// Holds for every packet we ask about, or for none.
    Always,
    Never,
    /// Cannot be read.
    Unknown,
}

impl From<Test> for Condition {
    fn from(test: Test) -> Self {
        Condition { negated: false, test }
    }
}

/// A packet to ask about.
#[derive(Clone, Debug)]
pub(super) struct Packet<'a> {
    pub(super) hook: Hook,
    pub(super) input: &'a str,
    /// None at the input hook.
    pub(super) output: Option<&'a str>,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) protocol: &'static str,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) original_port: u16,
    pub(super) state: &'static str,
}

/// What drops a packet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Blame {
    /// "policy drop" or the rule's text.
    pub(super) by: String,
    /// A rule that cannot be read may let the packet through before.
    pub(super) uncertain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    Yes,
    No,
    Maybe,
}

enum End<'a> {
    Accept,
    Drop(&'a str),
    FellThrough,
}

struct Walk<'a> {
    table: &'a Table,
    packet: &'a Packet<'a>,
    /// Something that we cannot read may have let the packet through.
    maybe_accepted: bool,
    rules_left: usize,
}

/// Who drops the packet in this base chain; `None` if nobody does.
pub(super) fn dropped(table: &Table, base: &Chain, packet: &Packet<'_>) -> Option<Blame> {
    let mut walk = Walk { table, packet, maybe_accepted: false, rules_left: MOST_RULES };
    let by = match walk.chain(base, 0) {
        End::Accept => return None,
        End::Drop(rule) => format!("rule '{rule}'"),
        End::FellThrough if base.drops_by_policy => "policy drop".to_owned(),
        End::FellThrough => return None,
    };
    Some(Blame { by, uncertain: walk.maybe_accepted || walk.rules_left == 0 })
}

impl<'a> Walk<'a> {
    fn chain(&mut self, chain: &'a Chain, depth: usize) -> End<'a> {
        for rule in &chain.rules {
            let Some(left) = self.rules_left.checked_sub(1) else { return End::FellThrough };
            self.rules_left = left;
            let holds = self.holds(rule);
            match (holds, &rule.action) {
                (Truth::No, _) | (_, Action::Continue) | (Truth::Maybe, Action::Drop) => {}
                (Truth::Yes, Action::Accept) => return End::Accept,
                (Truth::Yes, Action::Drop) => return End::Drop(&rule.text),
                (Truth::Yes, Action::Return) => return End::FellThrough,
                // Whatever would have come next may not have come.
                (Truth::Maybe, Action::Accept | Action::Return) | (_, Action::Unknown) => self.maybe_accepted = true,
                (holds, Action::Jump(target) | Action::Goto(target)) => {
                    let end = match self.table.chains.get(target) {
                        Some(next) if depth < DEEPEST => self.chain(next, depth + 1),
                        _ => End::FellThrough,
                    };
                    match (holds, end) {
                        (Truth::Maybe, End::Accept) => self.maybe_accepted = true,
                        (Truth::Maybe, _) => {}
                        (_, End::FellThrough) if matches!(rule.action, Action::Jump(_)) => {}
                        (_, end) => return end,
                    }
                }
            }
        }
        End::FellThrough
    }

    fn holds(&self, rule: &Rule) -> Truth {
        let mut all = Truth::Yes;
        for condition in &rule.conditions {
            match self.packet.meets(condition) {
                Truth::Yes => {}
                Truth::No => return Truth::No,
                Truth::Maybe => all = Truth::Maybe,
            }
        }
        all
    }
}

impl Packet<'_> {
    fn meets(&self, condition: &Condition) -> Truth {
        let holds = match &condition.test {
            Test::Input(names) => names.iter().any(|name| is_named(name, self.input)),
            Test::Output(names) => self.output.is_some_and(|output| names.iter().any(|name| is_named(name, output))),
            Test::State(states) => states.iter().any(|state| state == self.state),
            Test::Protocol(protocols) => protocols.iter().any(|protocol| protocol == self.protocol),
            Test::Source(ranges) => within(self.source, ranges),
            Test::Destination(ranges) => within(self.destination, ranges),
            Test::SourcePort(ranges) => within(self.source_port, ranges),
            Test::DestinationPort(ranges) => within(self.destination_port, ranges),
            Test::OriginalPort(ranges) => within(self.original_port, ranges),
            Test::DestinationLocal => self.hook == Hook::Input,
            Test::Always => true,
            Test::Never => false,
            Test::Unknown => return Truth::Maybe,
        };
        if holds == condition.negated { Truth::No } else { Truth::Yes }
    }
}

fn is_named(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    }
}

fn within<T: PartialOrd>(value: T, ranges: &[(T, T)]) -> bool {
    ranges.iter().any(|(first, last)| *first <= value && value <= *last)
}
