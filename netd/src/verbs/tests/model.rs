//! Random operations, and a model of what they make that is too simple to be wrong. Pure.
//!
//! Two tests take it: `random.rs` beside this runs the verbs on a host made of values, `tests/daemon/random.rs` a real
//! daemon on a real kernel.

use std::collections::BTreeMap;

use rand::{Rng, RngExt};

/// The networks, by number.
pub(crate) const NAMES: [&str; 3] = ["red", "green", "blue"];
/// How many forms a network takes.
pub(crate) const VARIANTS: usize = 4;

/// One of the forms that network `number` takes: told apart by its domain.
pub(crate) fn text(number: usize, variant: usize) -> String {
    let name = NAMES[number];
    let forward = ["<forward mode='nat'/>", "", "<forward mode='route'/>", "<forward mode='open'/>"][variant];
    let route = if variant == 2 {
        format!("<route address='10.{number}.0.0' prefix='16' gateway='172.20.{number}.9'/>")
    } else {
        String::new()
    };
    format!(
        "<network><name>{name}</name><uuid>00000000-0000-4000-8000-00000000000{number}</uuid>{forward}\
         <bridge name='br-{name}'/><domain name='v{variant}'/>\
         <ip address='172.20.{number}.1' prefix='24'><dhcp><range start='172.20.{number}.10' end='172.20.{number}.99'/>\
         </dhcp></ip>{route}</network>"
    )
}

/// Something that a user, a guest or fate does. Networks and forms are numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    Define {
        network: usize,
        variant: usize,
    },
    Create {
        network: usize,
        variant: usize,
    },
    Apply {
        network: usize,
        variant: usize,
    },
    Start(usize),
    Destroy(usize),
    Undefine(usize),
    Autostart(usize, bool),
    AddPort(usize),
    /// A guest ends; which one is chosen by this number.
    EndGuest(usize),
    DeleteBridge(usize),
    FlushRules,
    KillDaemon,
    Reboot,
}

impl Operation {
    pub(crate) fn random(random: &mut impl Rng) -> Self {
        let network = random.random_range(0..NAMES.len());
        let variant = random.random_range(0..VARIANTS);
        match random.random_range(0..27) {
            0..=3 => Operation::Define { network, variant },
            4 => Operation::Create { network, variant },
            5..=8 => Operation::Start(network),
            9..=11 => Operation::Destroy(network),
            12 => Operation::Undefine(network),
            13 => Operation::Autostart(network, random.random()),
            14..=16 => Operation::AddPort(network),
            17 => Operation::EndGuest(random.random_range(0..8)),
            18 => Operation::DeleteBridge(network),
            19 => Operation::FlushRules,
            20..=22 => Operation::KillDaemon,
            23 => Operation::Reboot,
            _ => Operation::Apply { network, variant },
        }
    }
}

/// What there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) networks: BTreeMap<&'static str, Network>,
    /// Taps, and the network each was made for.
    pub(crate) ports: BTreeMap<String, &'static str>,
}

/// The form it has in its definition and the one that runs, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) defined: Option<usize>,
    pub(crate) live: Option<usize>,
    pub(crate) autostart: bool,
}

impl Model {
    pub(crate) fn network(&self, number: usize) -> Network {
        self.networks.get(NAMES[number]).copied().unwrap_or_default()
    }

    /// A network without a form is none.
    fn set(&mut self, number: usize, network: Network) {
        if network.defined.is_none() && network.live.is_none() {
            self.networks.remove(NAMES[number]);
        } else {
            self.networks.insert(NAMES[number], network);
        }
    }

    /// The same with those networks inactive that are so in the other.
    fn without_those_inactive_in(&self, other: &Self) -> Self {
        let mut model = self.clone();
        for (name, network) in &mut model.networks {
            network.live = network.live.filter(|_| other.networks.get(name).is_some_and(|it| it.live.is_some()));
        }
        model
    }

    /// What there should be after an operation; `None` if it must be refused.
    pub(crate) fn after(&self, operation: Operation) -> Option<Self> {
        let mut model = self.clone();
        let mut change = |number: usize, change: &dyn Fn(Network) -> Option<Network>| {
            change(model.network(number)).map(|network| model.set(number, network))
        };
        match operation {
            Operation::Define { network, variant } => {
                change(network, &|it| Some(Network { defined: Some(variant), ..it }))?;
            }
            Operation::Create { network, variant } => {
                change(network, &|it| it.live.is_none().then_some(Network { live: Some(variant), ..it }))?;
            }
            Operation::Apply { network, variant } => {
                change(network, &|it| Some(Network { defined: Some(variant), live: Some(variant), ..it }))?;
            }
            Operation::Start(network) => {
                change(network, &|it| {
                    (it.live.is_none() && it.defined.is_some()).then_some(Network { live: it.defined, ..it })
                })?;
            }
            Operation::Destroy(network) => {
                change(network, &|it| it.live.map(|_| Network { live: None, ..it }))?;
            }
            Operation::Undefine(network) => {
                change(network, &|it| it.defined.map(|_| Network { defined: None, autostart: false, ..it }))?;
            }
            Operation::Autostart(network, autostart) => {
                change(network, &|it| it.defined.map(|_| Network { autostart, ..it }))?;
            }
            Operation::AddPort(network) => {
                model.network(network).live?;
                let interface = (0..).map(|n| format!("vnet{n}")).find(|name| !model.ports.contains_key(name))?;
                model.ports.insert(interface, NAMES[network]);
            }
            Operation::EndGuest(which) => {
                let interface = model.ports.keys().nth(which)?.clone();
                model.ports.remove(&interface);
            }
            Operation::DeleteBridge(network) => drop(model.network(network).live?),
            Operation::FlushRules | Operation::KillDaemon => {}
            Operation::Reboot => {
                model.ports.clear();
                for number in 0..NAMES.len() {
                    let it = model.network(number);
                    model.set(number, Network { live: it.defined.filter(|_| it.autostart), ..it });
                }
            }
        }
        Some(model)
    }
    /// Whether this is what an operation may have left that went wrong or was cut short: it was done or it was not, and
    /// nothing between. `unanswered` if nobody heard how it ended.
    pub(crate) fn may_be_left(&self, operation: Operation, unanswered: bool, is: &Self) -> bool {
        let expected = match operation {
            // Nobody put the bridge back, and the next daemon takes a network without one for stopped.
            Operation::DeleteBridge(network) => self.after(Operation::Destroy(network)),
            _ => self.after(operation),
        }
        .unwrap_or_else(|| self.clone());
        let halfway = match operation {
            // To have a network that is not active is to define it, and then to start it.
            Operation::Apply { network, variant } if unanswered && self.network(network).live.is_none() => {
                self.after(Operation::Define { network, variant })
            }
            // What fails to start then is not tried again until the next one.
            Operation::Reboot => Some(expected.without_those_inactive_in(is)),
            _ => None,
        };
        is == &expected || is == self || Some(is) == halfway.as_ref()
    }
}
