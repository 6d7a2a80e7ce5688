//! DNS on a network, asked with dig: guests' names, records, the rest of the world, and what must not get out.

use anyhow::Result;
use tests::{
    daemon::Daemon,
    internet::{Internet, WEB, WEB_NAME},
    space::{Running, Space},
    station::Station,
    wait::{self, PATIENCE},
    xml,
};

/// A network named blue with records and a domain, and two guests on it.
struct World {
    netd: Daemon,
    internet: Internet,
    vm1: Station,
    vm2: Station,
    address1: String,
    address2: String,
}

fn world(prepare: impl FnOnce(&Space) -> Result<()>) -> Result<World> {
    let host = Space::new("names")?;
    let internet = Internet::connect(&host)?;
    prepare(&host)?;
    let netd = Daemon::on(host)?;
    let more = "  <domain name='blue.test' localOnly='yes'/>
  <dns>
    <host ip='192.168.90.200'><hostname>printer</hostname><hostname>printer.office.test</hostname></host>
  </dns>\n";
    netd.create(&xml::network("blue", "blue0", "<forward mode='nat'/>", 90, more))?;
    let vm1 = Station::plug(&netd, "blue", "vm1")?;
    let vm2 = Station::plug(&netd, "blue", "vm2")?;
    let (address1, address2) = (vm1.lease()?, vm2.lease()?);
    Ok(World { netd, internet, vm1, vm2, address1, address2 })
}

impl World {
    /// `dig +short` from the first guest, to the network's server.
    fn dig(&self, question: &str) -> Result<String> {
        let answer = self.vm1.space.sh(&format!("dig +short +tries=2 +time=2 @192.168.90.1 {question} || true"))?;
        Ok(answer.trim().to_owned())
    }

    /// Unplugs the guests and looks at what is left.
    fn finish(self) -> Result<()> {
        let World { mut netd, internet, vm1, vm2, .. } = self;
        drop((vm1, vm2));
        netd.finish()?;
        drop(internet);
        Ok(())
    }

    /// The status of an answer (NOERROR, NXDOMAIN, …), or what dig says if there is none.
    fn status(&self, question: &str) -> Result<String> {
        let answer = self.vm1.space.sh(&format!("dig +tries=2 +time=2 @192.168.90.1 {question} || true"))?;
        let status = answer.split("status: ").nth(1).and_then(|rest| rest.split(',').next());
        Ok(status.unwrap_or(&answer).to_owned())
    }
}

#[test]
fn guests_are_known_by_name_forward_and_reverse() -> Result<()> {
    let world = world(|_| Ok(()))?;
    assert_eq!(world.dig("vm2")?, world.address2);
    assert_eq!(world.dig("VM2.blue.test")?, world.address2);
    assert_eq!(world.dig(&format!("-x {}", world.address2))?, "vm2.blue.test.");
    assert_eq!(world.dig("printer")?, "192.168.90.200");
    assert_eq!(world.dig("printer.office.test")?, "192.168.90.200");
    assert_eq!(world.dig("-x 192.168.90.200")?, "printer.blue.test.");
    assert!(world.vm1.reaches("192.168.90.1")? && world.vm1.reaches(&world.address2)?);
    // A name that exists has no other kinds of records, which is not the same as no name.
    assert_eq!(world.status("vm2 AAAA")?, "NOERROR");
    assert_eq!(world.status("nobody.blue.test")?, "NXDOMAIN");
    assert_eq!(world.status(&format!("-x 192.168.90.{}", 250))?, "NXDOMAIN");
    assert_eq!(world.internet.queries(), Vec::<String>::new(), "nothing of this is the Internet's business");

    // A guest that comes later is known as soon as it has its lease.
    let vm3 = Station::plug(&world.netd, "blue", "vm3")?;
    let address = vm3.lease()?;
    assert_eq!(world.dig("vm3.blue.test")?, address);
    drop(vm3);
    assert_eq!(world.dig("vm1.blue.test")?, world.address1);
    world.finish()
}

