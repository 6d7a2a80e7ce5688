//! Random operations beside a model that is too simple to be wrong: kernel, files, registry and model always agree, with
//! the daemon killed, the host rebooted and single calls failing in between. `tests/daemon/random.rs` does the same to a real daemon.
//!
//! A few thousand sequences run as an ordinary test; `make soak` runs 100,000 (`NETD_SEQUENCES`). A failure names its
//! sequence, and `NETD_SEQUENCE=N` runs that one alone.

use std::{env, fs, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;

use super::{
    Trouble, assert_true, daemon, directory,
    model::{Model, NAMES, Network, Operation, VARIANTS, text},
    now, port, start_daemon,
};
use crate::{
    apply::fake::{Fake, Traces},
    verbs::{How, VerbError, Verbs},
};

/// How many sequences an ordinary test run does.
const SEQUENCES: u64 = 3_000;
/// More calls than any verb makes.
const CALLS: usize = 40;

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

/// Says which sequence it was if it does not get to the end.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("NETD_SEQUENCE={} cargo test -p netd --lib verbs::tests::random", self.0);
        }
    }
}

fn sequence(number: u64) {
    let _named = Named(number);
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
            let handed_out =
                matches!(result, Some(Ok(()))) || matches!(operation, Operation::EndGuest(_) | Operation::Reboot);
            let expected = expected.unwrap_or_else(|| model.clone());
            real.restart(if handed_out { &expected } else { &model });
            let is = real.model();
            let fine = model.may_be_left(operation, result.is_none(), &is);
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
