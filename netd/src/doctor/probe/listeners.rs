//! EDGE: who listens on ports 53 and 67, from procfs' socket tables and processes' descriptors.

use std::collections::HashMap;

use super::{
    super::{
        facts::{Listener, Seen},
        sockets::{DHCP, DNS},
    },
    host::read,
};
use crate::{
    observe::listeners::{owners, tables},
    sockets::{Row, rows},
};

pub(super) fn listeners() -> Seen<Vec<Listener>> {
    let mut found = Vec::new();
    for tcp in [false, true] {
        let [v4, v6] = tables(tcp);
        // A kernel without IPv6 has no table of it.
        for text in [read(v4)?, read(v6).unwrap_or_default()] {
            found.extend(rows(&text, tcp).into_iter().map(|row| (tcp, row)));
        }
    }
    found.retain(|(tcp, row)| row.port == DNS || (row.port == DHCP && !tcp));
    let owners = if found.is_empty() { HashMap::new() } else { owners() };
    let listener = |(tcp, row): (bool, Row)| Listener {
        tcp,
        address: row.address,
        port: row.port,
        program: owners.get(&row.inode).cloned(),
    };
    Ok(found.into_iter().map(listener).collect())
}
