//! What the verbs print, letter for letter. The expected texts of networks and leases are virsh 9.0's own, against
//! libvirtd and its test driver.

use clap::CommandFactory;
use netd_api::{
    Address, AddressOrigin, ClientError, Dropped, Error, ErrorKind, Forward, ForwardTarget, Lease, Network, Port,
    PortInfo, Protocol,
};
use serde_json::json;

use super::{
    args::{Ask, NetListArgs},
    failure::About,
    *,
};

fn network(name: &str, active: bool, autostart: bool, persistent: bool) -> Network {
    Network {
        name: name.to_owned(),
        uuid: "dd8fe884-6c02-601e-7551-cca97df1c5df".to_owned(),
        active,
        persistent,
        autostart,
        bridge: Some("virbr0".to_owned()),
        title: None,
    }
}

fn list(networks: &[Network], args: NetListArgs) -> String {
    format::network_list(&format::choose(networks.to_vec(), args), args)
}

#[test]
fn net_list_is_virshs_table() {
    let args = NetListArgs::default();
    assert_eq!(
        list(&[network("default", true, false, true)], args),
        " Name      State    Autostart   Persistent\n\
         --------------------------------------------\n \
         default   active   no          yes\n"
    );
    assert_eq!(
        list(&[network("default", false, false, true)], NetListArgs { all: true, ..args }),
        " Name      State      Autostart   Persistent\n\
         ----------------------------------------------\n \
         default   inactive   no          yes\n"
    );
    assert_eq!(
        list(&[network("default", false, false, true)], args),
        " Name   State   Autostart   Persistent\n----------------------------------------\n"
    );
}

#[test]
fn wide_characters_keep_the_columns_straight() {
    let text = list(&[network("日本", true, true, true), network("lan", true, true, true)], NetListArgs::default());
    assert_eq!(
        text,
        " Name   State    Autostart   Persistent\n\
         -----------------------------------------\n \
         lan    active   yes         yes\n \
         日本   active   yes         yes\n"
    );
}

#[test]
fn net_list_chooses_as_the_flags_say() {
    let networks = [
        network("b-active", true, true, true),
        network("A-inactive", false, false, true),
        network("c-transient", true, false, false),
    ];
    let names = |args: NetListArgs| list(&networks, NetListArgs { name: true, ..args });
    let none = NetListArgs::default();
    let all = NetListArgs { all: true, ..none };
    assert_eq!(names(none), "b-active\nc-transient\n");
    assert_eq!(names(all), "A-inactive\nb-active\nc-transient\n");
    assert_eq!(names(NetListArgs { inactive: true, ..none }), "A-inactive\n");
    assert_eq!(names(NetListArgs { inactive: true, ..all }), "A-inactive\nb-active\nc-transient\n");
    assert_eq!(names(NetListArgs { persistent: true, ..all }), "A-inactive\nb-active\n");
    assert_eq!(names(NetListArgs { transient: true, ..all }), "c-transient\n");
    assert_eq!(names(NetListArgs { transient: true, persistent: true, ..all }), names(all));
    assert_eq!(names(NetListArgs { autostart: true, ..all }), "b-active\n");
    assert_eq!(names(NetListArgs { no_autostart: true, ..all }), "A-inactive\nc-transient\n");
    assert_eq!(list(&networks[..1], NetListArgs { uuid: true, ..none }), "dd8fe884-6c02-601e-7551-cca97df1c5df\n");
}

#[test]
fn net_info_is_virshs() {
    let expected = "Name:           default\n\
                    UUID:           dd8fe884-6c02-601e-7551-cca97df1c5df\n\
                    Active:         yes\n\
                    Persistent:     yes\n\
                    Autostart:      no\n\
                    Bridge:         virbr0\n";
    let default = network("default", true, false, true);
    assert_eq!(format::network_info(&default), expected);
    let without_bridge = format::network_info(&Network { bridge: None, ..default });
    assert_eq!(without_bridge, expected.replace("Bridge:         virbr0\n", ""));
}

