//! The ports of a network as the servers need them: which MACs we gave, and which guest each belongs to.

use std::collections::HashMap;

use crate::{
    config::{Mac, PortName},
    hostname,
};

/// The ports of one network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    by_mac: HashMap<Mac, Option<String>>,
    by_name: HashMap<String, Vec<Mac>>,
}

impl Ports {
    /// Takes the daemon's list. Guest names that make no host name are left out.
    pub(crate) fn new(list: Vec<PortName>) -> Self {
        let mut ports = Ports::default();
        for PortName { mac, guest } in list {
            let name = guest.and_then(|guest| hostname::sanitise(guest.as_bytes()));
            if let Some(name) = &name {
                ports.by_name.entry(hostname::key(name)).or_default().push(mac);
            }
            ports.by_mac.insert(mac, name);
        }
        ports
    }

    /// Whether we gave this MAC to a port.
    pub(crate) fn contains(&self, mac: Mac) -> bool {
        self.by_mac.contains_key(&mac)
    }

    /// The host name of the guest behind a MAC.
    pub(crate) fn name(&self, mac: Mac) -> Option<&str> {
        self.by_mac.get(&mac)?.as_deref()
    }

    /// Whether the name is that of a guest, and this MAC none of its NICs.
    pub(crate) fn name_is_taken(&self, name: &str, mac: Mac) -> bool {
        self.by_name.get(&hostname::key(name)).is_some_and(|owners| !owners.contains(&mac))
    }

    /// Every NIC of a guest whose name is known.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, Mac)> {
        self.by_mac.iter().filter_map(|(mac, name)| Some((name.as_deref()?, *mac)))
    }
}
