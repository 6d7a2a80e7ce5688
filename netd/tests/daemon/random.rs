//! Random operations on a real daemon and a real kernel, beside the model that `src/verbs/tests/random.rs` has, too:
//! what the kernel has, what is in the files and what the daemon says always agree with it, with the daemon killed at
//! any moment, the host started anew and others' hands in our links and rules in between.
//!
//! A few dozen sequences run as an ordinary test; `make soak` runs more (`NETD_SEQUENCES`). A failure names its sequence,
//! and `NETD_SEQUENCE=N cargo test -p netd --test daemon random` runs that one alone. What is done is then the same;
//! when the daemon is killed, to the microsecond, is not.

#[path = "../../src/verbs/tests/model.rs"]
mod model;
mod seen;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, thread,
    time::{Duration, Instant},
};

use model::{Model, NAMES, Network, Operation, VARIANTS, text};
use netd_api::{ClientError, PortRequest};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    guest::Guest,
    harness::{Daemon, PATIENCE, Space, entries, wait_for},
};
use seen::{Link, Seen};

/// How many sequences an ordinary test run does.
const SEQUENCES: u64 = 20;

/// The rules for networks, by which networks of which form are live.
type Rules = BTreeMap<Vec<(&'static str, usize)>, BTreeSet<String>>;

/// A host and the daemon on it.
struct Real<'a> {
    space: &'a Space,
    /// Between two daemons there is none.
    daemon: Option<Daemon<'a>>,
    guests: BTreeMap<String, Guest>,
    /// By network: what was leased, and to whom.
    leases: BTreeMap<&'static str, BTreeMap<String, String>>,
    found: Seen,
}

impl<'a> Real<'a> {
    fn new(space: &'a Space) -> Self {
        let (found, _) = Seen::look(space);
        let daemon = Some(space.daemon());
        space.call(async |client| client.undefine_network("default").await).unwrap();
        Real { space, daemon, guests: BTreeMap::new(), leases: BTreeMap::new(), found }
    }

    /// Does it, and has the daemon killed so much later if a time is given.
    fn run(&mut self, operation: Operation, model: &Model, kill_after: Option<Duration>) -> Result<(), ClientError> {
        let space = self.space;
        match operation {
            Operation::KillDaemon | Operation::Reboot => {
                self.kill();
                if let Operation::Reboot = operation {
                    self.guests.clear();
                    space.reboot();
                    fs::remove_dir_all(space.path("run")).unwrap();
                }
                if let Some(after) = kill_after {
                    let mut child = space.daemon_command("").spawn().unwrap();
                    thread::sleep(after);
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
                self.daemon = Some(space.daemon());
                return Ok(());
            }
            _ => {}
        }
        let pid = self.daemon.as_ref().map(|daemon| Pid::from_raw(i32::try_from(daemon.pid()).unwrap()));
        let killer = kill_after.map(|after| {
            thread::spawn(move || {
                thread::sleep(after);
                kill(pid.unwrap(), Signal::SIGKILL).unwrap();
            })
        });
        let result = self.ask(operation, model);
        if let Some(killer) = killer {
            killer.join().unwrap();
            self.kill();
            self.daemon = Some(space.daemon());
        }
        result
    }

    fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    fn ask(&mut self, operation: Operation, model: &Model) -> Result<(), ClientError> {
        let space = self.space;
        match operation {
            Operation::Define { network, variant } => {
                space.call(async |client| client.define_network(text(network, variant)).await).map(drop)
            }
            Operation::Create { network, variant } => {
                space.call(async |client| client.create_network(text(network, variant)).await).map(drop)
            }
            Operation::Apply { network, variant } => {
                space.call(async |client| client.apply_network(text(network, variant), false, None).await).map(drop)
            }
            Operation::Start(network) => {
                space.call(async |client| client.start_network(NAMES[network]).await).map(drop)
            }
            Operation::Destroy(network) => {
                space.call(async |client| client.destroy_network(NAMES[network]).await).map(drop)
            }
            Operation::Undefine(network) => {
                space.call(async |client| client.undefine_network(NAMES[network]).await).map(drop)
            }
            Operation::Autostart(network, on) => {
                space.call(async |client| client.set_autostart(NAMES[network], on).await).map(drop)
            }
            Operation::AddPort(network) => {
                let request = PortRequest { network: NAMES[network].into(), queues: 1, ..PortRequest::default() };
                let (port, fds) = space.call(async |client| client.add_port(request).await)?;
                self.guests.insert(port.interface.clone(), Guest::with(port, fds));
                Ok(())
            }
            Operation::EndGuest(which) => {
                if let Some(interface) = model.ports.keys().nth(which) {
                    self.guests.remove(interface).unwrap();
                }
                Ok(())
            }
            Operation::DeleteBridge(network) => {
                if model.network(network).live.is_some() {
                    space.run(&format!("ip link delete br-{}", NAMES[network]));
                }
                Ok(())
            }
            Operation::FlushRules => {
                space.run("nft flush ruleset");
                Ok(())
            }
            Operation::KillDaemon | Operation::Reboot => unreachable!("no daemon is asked for it"),
        }
    }

    /// A guest that has no lease gets one, if its network runs.
    fn lease(&mut self, model: &Model) {
        let live = |network: &str| model.networks.get(network).is_some_and(|network| network.live.is_some());
        let unleased =
            self.guests.values_mut().find(|guest| guest.address.is_unspecified() && live(&guest.port.network));
        let Some(guest) = unleased else { return };
        guest.wait_for_carrier(self.space);
        guest.lease();
        let network = NAMES.into_iter().find(|name| *name == guest.port.network).unwrap();
        self.leases.entry(network).or_default().insert(guest.port.mac.clone(), guest.address.to_string());
    }

    /// What the daemon says there is.
    fn model(&self) -> Model {
        let space = self.space;
        let mut model = Model::default();
        for network in space.call(async |client| client.list_networks().await).unwrap().networks {
            let name = NAMES.into_iter().find(|name| *name == network.name).unwrap();
            let variant = |inactive| {
                let xml = space.call(async |client| client.dump_xml(name, inactive).await).unwrap().xml;
                (0..VARIANTS).find(|variant| xml.contains(&format!("<domain name='v{variant}'/>"))).unwrap()
            };
            let defined = network.persistent.then(|| variant(true));
            let live = network.active.then(|| variant(false));
            model.networks.insert(name, Network { defined, live, autostart: network.autostart });
        }
        for port in space.call(async |client| client.list_ports(None).await).unwrap().ports {
            let name = NAMES.into_iter().find(|name| *name == port.network).unwrap();
            model.ports.insert(port.interface, name);
        }
        model
    }

    /// The leases that the daemon knows of, by network.
    fn leases(&self) -> BTreeMap<&'static str, BTreeMap<String, String>> {
        let mut leases = BTreeMap::new();
        for name in self.model().networks.into_keys() {
            let listed = self.space.call(async |client| client.list_leases(name, None).await).unwrap().leases;
            if !listed.is_empty() {
                leases.insert(name, listed.into_iter().map(|lease| (lease.mac, lease.address)).collect());
            }
        }
        leases
    }