#[test]
fn net_dhcp_leases_is_virshs_table() {
    let lease = Lease {
        expiry: 1,
        mac: "52:54:00:11:22:33".to_owned(),
        protocol: "ipv4".to_owned(),
        address: "192.168.122.220".to_owned(),
        prefix: 24,
        hostname: Some("guest1".to_owned()),
        client_id: None,
        iaid: None,
    };
    let endless = Lease { expiry: 0, hostname: None, client_id: Some("01:02".to_owned()), ..lease.clone() };
    let clock = |seconds| format!("2026-11-20 08:45:4{seconds}");
    assert_eq!(
        format::leases(&[lease, endless], clock),
        " Expiry Time           MAC address         Protocol   IP address           Hostname   Client ID or DUID\n\
         ---------------------------------------------------------------------------------------------------------\n \
         2026-11-20 08:45:41   52:54:00:11:22:33   ipv4       192.168.122.220/24   guest1     -\n \
         never                 52:54:00:11:22:33   ipv4       192.168.122.220/24   -          01:02\n"
    );
    assert_eq!(
        format::leases(&[], clock),
        " Expiry Time   MAC address   Protocol   IP address   Hostname   Client ID or DUID\n\
         -----------------------------------------------------------------------------------\n"
    );
}

#[test]
fn the_local_clock_is_readable() {
    let text = connect::local_time(1_000_000_000);
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{text}");
    assert!(text.starts_with("2001-09-"), "{text}");
}

#[test]
fn domifaddr_is_virshs() {
    let first = Address {
        interface: "testnet0".to_owned(),
        mac: "aa:bb:cc:dd:ee:ff".to_owned(),
        protocol: "ipv4".to_owned(),
        address: "192.168.122.3".to_owned(),
        prefix: 24,
        source: AddressOrigin::Lease,
        age_seconds: None,
    };
    let second = Address { address: "192.168.122.4".to_owned(), ..first.clone() };
    let other = Address { interface: "vnet1".to_owned(), address: "10.0.0.2".to_owned(), prefix: 0, ..first.clone() };
    let header = format!(" Name       MAC address          Protocol     Address\n{}\n", "-".repeat(79));
    let first_row = " testnet0   aa:bb:cc:dd:ee:ff    ipv4         192.168.122.3/24\n";
    let other_row = " vnet1      aa:bb:cc:dd:ee:ff    ipv4         10.0.0.2/0\n";
    let addresses = [first, second, other];
    assert_eq!(format::addresses(&[], false, false), header);
    assert_eq!(
        format::addresses(&addresses, false, false),
        format!("{header}{first_row} -          -                    ipv4         192.168.122.4/24\n{other_row}")
    );
    assert_eq!(
        format::addresses(&addresses, true, false),
        format!("{header}{first_row} testnet0   aa:bb:cc:dd:ee:ff    ipv4         192.168.122.4/24\n{other_row}")
    );
}

#[test]
fn domifaddr_from_everywhere_says_where_each_address_is_known_from() {
    let lease = Address {
        interface: "vnet0".to_owned(),
        mac: "aa:bb:cc:dd:ee:ff".to_owned(),
        protocol: "ipv4".to_owned(),
        address: "192.168.122.3".to_owned(),
        prefix: 24,
        source: AddressOrigin::Lease,
        age_seconds: None,
    };
    let seen = Address {
        protocol: "ipv6".to_owned(),
        address: "fe80::1".to_owned(),
        prefix: 0,
        source: AddressOrigin::Nd,
        age_seconds: Some(7),
        ..lease.clone()
    };
    let text = format::addresses(&[lease, seen], false, true);
    let lines: Vec<&str> = text.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["Name", "MAC", "address", "Protocol", "Address", "Source", "Seen"]);
    assert_eq!(words(lines[2]), ["vnet0", "aa:bb:cc:dd:ee:ff", "ipv4", "192.168.122.3/24", "lease", "-"]);
    assert_eq!(words(lines[3]), ["-", "-", "ipv6", "fe80::1/0", "nd", "7", "s", "ago"]);
    let at = |word: &str| lines.iter().find_map(|line| line.find(word));
    assert_eq!((at("Source"), at("Source")), (at("lease"), at("nd ")), "one column");
}

#[test]
fn port_list_is_a_table_too() {
    let port = Port {
        interface: "vnet0".to_owned(),
        network: "default".to_owned(),
        guest: None,
        mac: "52:54:00:11:22:33".to_owned(),
        mtu: 1500,
        queues: 2,
    };
    assert_eq!(
        format::port_list(&[port]),
        " Interface   Network   Guest   MAC address         MTU    Queues\n\
         ------------------------------------------------------------------\n \
         vnet0       default   -       52:54:00:11:22:33   1500   2\n"
    );
}

