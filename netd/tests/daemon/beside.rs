//! The daemon beside systemd-resolved and firewalld, which are pretended by a program on a bus of its own: it has their
//! interfaces and writes down what it is told. And guests' names in a file like /etc/hosts.

use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    doctor::bind,
    guest::Guest,
    harness::{Space, wait_for},
};

/// What the pretended program is started with.
const BUS: &str = "NETD_TEST_BUS";
const LOG: &str = "NETD_TEST_LOG";
const NAME: &str = "NETD_TEST_NAME";

const RESOLVED: &str = "org.freedesktop.resolve1";
const FIREWALLD: &str = "org.fedoraproject.FirewallD1";

fn tell(line: &str) {
    let path = std::env::var(LOG).unwrap();
    let mut log = fs::File::options().append(true).create(true).open(path).unwrap();
    log.write_all(format!("{line}\n").as_bytes()).unwrap();
}

struct FakeResolved;

#[zbus::interface(name = "org.freedesktop.resolve1.Manager")]
impl FakeResolved {
    #[zbus(name = "SetLinkDNS")]
    fn set_link_dns(&self, link: i32, servers: Vec<(i32, Vec<u8>)>) {
        for (family, bytes) in servers {
            let address: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Ipv4Addr::from(bytes).into(),
                Err(_) => <[u8; 16]>::try_from(bytes.as_slice()).unwrap().into(),
            };
            assert_eq!(family == 2, address.is_ipv4());
            tell(&format!("{link} server {address}"));
        }
    }

    #[zbus(name = "SetLinkDNSEx")]
    fn set_link_dns_ex(&self, link: i32, servers: Vec<(i32, Vec<u8>, u16, String)>) {
        for (_, _, port, name) in servers {
            tell(&format!("{link} server port {port} name '{name}'"));
        }
    }

    #[zbus(name = "SetLinkDomains")]
    fn set_link_domains(&self, link: i32, domains: Vec<(String, bool)>) {
        for (domain, only_routing) in domains {
            tell(&format!("{link} domain {}{domain}", if only_routing { "~" } else { "" }));
        }
    }

    #[zbus(name = "RevertLink")]
    fn revert_link(&self, link: i32) {
        tell(&format!("{link} revert"));
    }
}

struct FakeFirewalld;

#[zbus::interface(name = "org.fedoraproject.FirewallD1")]
impl FakeFirewalld {
    #[zbus(signal, name = "Reloaded")]
    async fn reloaded(emitter: &zbus::object_server::SignalEmitter<'_>) -> zbus::Result<()>;
}

struct FakeZones;

#[zbus::interface(name = "org.fedoraproject.FirewallD1.zone")]
impl FakeZones {
    #[zbus(name = "getZones")]
    fn get_zones(&self) -> Vec<String> {
        let zones = PathBuf::from(std::env::var(LOG).unwrap()).with_extension("zones");
        fs::read_to_string(zones).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[zbus(name = "getZoneOfInterface")]
    fn get_zone_of_interface(&self, interface: String) -> String {
        // As a user has put it there: a file with the bridge and the zone.
        let chosen = PathBuf::from(std::env::var(LOG).unwrap()).with_extension("chosen");
        let chosen = fs::read_to_string(chosen).unwrap_or_default();
        chosen
            .split_once(' ')
            .filter(|(bridge, _)| *bridge == interface)
            .map(|(_, zone)| zone.to_owned())
            .unwrap_or_default()
    }

    #[zbus(name = "changeZoneOfInterface")]
    fn change_zone_of_interface(&self, zone: String, interface: String) -> String {
        tell(&format!("{interface} in {zone}"));
        zone
    }

    #[zbus(name = "removeInterface")]
    fn remove_interface(&self, zone: String, interface: String) -> String {
        tell(&format!("{interface} out of {zone}"));
        zone
    }
}

/// Not a test: what [`Fake`] runs in a namespace of its own, until it is killed.
#[test]
#[ignore = "it is the program that other tests run"]
fn pretends_to_be_another_program() {
    let Ok(address) = std::env::var(BUS) else { return };
    let name = std::env::var(NAME).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let builder = zbus::connection::Builder::address(address.as_str());
        let builder = match name.as_str() {
            RESOLVED => builder.serve_at("/org/freedesktop/resolve1", FakeResolved),
            _ => builder
                .serve_at("/org/fedoraproject/FirewallD1", FakeFirewalld)
                .serve_at("/org/fedoraproject/FirewallD1", FakeZones),
        };
        let connection = builder.name(name).build().await.unwrap();
        tell("ready");
        let reload = PathBuf::from(std::env::var(LOG).unwrap()).with_extension("reload");
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if fs::remove_file(&reload).is_ok() {
                let emitter = zbus::object_server::SignalEmitter::new(&connection, "/org/fedoraproject/FirewallD1");
                FakeFirewalld::reloaded(&emitter.unwrap()).await.unwrap();
            }
        }
    });
}