#[test]
fn other_names_are_asked_of_the_hosts_resolver_once() -> Result<()> {
    let world = world(|_| Ok(()))?;
    for _ in 0..3 {
        assert_eq!(world.dig(WEB_NAME)?, WEB.to_string());
        assert_eq!(world.status("nothing.example.net")?, "NXDOMAIN");
    }
    let asked = |name: &str| world.internet.queries().iter().filter(|query| query.starts_with(name)).count();
    assert_eq!((asked(WEB_NAME), asked("nothing.example.net")), (1, 1), "{:?}", world.internet.queries());
    // Longer than 512 bytes: whole by EDNS and by TCP, cut off and marked so without.
    assert_eq!(world.dig("+tcp big.example.net")?.lines().count(), 60);
    assert_eq!(world.dig("+bufsize=4096 big.example.net")?.lines().count(), 60);
    let cut = world.vm1.space.sh("dig +noedns +ignore @192.168.90.1 big.example.net")?;
    assert!(cut.contains("flags: qr tc"), "{cut}");
    world.finish()
}

#[test]
fn a_new_resolver_in_resolv_conf_is_used_without_a_restart() -> Result<()> {
    let world = world(|host| host.set_resolv_conf("nameserver 198.51.100.99\n"))?;
    assert_ne!(world.status(WEB_NAME)?, "NOERROR");
    world.netd.host.set_resolv_conf(&format!("nameserver {}\n", tests::internet::DNS))?;
    wait::until_true("the new resolver is asked", PATIENCE, || Ok(world.dig(WEB_NAME)? == WEB.to_string()))?;
    world.finish()
}

#[test]
fn another_daemon_on_port_53_of_every_address_is_no_hindrance() -> Result<()> {
    let host = Space::new("names53")?;
    let _other = Running(
        host.command(tests::paths::tool("dnsmasq")?)
            .args([
                "--conf-file=/dev/null",
                "--keep-in-foreground",
                "--port=53",
                "--no-resolv",
                "--address=/#/192.0.2.99",
            ])
            .spawn()?,
    );
    wait::until_true("the other daemon listens", PATIENCE, || Ok(host.sh("ss -lun")?.contains("0.0.0.0:53")))?;
    let mut netd = Daemon::on(host)?;
    netd.ok(&["net-start", "default"])?;
    let (vm1, vm2) = (Station::plug(&netd, "default", "vm1")?, Station::plug(&netd, "default", "vm2")?);
    vm1.lease()?;
    let address = vm2.lease()?;
    for transport in ["+notcp", "+tcp"] {
        let answer = vm1.space.sh(&format!("dig +short +time=2 {transport} @192.168.122.1 vm2"))?;
        assert_eq!(answer.trim(), address, "{transport}");
    }
    // The host's own server still answers the host.
    assert_eq!(netd.host.sh("dig +short +time=2 @127.0.0.1 any.thing")?.trim(), "192.0.2.99");
    drop((vm1, vm2));
    netd.finish()
}

#[test]
fn an_isolated_network_asks_nobody_outside() -> Result<()> {
    let host = Space::new("isolated")?;
    let internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    netd.create(&xml::isolated("red", "red0", 91))?;
    let vm1 = Station::plug(&netd, "red", "vm1")?;
    let address = vm1.lease()?;
    assert_eq!(vm1.space.sh("dig +short +time=2 @192.168.91.1 vm1")?.trim(), address);
    let answer = vm1.space.sh(&format!("dig +time=2 @192.168.91.1 {WEB_NAME} || true"))?;
    assert!(!answer.contains("status: NOERROR"), "{answer}");
    assert_eq!(internet.queries(), Vec::<String>::new());
    drop(vm1);
    netd.finish()
}

