//! Every word that can be typed, right and wrong.

use super::*;

fn words() -> Words {
    Words {
        name: "vm1".to_owned(),
        memory: MemorySize::from_bytes(512 << 20).unwrap(),
        cpus: 1,
        kernel: "vmlinuz".into(),
        initrd: None,
        command_line: None,
        disks: Vec::new(),
        networks: Vec::new(),
        control: None,
        vsock: None,
        sandbox: true,
        serial: None,
        console: Console::Stdio,
    }
}

#[test]
fn memory_is_read_in_the_units_people_use() {
    let bytes = |word: &str| word.parse::<MemorySize>().map(MemorySize::bytes);
    for word in ["512M", "512", "512MiB", "512mb", "524288k"] {
        assert_eq!(bytes(word), Ok(512 << 20), "{word}");
    }
    assert_eq!(bytes("2G"), Ok(2 << 30));
    assert_eq!(bytes("1T"), Ok(1 << 40));
}

#[test]
fn memory_that_makes_no_sense_is_refused() {
    for word in ["", "M", "-1G", "1.5G", "12X", "1 G", "0x10M"] {
        assert_eq!(word.parse::<MemorySize>(), Err(ConfigError::Memory(word.to_owned())));
    }
    assert_eq!("0".parse::<MemorySize>(), Err(ConfigError::MemorySmall(0)));
    assert_eq!("15M".parse::<MemorySize>(), Err(ConfigError::MemorySmall(15 << 20)));
    assert!(matches!("5T".parse::<MemorySize>(), Err(ConfigError::MemoryLarge(_))));
    assert!(matches!("99999999999999999T".parse::<MemorySize>(), Err(ConfigError::MemoryLarge(_))));
}

#[test]
fn cpus_are_one_to_sixty_four() {
    for (cpus, good) in [(0, false), (1, true), (64, true), (65, false), (300, false)] {
        assert_eq!(VmConfig::new(Words { cpus, ..words() }).is_ok(), good, "{cpus}");
    }
}

#[test]
fn a_name_can_be_a_host_name_and_a_directory() {
    for (name, good) in [("vm1", true), ("a.b-c_d", true), ("", false), ("-x", false), ("..", false), ("a/b", false)] {
        assert_eq!(VmConfig::new(Words { name: name.to_owned(), ..words() }).is_ok(), good, "{name}");
    }
    assert!(VmConfig::new(Words { name: "x".repeat(64), ..words() }).is_err());
}

#[test]
fn a_disk_is_a_path_and_maybe_readonly() {
    let plain = Disk { path: "a.raw".into(), readonly: false, direct: false, serial: None, queues: 1 };
    assert_eq!("a.raw".parse(), Ok(plain.clone()));
    assert_eq!("a.raw,readonly".parse(), Ok(Disk { readonly: true, ..plain.clone() }));
    let full = Disk { readonly: true, direct: true, serial: Some("x-1".into()), queues: 4, ..plain };
    assert_eq!("a.raw,queues=4,serial=x-1,direct,readonly".parse(), Ok(full));
}

#[test]
fn a_wrong_disk_option_is_named() {
    let error = |word: &str| word.parse::<Disk>().unwrap_err().to_string();
    assert!(error("a.raw,rw").contains("unknown option 'rw'"));
    assert!(error("a.raw,").contains("unknown option ''"));
    assert!(error("a.raw,readonly,readonly").contains("'readonly' is given twice"));
    assert!(error("").contains("names no file"));
    assert!(error(",readonly").contains("names no file"));
}