#[test]
fn port_info_is_lines_as_net_info_is() {
    let port = Port {
        interface: "vnet0".to_owned(),
        network: "default".to_owned(),
        guest: Some("vm1".to_owned()),
        mac: "52:54:00:11:22:33".to_owned(),
        mtu: 1500,
        queues: 2,
    };
    let dropped = Dropped { mac: 1, vlan: 2, arp: 3, ip: 4, nd: 5, dhcp: 6, ra: 7 };
    let guarded = PortInfo {
        port: port.clone(),
        guards: true,
        isolated: true,
        portgroup: None,
        macvtap: None,
        addresses: vec!["192.168.122.7".to_owned()],
        dropped: Some(dropped),
    };
    let free = PortInfo { guards: false, isolated: false, addresses: vec![], dropped: None, ..guarded.clone() };
    let macvtap = PortInfo { portgroup: Some("fast".into()), macvtap: Some("eth0".into()), ..free.clone() };
    let text = format::port_infos(&[macvtap]);
    assert!(text.ends_with(
        "Guards:         none; the kernel sends the port only what is for its MAC, and checks nothing it says\n\
         Port group:     fast\nMacvtap on:     eth0\n"
    ));
    assert_eq!(
        format::port_infos(&[guarded, free]),
        "Interface:      vnet0\nNetwork:        default\nGuest:          vm1\nMAC address:    52:54:00:11:22:33\n\
         Leased:         192.168.122.7\nIsolated:       yes\nGuards:         on\n\
         Dropped:        MAC 1, VLAN 2, ARP 3, IP 4, ND 5, DHCP 6, RA 7\n\n\
         Interface:      vnet0\nNetwork:        default\nGuest:          vm1\nMAC address:    52:54:00:11:22:33\n\
         Leased:         -\nIsolated:       no\nGuards:         off\n"
    );
}

#[test]
fn forward_list_has_a_line_per_target() {
    let target = |guest: Option<&str>, address: Option<&str>, port| ForwardTarget {
        guest: guest.map(str::to_owned),
        address: address.map(str::to_owned),
        port,
    };
    let one = Forward {
        network: "default".to_owned(),
        protocol: Protocol::Tcp,
        first_port: 2222,
        last_port: 2222,
        address: None,
        targets: vec![target(Some("vm1"), Some("192.168.122.50"), 22)],
    };
    let range = Forward {
        protocol: Protocol::Udp,
        first_port: 8000,
        last_port: 8010,
        address: Some("198.51.100.1".to_owned()),
        targets: vec![target(Some("vm2"), None, 9000), target(None, Some("192.168.122.9"), 8000)],
        ..one.clone()
    };
    assert_eq!(
        format::forwards(&[one, range]),
        " Network   Host port       Host address   Target                    Leads to\n\
         ------------------------------------------------------------------------------------\n \
         default   tcp/2222        any            vm1:22                    192.168.122.50\n \
         default   udp/8000-8010   198.51.100.1   vm2:9000-9010             -\n \
         default   udp/8000-8010   198.51.100.1   192.168.122.9:8000-8010   192.168.122.9\n"
    );
}

fn refused(kind: ErrorKind, message: &str) -> ClientError {
    ClientError::Refused(Error::new(kind, message))
}

#[test]
fn errors_are_virshs_two_lines() {
    let active = "Requested operation is not valid: network is already active";
    let failure = Failure::client(
        "Failed to start network default",
        About::Network("default"),
        &refused(ErrorKind::OperationInvalid, active),
    );
    assert_eq!(
        failure.to_string(),
        "error: Failed to start network default\n\
         error: Requested operation is not valid: network is already active\n"
    );
    let missing = refused(ErrorKind::NoNetwork, "Network not found: no network with matching name 'x'");
    for failed in ["Failed to start network x", ""] {
        assert_eq!(
            Failure::client(failed, About::Network("x"), &missing).to_string(),
            "error: failed to get network 'x'\n\
             error: Network not found: no network with matching name 'x'\n"
        );
    }
    let missing = refused(ErrorKind::NoGuest, "Domain not found: no domain with matching name 'vm1'");
    assert_eq!(
        Failure::client("Failed to query for interfaces addresses", About::Guest("vm1"), &missing).to_string(),
        "error: failed to get domain 'vm1'\n\
         error: Domain not found: no domain with matching name 'vm1'\n"
    );
    let other = refused(ErrorKind::Internal, "internal error: x");
    assert_eq!(Failure::client("", About::Nothing, &other).to_string(), "error: internal error: x\n");
}