    /// What the kernel has to have.
    fn expected(&self, model: &Model) -> Seen {
        let mut expected = self.found.clone();
        for (number, name) in NAMES.into_iter().enumerate() {
            let Some(variant) = model.network(number).live else { continue };
            let bridge = format!("br-{name}");
            let addresses = BTreeSet::from([format!("172.20.{number}.1/24")]);
            let link = Link { kind: "bridge".into(), master: None, up: true, mtu: 1500, addresses };
            expected.links.insert(bridge.clone(), link);
            expected.routes.insert(format!("172.20.{number}.0/24 dev {bridge}"));
            if variant == 2 {
                expected.routes.insert(format!("10.{number}.0.0/16 dev {bridge}"));
            }
            expected.servers.insert(format!("172.20.{number}.1:53"));
            expected.servers.insert(format!("0.0.0.0%{bridge}:67"));
            expected.forwarding |= variant != 1;
            // Mode open is the one without rules.
            if variant != 3 {
                expected.ruled.insert(bridge);
            }
        }
        for (interface, network) in &model.ports {
            let bridge = format!("br-{network}");
            let master = expected.links.contains_key(&bridge).then_some(bridge);
            if master.is_some() {
                expected.ruled.insert(interface.clone());
            }
            let link = Link { kind: "tun".into(), master, mtu: 1500, ..Link::default() };
            expected.links.insert(interface.clone(), link);
        }
        expected
    }

    /// What is not as the model has it, once everything has come to rest.
    fn differs(&self, model: &Model, rules: &mut Rules) -> Option<String> {
        let (is, ruleset) = Seen::look(self.space);
        let expected = self.expected(model);
        if is != expected {
            let lines = |seen: &Seen| format!("{seen:#?}").lines().map(str::to_owned).collect::<BTreeSet<_>>();
            let (is_not, should) = (lines(&is), lines(&expected));
            let (more, less) = (is_not.difference(&should), should.difference(&is_not));
            return Some(format!("the kernel has\n{is:#?}\nwhich has {more:#?} too many and lacks {less:#?}"));
        }
        // The ports' guards are another table.
        let table: BTreeSet<String> = ruleset.into_iter().filter(|line| line.contains("\"inet\"")).collect();
        let live = model.networks.iter().filter_map(|(name, network)| Some((*name, network.live?))).collect();
        let before = rules.entry(live).or_insert_with(|| table.clone());
        if *before != table {
            let (gone, come) = (before.difference(&table), table.difference(before));
            return Some(format!("the same networks had other rules: {gone:#?} became {come:#?}"));
        }
        let stems = |part: &str| {
            let path = self.space.path(part);
            // Some are made when something is put into them.
            let names = if path.exists() { entries(&path) } else { Vec::new() };
            let stem = |name: &String| name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem).to_owned();
            names.iter().map(stem).collect::<Vec<_>>()
        };
        let those = |which: &dyn Fn(&Network) -> bool| {
            let mut names: Vec<&str> =
                model.networks.iter().filter(|(_, it)| which(it)).map(|(name, _)| *name).collect();
            names.sort_unstable();
            names
        };
        let live = those(&|it| it.live.is_some());
        let looked_up = live.iter().flat_map(|name| [format!("br-{name}"), format!("br-{name}")]).collect::<Vec<_>>();
        for (folder, should) in [
            ("config/networks", those(&|it| it.defined.is_some())),
            ("config/autostart", those(&|it| it.autostart)),
            ("run/networks", live),
            ("run/ports", model.ports.keys().map(String::as_str).collect()),
            ("run/dnsmasq", looked_up.iter().map(String::as_str).collect()),
        ] {
            if stems(folder) != should {
                return Some(format!("in {folder} is {:?} and should be {should:?}", stems(folder)));
            }
        }
        None
    }

    /// Kernel, files, daemon and model say the same, soon.
    fn check(&self, model: &Model, rules: &mut Rules, case: &str) {
        let mut wrong = None;
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            wrong = self.differs(model, rules);
            if wrong.is_none() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if let Some(wrong) = wrong {
            panic!("{case}:\n{wrong}");
        }
        assert_eq!(self.model(), *model, "{case}");
        assert_eq!(self.leases(), self.leases, "{case}: leases");
    }
}

