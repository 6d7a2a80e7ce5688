//! Random operations beside a model that is too simple to be wrong: kernel, files, registry and model always agree, with
//! the daemon killed, the host rebooted and single calls failing in between.
//!
//! A few thousand sequences run as an ordinary test; `make soak` runs 100,000 (`NETD_SEQUENCES`). A failure names its
//! sequence, and `NETD_SEQUENCE=N` runs that one alone.

use std::{collections::BTreeMap, env, fs, sync::Arc};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::{Trouble, assert_true, daemon, directory, now, port, start_daemon};
use crate::{
    apply::fake::{Fake, Traces},
    verbs::{How, VerbError, Verbs},
};

/// How many sequences an ordinary test run does.
const SEQUENCES: u64 = 3_000;
const NAMES: [&str; 3] = ["red", "green", "blue"];
const VARIANTS: usize = 4;
/// More calls than any verb makes.
const CALLS: usize = 40;

/// One of the forms that network `number` takes: told apart by its domain.
fn text(number: usize, variant: usize) -> String {
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

#[derive(Clone, Copy, Debug)]
enum Operation {
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
    fn random(random: &mut impl Rng) -> Self {
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
struct Model {
    networks: BTreeMap<&'static str, Network>,
    /// Taps, and the network each was made for.
    ports: BTreeMap<String, &'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Network {
    defined: Option<usize>,
    live: Option<usize>,
    autostart: bool,
}

impl Model {
    fn network(&self, number: usize) -> Network {
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
    fn after(&self, operation: Operation) -> Option<Self> {
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
}

/// A host, its disk and the daemon on it.
struct Real {
    fake: Fake,
    directory: TempDir,
    verbs: Arc<Verbs<Fake>>,
    found: Traces,
}

impl Real {
    fn new() -> Self {
        let (fake, directory) = (Fake::new(), directory());
        let found = fake.traces();
        let verbs = daemon(&fake, &directory).unwrap();
        now(verbs.undefine("default")).unwrap();
        Real { fake, directory, verbs, found }
    }

    /// Does it. `None` if the daemon was killed meanwhile.
    fn run(&mut self, operation: Operation, model: &Model) -> Option<Result<(), VerbError>> {
        use futures_util::FutureExt;
        let verbs = Arc::clone(&self.verbs);
        let done = match operation {
            Operation::Define { network, variant } => verbs.define(&text(network, variant)).now_or_never()?.map(drop),
            Operation::Create { network, variant } => verbs.create(&text(network, variant)).now_or_never()?.map(drop),
            Operation::Apply { network, variant } => {
                verbs.apply_network(&text(network, variant), How::default()).now_or_never()?.map(drop)
            }
            Operation::Start(network) => verbs.start(NAMES[network]).now_or_never()?.map(drop),
            Operation::Destroy(network) => verbs.destroy(NAMES[network]).now_or_never()?.map(drop),
            Operation::Undefine(network) => verbs.undefine(NAMES[network]).now_or_never()?.map(drop),
            Operation::Autostart(network, on) => verbs.set_autostart(NAMES[network], on).now_or_never()?.map(drop),
            Operation::AddPort(network) => {
                verbs.add_port(&port(NAMES[network], "guest", None)).now_or_never()?.map(drop)
            }
            Operation::EndGuest(which) => {
                let Some(interface) = model.ports.keys().nth(which) else { return Some(Ok(())) };
                let index = self.fake.world().host.link(interface).unwrap().index;
                self.fake.remove_link(index);
                verbs.link_gone(index, interface).now_or_never()?;
                Ok(())
            }
            Operation::DeleteBridge(network) => {
                let name = format!("br-{}", NAMES[network]);
                let Some(index) = self.fake.world().host.link(&name).map(|link| link.index) else {
                    return Some(Ok(()));
                };
                self.fake.remove_link(index);
                verbs.link_gone(index, &name).now_or_never()?;
                verbs.reconcile().now_or_never()?
            }
            Operation::FlushRules => {
                self.fake.world().table = None;
                verbs.reconcile().now_or_never()?
            }
            Operation::KillDaemon => {
                self.fake.end_daemon();
                start_daemon(&self.fake, &self.directory)?.map(|verbs| self.verbs = verbs)
            }
            Operation::Reboot => {
                self.fake.reboot();
                fs::remove_file(self.directory.path().join("runtime/boot")).unwrap();
                start_daemon(&self.fake, &self.directory)?.map(|verbs| self.verbs = verbs)
            }
        };
        Some(done)
    }

    /// The daemon is dead, and with it what only it held: taps that were not handed out yet. The next one starts.
    fn restart(&mut self, model: &Model) {
        self.fake.kill_daemon();
        let lost: Vec<u32> = {
            let world = self.fake.world();
            let taps = world.host.links.iter().filter(|link| link.name.starts_with("vnet"));
            taps.filter(|link| !model.ports.contains_key(&link.name)).map(|link| link.index).collect()
        };
        lost.into_iter().for_each(|index| self.fake.remove_link(index));
        self.verbs = daemon(&self.fake, &self.directory).unwrap();
    }

    /// What there is.
    fn model(&self) -> Model {
        let mut model = Model::default();
        for network in self.verbs.list().networks {
            let name = NAMES.into_iter().find(|name| *name == network.name).unwrap();
            let variant = |inactive| {
                let xml = self.verbs.dump_xml(name, inactive).unwrap();
                (0..VARIANTS).find(|variant| xml.contains(&format!("<domain name='v{variant}'/>"))).unwrap()
            };
            let defined = network.persistent.then(|| variant(true));
            let live = network.active.then(|| variant(false));
            model.networks.insert(name, Network { defined, live, autostart: network.autostart });
        }
        for port in self.verbs.list_ports(None).unwrap().ports {
            let name = NAMES.into_iter().find(|name| *name == port.network).unwrap();
            model.ports.insert(port.interface, name);
        }
        model
    }

    /// Registry, kernel and files say the same.
    fn check(&self, case: &str) {
        let model = self.model();
        let found = self.found.clone().with_taps_of(&self.fake);
        assert_true(&self.verbs, &self.fake, &self.directory, &found, case);
        let world = self.fake.world();
        let taps: Vec<&str> = names(world.host.links.iter().map(|link| link.name.as_str()), "vnet");
        assert_eq!(taps, model.ports.keys().map(String::as_str).collect::<Vec<_>>(), "{case}: taps");
        for (interface, network) in &model.ports {
            let master = world.host.link(interface).and_then(|link| link.master);
            let bridge = world.host.link(&format!("br-{network}")).map(|link| link.index);
            assert_eq!(master, bridge, "{case}: {interface} of {network}");
        }
        let files = |part: &str| {
            let list = fs::read_dir(self.directory.path().join(part)).unwrap();
            let mut stems: Vec<String> =
                list.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned()).collect();
            stems.sort();
            stems
        };
        let those = |which: &dyn Fn(&Network) -> bool| {
            let mut names: Vec<&str> =
                model.networks.iter().filter(|(_, it)| which(it)).map(|(name, _)| *name).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(files("config/networks"), those(&|it| it.defined.is_some()), "{case}: definitions");
        assert_eq!(files("config/autostart"), those(&|it| it.autostart), "{case}: autostart");
        assert_eq!(files("runtime/networks"), those(&|it| it.live.is_some()), "{case}: records");
        assert_eq!(files("runtime/ports"), taps, "{case}: ports");
    }
}

fn names<'a>(all: impl Iterator<Item = &'a str>, start: &str) -> Vec<&'a str> {
    let mut names: Vec<&str> = all.filter(|name| name.starts_with(start)).collect();
    names.sort_unstable();
    names
}

fn sequence(number: u64) {
    let mut random = StdRng::seed_from_u64(number);
    let mut real = Real::new();
    let mut model = Model::default();
    let mut done = Vec::new();
    for _ in 0..random.random_range(4..16) {
        let operation = Operation::random(&mut random);
        let call = real.fake.world().calls + random.random_range(1..=CALLS);
        let trouble = match random.random_range(0..10) {
            0 => Some(Trouble::Fail(call)),
            1 => Some(Trouble::HangBefore(call)),
            2 => Some(Trouble::HangAfter(call)),
            _ => None,
        };
        done.push((operation, trouble));
        let case = format!("NETD_SEQUENCE={number}: {done:?}");
        let expected = model.after(operation);
        real.fake.world().trouble = trouble;
        let result = real.run(operation, &model);
        let hit = real.fake.world().calls >= call && trouble.is_some();
        real.fake.world().trouble = None;
        if !hit {
            let result = result.expect("nothing held it up");
            let may = matches!(operation, Operation::EndGuest(_) | Operation::DeleteBridge(_));
            assert!(may || result.is_ok() == expected.is_some(), "{case}: {result:?}");
            model = expected.unwrap_or(model);
            assert_eq!(real.model(), model, "{case}");
        } else {
            // It was done or it was not; nothing between.
            let expected = match operation {
                // Nobody put the bridge back, and the next daemon takes a network without one for stopped.
                Operation::DeleteBridge(network) => model.after(Operation::Destroy(network)),
                _ => expected,
            }
            .unwrap_or_else(|| model.clone());
            let handed_out =
                matches!(result, Some(Ok(()))) || matches!(operation, Operation::EndGuest(_) | Operation::Reboot);
            real.restart(if handed_out { &expected } else { &model });
            let is = real.model();
            let halfway = match operation {
                // To have a network that is not active is to define it, and then to start it.
                Operation::Apply { network, variant } if result.is_none() && model.network(network).live.is_none() => {
                    model.after(Operation::Define { network, variant })
                }
                // What fails to start then is not tried again until the next one.
                Operation::Reboot => Some(expected.without_those_inactive_in(&is)),
                _ => None,
            };
            let fine = is == expected || is == model || Some(&is) == halfway.as_ref();
            assert!(fine, "{case}: {result:?}\nis {is:?}\nwas {model:?}\nor {expected:?}");
            model = is;
        }
        real.check(&case);
    }
}

#[test]
fn whatever_is_done_and_whatever_goes_wrong_kernel_files_and_model_agree() {
    let number = |key: &str| env::var(key).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("NETD_SEQUENCE") {
        Some(one) => sequence(one),
        None => (0..number("NETD_SEQUENCES").unwrap_or(SEQUENCES)).for_each(sequence),
    }
}
