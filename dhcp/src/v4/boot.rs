//! What clients are told that boot from the network: in the header's fields, where BOOTP has it (RFC 951) and PXE ROMs
//! look, and in options 66 and 67 (RFC 2132 §9.4, §9.5) for those that ask.
//!
//! UEFI's HTTP boot takes a URL, from a server that says `HTTPClient` as the client did (UEFI 2.10 §24.7.3); a PXE client
//! can do nothing with one. `PXEClient` is never said back: that would promise a boot server on port 4011 (PXE 2.1 §2.2).

use std::net::Ipv4Addr;

use super::{message::FILE_LEN, options::code, request::Request};
use crate::config::{Boot4, Dhcp4Config};

/// How a client of UEFI's HTTP boot begins its vendor class.
const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// What one client is to boot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot<'a> {
    what: &'a Boot4,
    /// The host that is asked for the file.
    pub(super) server: Ipv4Addr,
    http: bool,
}

impl<'a> Boot<'a> {
    /// `None` if there is nothing for this client.
    pub(super) fn of(config: &'a Dhcp4Config, request: &Request) -> Option<Self> {
        let what = config.boot.as_ref()?;
        let http = request.vendor_class.as_ref().is_some_and(|class| class.starts_with(HTTP_CLIENT));
        let url = ["http://", "https://"].iter().any(|scheme| what.file.starts_with(scheme));
        let fits = url || !http;
        fits.then(|| Boot { what, server: what.server.unwrap_or(config.server.addr()), http })
    }

    /// What the header's field says: the file, if it fits with the zero that ends it.
    pub(super) fn field(self) -> Vec<u8> {
        let file = self.what.file.as_bytes();
        if file.len() < FILE_LEN { file.to_vec() } else { Vec::new() }
    }

    /// The options it takes whether they were asked for or not.
    pub(super) fn unasked(self) -> Vec<(u8, Vec<u8>)> {
        let mut options = Vec::new();
        if self.http {
            options.push((code::VENDOR_CLASS, HTTP_CLIENT.to_vec()));
        }
        if self.http || self.field().is_empty() {
            options.push((code::BOOT_FILE, self.what.file.as_bytes().to_vec()));
        }
        options
    }

    /// The value of option 66 or 67.
    pub(super) fn option(self, code: u8) -> Option<Vec<u8>> {
        match code {
            code::TFTP_SERVER => Some(self.server.to_string().into_bytes()),
            code::BOOT_FILE => Some(self.what.file.as_bytes().to_vec()),
            _ => None,
        }
    }
}