#[test]
fn a_hint_follows_the_error_and_a_note_the_result() {
    let error = Error::new(ErrorKind::Internal, "no nft").with_hint("install nftables");
    let failure = Failure::client("Failed to start network a", About::Network("a"), &ClientError::Refused(error));
    let (stdout, stderr) = render(&Err(failure), OutputForm::Text, false);
    assert_eq!(stdout, "\n");
    assert_eq!(stderr, "error: Failed to start network a\nerror: no nft\nhint: install nftables\n");

    let output = Output::new("Network a started\n".to_owned(), json!({ "name": "a" }));
    let result = Ok(output.with_notices(vec!["192.168.123.0/24 was chosen".to_owned()]));
    let (stdout, stderr) = render(&result, OutputForm::Text, false);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("Network a started\n\n", "note: 192.168.123.0/24 was chosen\n"));
    assert_eq!(render(&result, OutputForm::Json, false).0, "{\n  \"name\": \"a\"\n}\n");
}

#[test]
fn a_daemon_that_is_not_there_is_named_with_the_next_move() {
    let connect = |number| {
        let cause = zlink::Error::Io(std::io::Error::from_raw_os_error(number));
        let error = ClientError::Connect { path: "/run/netd/netd.sock".into(), cause };
        Failure::client("Failed to list networks", About::Nothing, &error).to_string()
    };
    assert_eq!(
        connect(libc::ENOENT),
        "error: failed to connect to netd\n\
         error: Failed to connect socket to '/run/netd/netd.sock': No such file or directory\n\
         hint: netd is not running here: systemctl start netd, or netd daemon\n"
    );
    assert_eq!(
        connect(libc::EACCES),
        "error: failed to connect to netd\n\
         error: Failed to connect socket to '/run/netd/netd.sock': Permission denied\n\
         hint: run this as root or as a member of the group netd\n"
    );
}

fn parsed(words: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(words.split_whitespace())
}

#[test]
fn virshs_ways_to_write_an_argument_are_taken() {
    for words in ["netd net-start default", "netd net-start --network default", "netd net-start --network=default"] {
        let Verb::Ask(Ask::NetStart(network)) = parsed(words).unwrap().verb else { panic!("{words}") };
        assert_eq!(network.name(), "default");
    }
    for words in ["netd domifaddr vm1 vnet0", "netd domifaddr --domain vm1 --interface vnet0 --source arp"] {
        let Verb::Ask(Ask::Domifaddr(args)) = parsed(words).unwrap().verb else { panic!("{words}") };
        assert_eq!((args.guest(), args.interface()), ("vm1", Some("vnet0")));
    }
    for words in ["netd net-define a.xml", "netd net-define --file a.xml", "netd -o json --socket /s net-define a.xml"]
    {
        let Verb::Ask(Ask::NetDefine(file)) = parsed(words).unwrap().verb else { panic!("{words}") };
        assert_eq!(file.path(), Path::new("a.xml"));
    }
}

#[test]
fn a_guest_agent_is_refused_in_virshs_words() {
    let Verb::Ask(verb) = parsed("netd domifaddr vm1 --source agent").unwrap().verb else { panic!() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(ask(Path::new("/nonexistent"), &verb)).err().unwrap().to_string();
    let (first, second) = ("Failed to query for interfaces addresses", "QEMU guest agent is not configured");
    assert!(
        failure.starts_with(&format!("error: {first}\nerror: argument unsupported: {second}\nhint: ")),
        "{failure}"
    );
}

#[test]
fn words_that_make_no_sense_are_refused() {
    for words in [
        "netd",
        "netd net-bogus",
        "netd net-start",
        "netd net-start a b",
        "netd net-start a --network b",
        "netd net-list --bogus",
        "netd net-list -o yaml",
        "netd domifaddr vm1 --source bogus",
        "netd port exec default",
        "netd forward-add default tcp/22",
        "netd forward-add default 22 vm1",
        "netd forward-add default tcp/22 [fd00::1]:ssh",
        "netd forward-delete default",
        "netd port exec default --queues 0 -- true",
    ] {
        assert!(parsed(words).is_err(), "{words}");
    }
}

#[test]
fn flags_are_consistent_and_help_is_short() {
    Cli::command().debug_assert();
    let help = Cli::command().render_help().to_string();
    assert!(help.lines().count() <= 60, "{help}");
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}

#[test]
fn only_one_form_of_list_can_be_asked_for() {
    let both = NetListArgs { name: true, uuid: true, ..NetListArgs::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(net::list(Path::new("/nonexistent"), both)).err().unwrap();
    assert_eq!(failure, Failure::new("Only one argument from --table, --name and --uuid may be specified."));
}
