//! TFTP for guests that boot from the network: files of one directory, to be read and never written.
//!
//! ```text
//! read request ─► wire ─► file (below the root) ─► transfer(ACK, timeout) ─► blocks ─► wire
//! ```
//!
//! RFC 1350 with options (RFC 2347): block size (RFC 2348), timeout and transfer size (RFC 2349), window size (RFC 7440).
//! Only mode `octet`: nobody boots text. [`transfer`] decides and knows no socket; [`io`] asks it.

mod io;
mod transfer;
mod wire;

pub(crate) use io::Running;
