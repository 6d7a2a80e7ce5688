//! Collects a reply's options as long as it stays in its size. What has no room goes into the header's fields for a file
//! and a server's name, where they have nothing to say (RFC 2131 §4.1, option 52).

use std::net::Ipv4Addr;

use super::{
    message::{FILE_LEN, Message, Op, SNAME_LEN},
    options::{Options, code, wire_len},
    request::{ReplyKind, Request},
};
use crate::config::LeaseTime;

/// Bytes of the message in front of the options.
const FIXED: usize = 240;

/// Which fields hold options, as option 52 says it.
const FILE: u8 = 1;
const SNAME: u8 = 2;

/// The options so far.
pub(super) struct Writer {
    options: Options,
    room: usize,
    /// Options in `file` and in `sname`; `None` if the field is not for options.
    fields: [Option<Options>; 2],
    file: Vec<u8>,
    /// Something had no room.
    full: bool,
}

impl Writer {
    /// For a reply of at most so many bytes. `file` is what the header's field says; `overload` puts what has no room
    /// into the header's fields as far as they are free.
    pub(super) fn new(request: &Request, size: usize, file: Vec<u8>, overload: bool) -> Self {
        // The relay's option goes last and must go (RFC 3046 §2.1): its place is kept, and the end option's.
        let last = request.relay_agent.as_ref().map_or(0, |value| wire_len(value.len()));
        let option_52 = if overload { wire_len(1) } else { 0 };
        Writer {
            options: Options::new(),
            room: size.saturating_sub(FIXED + 1 + last + option_52),
            fields: [overload && file.is_empty(), overload].map(|free| free.then(Options::new)),
            file,
            full: false,
        }
    }

    /// Whether an option was left out for want of room.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Adds an option if there is room and it isn't there.
    pub(super) fn add(&mut self, code: u8, value: &[u8]) {
        let there = |options: &Options| options.get(code).is_some();
        if there(&self.options) || self.fields.iter().flatten().any(there) {
            return;
        }
        let len = wire_len(value.len());
        if len <= self.room {
            self.options.push(code, value);
            self.room -= len;
            return;
        }
        let fields = self.fields.iter_mut().zip([FILE_LEN, SNAME_LEN]);
        match fields
            .filter_map(|(field, size)| Some((field.as_mut()?, size)))
            .find(|(it, size)| it.len() + len <= *size)
        {
            Some((field, _)) => field.push(code, value),
            None => self.full = true,
        }
    }

    /// What every reply of DHCP has.
    pub(super) fn head(&mut self, request: &Request, kind: ReplyKind, server: Ipv4Addr) {
        self.add(code::MESSAGE_TYPE, &[kind as u8]);
        self.add(code::SERVER_ID, &server.octets());
        // RFC 6842: a client with an identifier gets it back, with a NAK too.
        if let Some(id) = &request.client_id {
            self.add(code::CLIENT_ID, id);
        }
    }

    /// Lease time, T1 and T2 (RFC 2131 §4.4.5): a half and seven eighths, less up to a sixteenth that differs from
    /// client to client, so that guests started together don't renew together.
    pub(super) fn lease(&mut self, request: &Request, lease: LeaseTime) {
        match lease {
            LeaseTime::Infinite => self.add(code::LEASE_TIME, &u32::MAX.to_be_bytes()),
            LeaseTime::Seconds(seconds) => {
                let early = (super::address::hash(&request.mac.0) % (u64::from(seconds) / 16 + 1)) as u32;
                self.add(code::LEASE_TIME, &seconds.to_be_bytes());
                self.add(code::RENEWAL_TIME, &(seconds / 2 - early).to_be_bytes());
                self.add(code::REBINDING_TIME, &(seconds - seconds.div_ceil(8) - early).to_be_bytes());
            }
        }
    }

    /// The reply, but for its addresses.
    pub(super) fn finish(mut self, request: &Request) -> Message {
        let used = |field: &Option<Options>| field.as_ref().filter(|options| !options.is_empty()).map(written);
        let [file, sname] = [&self.fields[0], &self.fields[1]].map(used);
        let overload = file.as_ref().map_or(0, |_| FILE) | sname.as_ref().map_or(0, |_| SNAME);
        if overload != 0 {
            self.options.push(code::OVERLOAD, &[overload]);
        }
        if let Some(value) = &request.relay_agent {
            self.options.push(code::RELAY_AGENT, value);
        }
        let mut chaddr = [0; 16];
        chaddr[..6].copy_from_slice(&request.mac.0);
        Message {
            op: Op::Reply,
            htype: 1,
            hlen: 6,
            hops: 0,
            xid: request.xid,
            secs: 0,
            flags: request.flags,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            siaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: request.giaddr,
            chaddr,
            sname: sname.unwrap_or_default(),
            file: file.unwrap_or(self.file),
            options: self.options,
        }
    }
}

fn written(options: &Options) -> Vec<u8> {
    let mut bytes = vec![0; options.len()];
    options.emit(&mut bytes);
    bytes
}