fn sequence(number: u64, rules: &mut Rules) {
    let mut random = StdRng::seed_from_u64(number);
    let space = Space::new();
    let mut real = Real::new(&space);
    let mut model = Model::default();
    let mut done = Vec::new();
    for _ in 0..random.random_range(4..16) {
        let operation = Operation::random(&mut random);
        // From before it is begun to after it is done.
        let kill_after = random.random_bool(0.25).then(|| Duration::from_micros(1 << random.random_range(5..16)));
        let lease = random.random_bool(0.15);
        done.push((operation, kill_after));
        let case = format!("NETD_SEQUENCE={number} cargo test -p netd --test daemon random: {done:?}");
        let expected = model.after(operation);
        let result = real.run(operation, &model, kill_after);
        let of_fate = matches!(operation, Operation::EndGuest(_) | Operation::DeleteBridge(_));
        match (kill_after, &result) {
            // A daemon that was killed later than it answered had done it; what nobody asked it for, it may not have seen.
            (Some(_), Ok(())) if of_fate || matches!(operation, Operation::Reboot) => {}
            (Some(_), Err(ClientError::Transport(_))) => {}
            _ => assert!(of_fate || result.is_ok() == expected.is_some(), "{case}: {result:?}"),
        }
        let settled = match (kill_after, &result) {
            _ if matches!(operation, Operation::EndGuest(_)) => true,
            (None, _) | (_, Err(ClientError::Refused(_))) => true,
            (Some(_), Ok(())) => !matches!(operation, Operation::DeleteBridge(_) | Operation::Reboot),
            (Some(_), Err(_)) => false,
        };
        if settled {
            model = expected.unwrap_or(model);
            if let Operation::EndGuest(_) = operation {
                wait_for("the port to be forgotten", || real.model() == model);
            }
        } else {
            // What was not handed out goes with its descriptors.
            wait_for("ports without a guest to go", || real.model().ports.keys().eq(real.guests.keys()));
            let is = real.model();
            let fine = model.may_be_left(operation, result.is_err(), &is);
            assert!(fine, "{case}: {result:?}\nis {is:?}\nwas {model:?}\nor {:?}", model.after(operation));
            model = is;
        }
        real.leases.retain(|name, _| model.networks.contains_key(name));
        real.check(&model, rules, &case);
        if lease {
            real.lease(&model);
            real.check(&model, rules, &case);
        }
    }
    real.end(&model, number);
}

impl Real<'_> {
    /// A daemon that starts where the rules are gone makes the same; and all goes when everything is stopped.
    fn end(mut self, model: &Model, number: u64) {
        let (before, rules) = Seen::look(self.space);
        self.kill();
        self.space.run("nft flush ruleset");
        self.daemon = Some(self.space.daemon());
        let (after, again) = Seen::look(self.space);
        assert_eq!(before, after, "NETD_SEQUENCE={number}");
        let (gone, come) = (rules.difference(&again), again.difference(&rules));
        assert_eq!(rules, again, "NETD_SEQUENCE={number}: {gone:#?} became {come:#?}");
        for (name, _) in model.networks.iter().filter(|(_, network)| network.live.is_some()) {
            self.space.destroy(name);
        }
        self.guests.clear();
        wait_for("the host to be as found", || Seen::look(self.space) == (self.found.clone(), BTreeSet::new()));
        self.daemon.take().unwrap().stop();
        assert_eq!(Seen::look(self.space).0, self.found, "NETD_SEQUENCE={number}");
    }
}

#[test]
fn whatever_is_done_to_a_real_daemon_kernel_files_and_model_agree() {
    let number = |key: &str| env::var(key).ok().map(|text| text.parse::<u64>().expect("a number"));
    let mut rules = Rules::new();
    match number("NETD_SEQUENCE") {
        Some(one) => sequence(one, &mut rules),
        None => {
            for one in 0..number("NETD_SEQUENCES").unwrap_or(SEQUENCES) {
                sequence(one, &mut rules);
            }
        }
    }
}
