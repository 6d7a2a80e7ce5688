//! Real clients on a real bridge: udhcpc, dhclient and dhcpcd each get, renew and give back a lease.
//!
//! Needs root and the three clients; without them these tests fail.

mod lab;

use lab::{Guest, config, in_namespace, serve};

#[test]
fn udhcpc_gets_a_lease_with_everything_it_asks_for() {
    in_namespace(|| async {
        let directory = tempfile::tempdir().unwrap();
        let services = serve(directory.path(), config()).await;
        let guest = Guest::new(1);
        let hook = guest.path("hook");
        let output =
            guest.output(&format!("udhcpc -f -q -n -i eth0 -x hostname:web -O mtu -s {}", hook.display())).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let seen = guest.seen();
        for line in
            ["router=192.168.122.1", "dns=192.168.122.1", "domain=lab.test", "mtu=1400", "lease=3600", "mask=24"]
        {
            assert!(seen.lines().any(|seen| seen == line), "no {line} in\n{seen}");
        }
        let leases = services.leases(lab::NETWORK);
        assert_eq!(leases.len(), 1);
        assert_eq!(leases[0].mac.to_string(), guest.mac);
        assert_eq!(leases[0].hostname.as_deref(), Some("web"));
        assert!(seen.contains(&format!("ip={}", leases[0].address)));
    });
}