#[test]
fn everything_that_dns_can_say_is_answered_as_the_xml_has_it() -> Result<()> {
    let host = Space::new("records")?;
    let internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    // The host's resolvers are asked for www.example.net only; for the rest, nobody who is there.
    let more = format!(
        "  <domain name='red.test' localOnly='yes'/>
  <dns forwardPlainNames='yes'>
    <forwarder addr='198.51.100.99'/>
    <forwarder domain='{WEB_NAME}'/>
    <forwarder domain='corp' addr='{}'/>
    <txt name='red.test' value='v=spf1 -all'/>
    <srv service='ldap' protocol='tcp' target='six.red.test' port='389' priority='1' weight='10'/>
    <host ip='fd00:90::6'><hostname>six</hostname></host>
  </dns>\n",
        tests::internet::DNS
    );
    netd.create(&xml::network("red", "red0", "", 94, &more))?;
    let vm1 = Station::plug(&netd, "red", "vm1")?;
    vm1.lease()?;
    let dig = |question: &str| -> Result<String> {
        let answer = vm1.space.sh(&format!("dig +short +tries=1 +time=5 @192.168.94.1 {question} || true"))?;
        Ok(answer.trim().to_owned())
    };
    assert_eq!(dig("red.test TXT")?, "\"v=spf1 -all\"");
    assert_eq!(dig("_ldap._tcp.red.test SRV")?, "1 10 389 six.red.test.");
    assert_eq!(dig("six.red.test AAAA")?, "fd00:90::6");
    assert_eq!(dig("-x fd00:90::6")?, "six.red.test.");
    assert_eq!(internet.queries(), Vec::<String>::new());
    // An isolated network asks whom it is told to, and nobody else.
    assert_eq!(dig(WEB_NAME)?, WEB.to_string());
    dig("mail.corp")?;
    dig("www.other.example")?;
    assert_eq!(internet.queries(), [format!("{WEB_NAME} 1"), "mail.corp 1".to_owned()]);
    drop(vm1);
    netd.finish()
}

#[test]
fn what_options_of_dnsmasq_say_of_names_is_answered() -> Result<()> {
    let host = Space::new("dnsmasq")?;
    let internet = Internet::connect(&host)?;
    let mut netd = Daemon::on(host)?;
    let more = "  <domain name='red.test'/>
  <dnsmasq:options xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
    <dnsmasq:option value='address=/apps.example/192.168.95.7'/>
    <dnsmasq:option value='address=/ads.example/'/>
    <dnsmasq:option value='cname=www,web.other.test,vm1.red.test'/>
    <dnsmasq:option value='log-queries'/>
  </dnsmasq:options>\n";
    netd.create(&xml::network("red", "red0", "<forward mode='nat'/>", 95, more))?;
    let vm1 = Station::plug(&netd, "red", "vm1")?;
    let address = vm1.lease()?;
    let dig = |question: &str| -> Result<String> {
        let answer = vm1.space.sh(&format!("dig +tries=1 +time=5 @192.168.95.1 {question} || true"))?;
        let status = answer.split("status: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
        let records = answer.lines().filter(|line| !line.starts_with(';') && !line.contains("\tSOA\t"));
        let words = records.map(|line| line.split_whitespace().skip(3).collect::<Vec<_>>().join(" "));
        Ok([status.to_owned()].into_iter().chain(words.filter(|line| !line.is_empty())).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(dig("apps.example")?, "NOERROR A 192.168.95.7");
    assert_eq!(dig("any.thing.apps.example")?, "NOERROR A 192.168.95.7");
    assert_eq!(dig("apps.example AAAA")?, "NOERROR");
    assert_eq!(dig("banner.ads.example")?, "NXDOMAIN");
    assert_eq!(dig("www.red.test")?, format!("NOERROR CNAME vm1.red.test. A {address}"));
    assert_eq!(dig("web.other.test")?, format!("NOERROR CNAME vm1.red.test. A {address}"));
    assert_eq!(internet.queries(), Vec::<String>::new());
    let asked = format!("DNS: {address} asks for web.other.test., type 1");
    wait::until_true("the question is in the log", PATIENCE, || Ok(netd.log().contains(&asked)))?;
    drop(vm1);
    netd.finish()
}

#[test]
fn networks_do_not_answer_for_each_other() -> Result<()> {
    let mut netd = Daemon::new("two")?;
    netd.create(&xml::nat("blue", "blue0", 92))?;
    netd.create(&xml::nat("green", "green0", 93))?;
    let (blue, green) = (Station::plug(&netd, "blue", "vm1")?, Station::plug(&netd, "green", "vm2")?);
    blue.lease()?;
    let address = green.lease()?;
    assert_eq!(green.space.sh("dig +short +time=2 @192.168.93.1 vm2")?.trim(), address);
    let answer = blue.space.sh("dig +short +time=1 +tries=1 @192.168.92.1 vm2 || true")?;
    assert!(!answer.contains(&address), "{answer}");
    drop((blue, green));
    netd.finish()
}