/// A program with another's name on the bus; killed when dropped.
struct Fake {
    log: PathBuf,
    child: Child,
}

impl Fake {
    /// In the namespace of `space`, on the bus of `bus`.
    fn start(space: &Space, bus: &Bus, name: &str, file: &str) -> Self {
        let log = bus.directory.join(file);
        let _ = fs::remove_file(&log);
        let mut command = space.command(std::env::current_exe().unwrap().to_str().unwrap());
        command.args(["--ignored", "--exact", "beside::pretends_to_be_another_program"]);
        command.env(BUS, &bus.address).env(LOG, &log).env(NAME, name).stdout(Stdio::null());
        let fake = Fake { log, child: command.spawn().unwrap() };
        wait_for("the pretended program", || fake.told().contains(&"ready".to_owned()));
        fake
    }

    fn told(&self) -> Vec<String> {
        fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn wait_for(&self, line: &str) {
        wait_for(line, || self.told().iter().any(|told| told == line));
    }

    fn beside(&self, extension: &str) -> PathBuf {
        self.log.with_extension(extension)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A bus of one test's own.
struct Bus {
    directory: PathBuf,
    address: String,
    child: Child,
}

impl Bus {
    fn start(space: &Space) -> Self {
        let directory = space.directory.path().to_owned();
        let socket = directory.join("bus");
        let address = format!("unix:path={}", socket.display());
        let policy = "<allow send_destination='*'/><allow receive_sender='*'/><allow own='*'/><allow user='*'/>";
        let config = format!(
            "<busconfig><listen>{address}</listen><auth>EXTERNAL</auth>\
             <policy context='default'>{policy}</policy></busconfig>"
        );
        fs::write(directory.join("bus.conf"), config).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--nosyslog", "--config-file"]).arg(directory.join("bus.conf"));
        let child = command.spawn().expect("dbus-daemon is needed: apt install dbus-daemon");
        wait_for("the bus", || socket.exists());
        Bus { directory, address, child }
    }

    /// What a daemon is started through to find this bus.
    fn environment(&self) -> String {
        format!("env DBUS_SYSTEM_BUS_ADDRESS={}", self.address)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn create(space: &Space, inside: &str) {
    let xml = format!("<network><name>lab</name>{inside}<ip address='10.7.0.1' prefix='24'/></network>");
    space.call(async |client| client.create_network(xml).await).unwrap();
}

#[test]
fn resolved_is_told_of_a_local_domain_and_again_when_it_or_the_bridge_is_new() {
    let space = Space::new();
    let bus = Bus::start(&space);
    let resolved = Fake::start(&space, &bus, RESOLVED, "resolved");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<bridge name='br-lab'/><domain name='lab.test' localOnly='yes'/>");
    let expect = |resolved: &Fake| {
        let index = space.index("br-lab").unwrap();
        for what in ["server 10.7.0.1", "domain ~lab.test", "domain ~0.7.10.in-addr.arpa"] {
            resolved.wait_for(&format!("{index} {what}"));
        }
    };
    expect(&resolved);

    let old = space.index("br-lab");
    space.run("ip link delete br-lab");
    wait_for("the bridge", || space.index("br-lab").is_some_and(|index| Some(index) != old));
    expect(&resolved);

    drop(resolved);
    let resolved = Fake::start(&space, &bus, RESOLVED, "resolved");
    expect(&resolved);
    space.destroy("lab");
    let told = resolved.told();
    create(&space, "<bridge name='br-lab'/><domain name='lab.test' localOnly='yes' register='no'/>");
    space.destroy("lab");
    create(&space, "<bridge name='br-lab'/><domain name='lab.test'/>");
    space.destroy("lab");
    assert_eq!(resolved.told(), told, "a domain that is not to be registered was");
}

#[test]
fn where_another_has_port_53_resolved_is_told_the_port() {
    let space = Space::new();
    let _holder = bind(&space, "0.0.0.0:53");
    let bus = Bus::start(&space);
    let resolved = Fake::start(&space, &bus, RESOLVED, "resolved");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<bridge name='br-lab'/><domain name='lab.test' localOnly='yes'/>");
    wait_for("a server", || resolved.told().iter().any(|line| line.contains("server port ")));
    assert!(resolved.told().iter().all(|line| !line.contains("port 53 ")), "{:?}", resolved.told());
}

struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn firewalld_gets_bridges_in_their_zone_and_again_after_a_reload() {
    let space = Space::new();
    let bus = Bus::start(&space);
    fs::write(bus.directory.join("firewalld.zones"), "public trusted libvirt dmz").unwrap();
    let firewalld = Fake::start(&space, &bus, FIREWALLD, "firewalld");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<forward/><bridge name='br-lab'/>");
    firewalld.wait_for("br-lab in libvirt");
    let times = |line: &str| firewalld.told().iter().filter(|told| *told == line).count();
    assert_eq!(times("br-lab in libvirt"), 1);
    fs::write(firewalld.beside("reload"), "").unwrap();
    wait_for("the zone again", || times("br-lab in libvirt") == 2);
    space.destroy("lab");
    firewalld.wait_for("br-lab out of libvirt");
    create(&space, "<forward mode='open'/><bridge name='br-lab' zone='dmz'/>");
    firewalld.wait_for("br-lab in dmz");
}

#[test]
fn a_bridge_that_a_user_has_put_into_a_zone_stays_there_unless_the_network_names_another() {
    let space = Space::new();
    let bus = Bus::start(&space);
    fs::write(bus.directory.join("firewalld.zones"), "trusted libvirt dmz").unwrap();
    fs::write(bus.directory.join("firewalld.chosen"), "br-lab trusted").unwrap();
    let firewalld = Fake::start(&space, &bus, FIREWALLD, "firewalld");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<forward/><bridge name='br-lab'/>");
    let second =
        "<network><name>b</name><bridge name='br-b' zone='dmz'/><ip address='10.8.0.1' prefix='24'/></network>";
    space.call(async |client| client.create_network(second.to_owned()).await).unwrap();
    firewalld.wait_for("br-b in dmz");
    assert!(!firewalld.told().iter().any(|line| line.starts_with("br-lab in")), "{:?}", firewalld.told());
    space.destroy("lab");
    create(&space, "<forward/><bridge name='br-lab' zone='libvirt'/>");
    firewalld.wait_for("br-lab in libvirt");
}

#[test]
fn a_missing_zone_keeps_no_network_from_starting_and_is_used_once_it_is_there() {
    let space = Space::new();
    let bus = Bus::start(&space);
    fs::write(bus.directory.join("firewalld.zones"), "public trusted").unwrap();
    let firewalld = Fake::start(&space, &bus, FIREWALLD, "firewalld");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<forward mode='route'/><bridge name='br-lab'/>");
    assert!(!firewalld.told().iter().any(|line| line.contains("br-lab")));
    fs::write(firewalld.beside("zones"), "public trusted libvirt").unwrap();
    fs::write(firewalld.beside("reload"), "").unwrap();
    firewalld.wait_for("br-lab in libvirt");
}

#[test]
fn a_program_of_another_namespace_is_told_nothing() {
    let (space, elsewhere) = (Space::new(), Space::new());
    let bus = Bus::start(&space);
    fs::write(bus.directory.join("firewalld.zones"), "libvirt").unwrap();
    let resolved = Fake::start(&elsewhere, &bus, RESOLVED, "resolved");
    let firewalld = Fake::start(&space, &bus, FIREWALLD, "firewalld");
    let _daemon = space.daemon_after(&bus.environment());
    create(&space, "<forward/><bridge name='br-lab'/><domain name='lab.test' localOnly='yes'/>");
    // It is told after the other would have been.
    firewalld.wait_for("br-lab in libvirt");
    assert_eq!(resolved.told(), ["ready"]);
}

#[test]
fn guests_names_are_in_the_hosts_file_while_they_have_addresses_and_nothing_else_is_touched() {
    let space = Space::new();
    let hosts = space.path("hosts");
    let own = "127.0.0.1\tlocalhost\n# mine\n";
    fs::write(&hosts, own).unwrap();
    let mut command = space.daemon_command("");
    let mut daemon = command.arg("--hosts-file").arg(&hosts).stderr(Stdio::null()).spawn().map(Held).unwrap();
    let socket = space.path("run/netd.sock");
    wait_for("the daemon", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    space.start("default");
    let mut guest = Guest::plug(&space, "default", "vm1");
    guest.lease();
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    wait_for("the name", || text(&hosts).contains(&format!("{}\tvm1\n", guest.address)));
    assert!(text(&hosts).starts_with(own));
    fs::write(&hosts, format!("{}10.9.9.9\ttheirs\n", text(&hosts))).unwrap();
    space.destroy("default");
    wait_for("the block to go", || text(&hosts) == format!("{own}10.9.9.9\ttheirs\n"));
    let _ = daemon.0.kill();
}
