//! What libvirt's network driver has, as values, and what of it becomes ours. Pure, but for the edges in `files`,
//! `dnsmasq` and `firewall`.
//!
//! ```text
//! libvirt's files ──► Found ──► plan ──► Import per network, or why not ──► cli/import carries it out
//! ```
//!
//! An import leaves libvirt as it is. Only taking over what runs (`--adopt`) ends libvirt's dnsmasq, removes its rules
//! for the bridge and makes it forget that the network is active.

pub(crate) mod dnsmasq;
pub(crate) mod files;
pub(crate) mod firewall;
mod leases;
mod status;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, path::PathBuf};

use netd_api::{AdoptedPort, Lease};

use crate::{
    model::{Network, NetworkName},
    xml,
};

/// What was found on disk, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Definitions.
    pub(crate) definitions: Vec<File>,
    /// Networks, by name, that libvirt starts when it starts.
    pub(crate) autostart: Vec<String>,
    /// The states of those that run.
    pub(crate) states: Vec<File>,
    /// The ports of those that run, by network.
    pub(crate) ports: BTreeMap<String, Vec<File>>,
    /// Leases, by file name: `BRIDGE.status` or `NAME.leases`.
    pub(crate) leases: BTreeMap<String, File>,
}

/// A file and what is in it, or why it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) text: Result<String, String>,
}

/// What becomes of one of libvirt's networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) name: NetworkName,
    /// Its definition; none for one that is gone when it stops.
    pub(crate) definition: Option<Network>,
    /// It starts with the manager.
    pub(crate) autostart: bool,
    /// As it runs now.
    pub(crate) live: Option<Live>,
    /// Who has which address.
    pub(crate) leases: Vec<Lease>,
    /// What is left behind of it.
    pub(crate) notes: Vec<String>,
}

/// A network that libvirt runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) network: Network,
    /// MAC and guest of each port; which tap that is only the host knows.
    pub(crate) ports: Vec<status::PortOwner>,
}

/// What is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// The file.
    pub(crate) path: PathBuf,
    /// Why.
    pub(crate) why: String,
}

/// Everything that can be imported, by name, and what cannot.
pub(crate) fn plan(found: &Found) -> (Vec<Import>, Vec<LeftOut>) {
    let mut imports: BTreeMap<NetworkName, Import> = BTreeMap::new();
    let mut left_out = Vec::new();
    let new = |name: &NetworkName| Import {
        name: name.clone(),
        definition: None,
        autostart: found.autostart.iter().any(|autostarted| autostarted == name.as_str()),
        live: None,
        leases: Vec::new(),
        notes: Vec::new(),
    };
    for file in &found.definitions {
        let parsed = file.text.clone().and_then(|text| xml::parse(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(network) => {
                let name = network.name.clone();
                imports.entry(name.clone()).or_insert_with(|| new(&name)).definition = Some(network);
            }
            Err(why) => left_out.push(LeftOut { path: file.path.clone(), why }),
        }
    }
    for file in &found.states {
        match file.text.clone().and_then(|text| status::network(&text)) {
            Ok(network) => {
                let name = network.name.clone();
                let files = found.ports.get(name.as_str()).into_iter().flatten();
                let import = imports.entry(name.clone()).or_insert_with(|| new(&name));
                let mut ports = Vec::new();
                for file in files {
                    match file.text.clone().and_then(|text| status::port(&text)) {
                        Ok(Some(port)) => ports.push(port),
                        Ok(None) => {}
                        Err(why) => import.notes.push(format!("{}: {why}", file.path.display())),
                    }
                }
                import.live = Some(Live { network, ports });
            }
            Err(why) => left_out.push(LeftOut { path: file.path.clone(), why }),
        }
    }
    let mut imports: Vec<Import> = imports.into_values().collect();
    for import in &mut imports {
        import.read_leases(found);
        import.remark();
    }
    (imports, left_out)
}

impl Import {
    /// The network as it runs, else as it is defined.
    pub(crate) fn network(&self) -> Option<&Network> {
        self.live.as_ref().map(|live| &live.network).or(self.definition.as_ref())
    }

    /// Takes the leases from what was found: libvirt's own file by the bridge's name, dnsmasq's by the network's.
    pub(crate) fn read_leases(&mut self, found: &Found) {
        let Some(network) = self.network().cloned() else { return };
        let status = network.bridge.name.as_ref().and_then(|bridge| found.leases.get(&format!("{bridge}.status")));
        let native = found.leases.get(&format!("{}.leases", self.name));
        let (mut taken, mut notes) = (Vec::new(), Vec::new());
        for (file, read) in [(status, leases::status as leases::Reader), (native, leases::native)] {
            let Some(file) = file else { continue };
            match file.text.clone().and_then(|text| read(&text)) {
                Ok(leases) => {
                    let left = leases::fit(leases, &network, &mut taken);
                    notes.extend(left.into_iter().map(|why| format!("{}: {why}", file.path.display())));
                }
                Err(why) => notes.push(format!("{}: {why}", file.path.display())),
            }
        }
        self.leases = taken;
        self.notes.extend(notes);
    }

    fn remark(&mut self) {
        let slow = self.network().is_some_and(|network| network.bridge.stp);
        if slow {
            self.notes.push(format!(
                "its bridge keeps the spanning tree protocol, which libvirt turns on: a new guest waits 4 s before its \
                 first frame passes; stp='off' in 'netd net-edit {}' ends that",
                self.name
            ));
        }
    }

    /// The taps among `links` (name, MAC) that are ports of this network: a guest's tap has its MAC but for the first
    /// byte, which is fe.
    pub(crate) fn taps(&self, links: &[(String, String)]) -> Vec<AdoptedPort> {
        let ports = self.live.iter().flat_map(|live| &live.ports);
        ports
            .filter_map(|port| {
                let mac = port.mac.to_string();
                let (interface, _) = links.iter().find(|(_, of_tap)| *of_tap == format!("fe{}", &mac[2..]))?;
                Some(AdoptedPort { interface: interface.clone(), mac, guest: port.guest.clone() })
            })
            .collect()
    }
}
