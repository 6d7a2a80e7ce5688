//! Why a text is not a network we can have: line, element, sentence.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{ForwardError, NameError};

/// The first thing wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: line {line}{}: {problem}", if self.is_unsupported() { "unsupported configuration" } else { "XML error" }, In(element))]
pub struct Error {
    /// Line of the text, from 1.
    pub line: u32,
    /// The element it is about, without its brackets; empty where the text is not even XML.
    pub element: String,
    /// What is wrong.
    pub problem: Box<Problem>,
}

impl Error {
    /// libvirt knows what the text asks for and this version of netd does not do it.
    pub fn is_unsupported(&self) -> bool {
        matches!(*self.problem, Problem::Unsupported(_))
    }
}

struct In<'a>(&'a str);

impl std::fmt::Display for In<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, ": <{}>", self.0) }
    }
}

/// What is wrong with an element.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not well-formed XML.
    #[error("{0}")]
    Syntax(String),
    /// More than a network ever needs.
    #[error("the text is larger than {0}")]
    TooLarge(&'static str),
    /// The outermost element is another one.
    #[error("expecting root element of 'network', not '{0}'")]
    Root(String),
    /// Something that libvirt or another program knows and netd does not do: a whole sentence that says so.
    #[error("{0}")]
    Unsupported(String),
    /// An element nobody knows.
    #[error("unknown element <{name}>; it can have {}", List(expected))]
    UnknownElement {
        /// Its name.
        name: String,
        /// What can stand there.
        expected: Vec<&'static str>,
    },
    /// An attribute nobody knows.
    #[error("unknown attribute '{name}'; it can have {}", List(expected))]
    UnknownAttribute {
        /// Its name.
        name: String,
        /// What can stand there.
        expected: Vec<&'static str>,
    },
    /// Text between elements.
    #[error("text '{0}' where only elements can be")]
    Text(String),
    /// Twice where once is all there can be.
    #[error("there can be only one")]
    Duplicate,
    /// A second `<ip>` with `<dhcp>` (libvirt's sentence).
    #[error("Multiple {0} dhcp sections found -- dhcp is supported only for a single {0} address on each network")]
    SecondDhcp(&'static str),
    /// Something that must be there and is not.
    #[error("missing {0}")]
    Missing(&'static str),
    /// An attribute or text that is not of its form.
    #[error("{what} is '{value}', which is not {expected}")]
    Value {
        /// The attribute, or "the text".
        what: String,
        /// What stands there.
        value: String,
        /// What should.
        expected: &'static str,
    },
    /// A forward mode nobody knows (libvirt's sentence).
    #[error("unknown forwarding type '{0}'")]
    ForwardMode(String),
    /// A name or MAC address that is not of its form.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A port forward that cannot be.
    #[error("{0}")]
    PortForward(#[from] ForwardError),
    /// Things that do not go together.
    #[error("{0}")]
    Together(&'static str),
    /// An element that networks of this forward mode do not have.
    #[error("a network with forward mode '{mode}' cannot have it: {why}")]
    Mode {
        /// The mode.
        mode: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Two things that must differ.
    #[error("{what} '{value}' is there twice")]
    Repeated {
        /// What kind of thing.
        what: &'static str,
        /// The thing.
        value: String,
    },
    /// First address after the last (libvirt's sentence).
    #[error("range {0} - {1} is reversed")]
    ReversedRange(IpAddr, IpAddr),
    /// An address pool outside its subnet (libvirt's sentence).
    #[error("range {0} - {1} is not entirely within network {2}")]
    RangeOutside(IpAddr, IpAddr, IpNet),
    /// A pool with an address that no guest can have.
    #[error("range {start} - {end} contains {address}, which is {role}: {hint}")]
    RangeContains {
        /// First address of the pool.
        start: IpAddr,
        /// Last address of the pool.
        end: IpAddr,
        /// The address.
        address: IpAddr,
        /// Why no guest can have it.
        role: &'static str,
        /// The next move.
        hint: String,
    },
    /// Two pools with an address in common.
    #[error("range {0} - {1} overlaps range {2} - {3}")]
    RangesOverlap(IpAddr, IpAddr, IpAddr, IpAddr),
    /// A reservation no guest can have.
    #[error("address {address} {why} {subnet}")]
    Reservation {
        /// The address.
        address: IpAddr,
        /// What is wrong with it, a phrase that ends before the subnet.
        why: &'static str,
        /// The subnet of the `<ip>`.
        subnet: IpNet,
    },
    /// An address the host cannot have on a bridge.
    #[error("the host cannot have the address {address}: it is {role}")]
    HostAddress {
        /// The address with its prefix.
        address: IpNet,
        /// What it is instead.
        role: &'static str,
    },
    /// Two `<ip>` of one network with addresses in common.
    #[error("subnet {0} overlaps subnet {1} of the same network")]
    SubnetsOverlap(IpNet, IpNet),
    /// A lease shorter than dnsmasq and libvirt allow (libvirt's limit).
    #[error("the lease is {0} s, and the shortest is 120 s")]
    ShortLease(u64),
    /// A lease longer than DHCP can say: 32 bits of seconds (RFC 2132 §9.2).
    #[error("the lease is {0} s; the longest is 4294967294 s, and expiry='0' is a lease without end")]
    LongLease(u64),
    /// Forwarding without an address (libvirt's sentence).
    #[error("{mode} forwarding requested, but no IP address provided for network '{network}'")]
    NoAddress {
        /// The forward mode.
        mode: &'static str,
        /// The network's name.
        network: String,
    },
    /// A gateway that is on none of the network's subnets.
    #[error("gateway {0} is on no <ip> subnet of this network")]
    UnreachableGateway(IpAddr),
    /// A destination with bits set beyond its prefix.
    #[error("destination {0} is not a network address: write {1}")]
    RouteHostBits(IpNet, IpAddr),
}

struct List<'a>(&'a [&'static str]);

impl std::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("none") } else { f.write_str(&self.0.join(", ")) }
    }
}