#[test]
fn a_network_takes_mac_and_queues_in_any_order() {
    let mac = Some(Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    let expected = NicWords { network: "lab".to_owned(), mac, queues: 4, portgroup: None };
    assert_eq!("lab,mac=52:54:00:12:34:56,queues=4".parse(), Ok(expected.clone()));
    assert_eq!("lab,queues=4,mac=52:54:00:12:34:56".parse(), Ok(expected));
    assert_eq!("lab".parse(), Ok(NicWords { network: "lab".to_owned(), mac: None, queues: 1, portgroup: None }));
    let in_group = NicWords { network: "lab".to_owned(), mac: None, queues: 1, portgroup: Some("db".to_owned()) };
    assert_eq!("lab,portgroup=db".parse(), Ok(in_group));
}

#[test]
fn a_wrong_network_option_is_named() {
    let error = |word: &str| word.parse::<NicWords>().unwrap_err().to_string();
    assert!(error("lab,model=e1000").contains("unknown option 'model'"));
    assert!(error("lab,queues=0").contains("'0' is not a number of queues"));
    assert!(error("lab,queues=257").contains("'257'"));
    assert!(error("lab,queues").contains("'' is not a number"));
    assert!(error("lab,queues=1,queues=2").contains("'queues' is given twice"));
    assert!(error("lab,mac=52:54").contains("'52:54' is not a MAC address"));
    assert!(error("").contains("names no network"));
}

#[test]
fn a_mac_is_six_pairs_and_not_multicast() {
    for word in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:56:78",
        "52-54-00-12-34-56",
        "5:54:00:12:34:56",
        "+2:54:00:12:34:56",
        "00:00:00:00:00:00",
    ] {
        assert_eq!(word.parse::<Mac>(), Err(ConfigError::Mac(word.to_owned())));
    }
    assert!(matches!("01:00:5e:00:00:01".parse::<Mac>(), Err(ConfigError::MacMulticast(_))));
    assert_eq!("52:54:00:AB:cd:ef".parse::<Mac>().unwrap().to_string(), "52:54:00:ab:cd:ef");
}

#[test]
fn a_derived_mac_depends_on_name_and_index_only() {
    assert_eq!(Mac::derive("vm1", 0).to_string(), "52:54:00:28:92:fd");
    let mut all: Vec<_> = ["vm1", "vm2", "vm11"]
        .iter()
        .flat_map(|name| (0..3).map(|index| Mac::derive(name, index).to_string()))
        .collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 9);
}

#[test]
fn things_given_twice_are_refused() {
    let disks = vec!["a.raw".parse().unwrap(), "a.raw,readonly".parse().unwrap()];
    assert_eq!(VmConfig::new(Words { disks, ..words() }), Err(ConfigError::DiskTwice("a.raw".into())));
    let networks = vec!["a,mac=52:54:00:00:00:01".parse().unwrap(), "b,mac=52:54:00:00:00:01".parse().unwrap()];
    assert!(matches!(VmConfig::new(Words { networks, ..words() }), Err(ConfigError::MacTwice(_))));
}

#[test]
fn too_many_devices_are_refused() {
    let disks = (0..=MAX_DISKS).map(|n| format!("{n}.raw").parse().unwrap()).collect();
    assert_eq!(VmConfig::new(Words { disks, ..words() }), Err(ConfigError::DisksMany(MAX_DISKS + 1)));
    let networks = (0..=MAX_NICS).map(|_| "lab".parse().unwrap()).collect();
    assert_eq!(VmConfig::new(Words { networks, ..words() }), Err(ConfigError::NicsMany(MAX_NICS + 1)));
}

#[test]
fn a_command_line_must_fit_the_kernel() {
    let line = |length| VmConfig::new(Words { command_line: Some("x".repeat(length)), ..words() });
    assert!(line(COMMAND_LINE_MAX - 1).is_ok());
    assert_eq!(line(COMMAND_LINE_MAX), Err(ConfigError::CommandLineLong(COMMAND_LINE_MAX)));
    let zero = VmConfig::new(Words { command_line: Some("a\0b".to_owned()), ..words() });
    assert_eq!(zero, Err(ConfigError::CommandLineZero));
}

#[test]
fn a_console_is_a_word_or_a_path() {
    assert_eq!("stdio".parse(), Ok(Console::Stdio));
    assert_eq!("none".parse(), Ok(Console::None));
    assert_eq!("./c.sock".parse(), Ok(Console::Socket("./c.sock".into())));
    assert_eq!("pty".parse::<Console>(), Err(ConfigError::Console("pty".to_owned())));
}
