//! EDGE: the program itself, daemon and verbs, in a network namespace of each test's own. Needs root.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const NETD: &str = env!("CARGO_BIN_EXE_netd");

/// A daemon with directories of its own. Everything runs on the thread that made it, which is in a new namespace.
struct Daemon {
    folder: tempfile::TempDir,
    process: Child,
}

/// What a verb printed.
#[derive(Debug, PartialEq, Eq)]
struct Printed {
    stdout: String,
    stderr: String,
    ok: bool,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // others must get through to the read-only socket
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = |name: &str| folder.path().join(name);
        let process = Command::new(NETD)
            .arg("daemon")
            .args(["--config-dir".into(), path("etc"), "--state-dir".into(), path("lib")])
            .args(["--runtime-dir".into(), path("run")])
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { folder, process };
        let start = Instant::now();
        while !daemon.verb(&["net-list"]).ok {
            let ended = daemon.process.try_wait().unwrap();
            let log = fs::read_to_string(daemon.path("log")).unwrap();
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(10), "{ended:?}\n{log}");
            thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(NETD);
        command.args(arguments).env("NETD_SOCKET", self.path("run/netd.sock")).env("TMPDIR", self.folder.path());
        command.env_remove("VISUAL").env_remove("EDITOR").stdin(Stdio::null());
        command
    }

    fn verb(&self, arguments: &[&str]) -> Printed {
        printed(self.command(arguments).output().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.process.id().try_into().unwrap());
        if kill(pid, Signal::SIGTERM).is_ok() {
            let _ = self.process.wait();
        }
    }
}

fn printed(output: Output) -> Printed {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Printed { stdout: text(output.stdout), stderr: text(output.stderr), ok: output.status.success() }
}

fn said(stdout: &str) -> Printed {
    Printed { stdout: format!("{stdout}\n"), stderr: String::new(), ok: true }
}

fn failed(lines: &str) -> Printed {
    Printed { stdout: "\n".to_owned(), stderr: lines.to_owned(), ok: false }
}

/// Runs a test with a daemon, in a new namespace.
fn with_daemon(test: impl FnOnce(&Daemon) + Send + 'static) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
        let daemon = Daemon::start();
        test(&daemon);
        for name in daemon.verb(&["net-list", "--name"]).stdout.split_whitespace() {
            assert!(daemon.verb(&["net-destroy", name]).ok, "{name}");
        }
        drop(daemon);
        for (program, arguments) in [("nft", ["list", "ruleset"]), ("ip", ["-o", "link"])] {
            let left = printed(Command::new(program).args(arguments).output().unwrap()).stdout;
            assert!(left.lines().all(|line| line.contains(": lo:")), "{left}");
        }
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a_networks_life() {
    with_daemon(|d| {
        assert_eq!(d.verb(&["net-start", "default"]), said("Network default started\n"));
        assert_eq!(
            d.verb(&["net-start", "default"]),
            failed(
                "error: Failed to start network default\n\
                 error: Requested operation is not valid: network is already active\n"
            )
        );
        assert_eq!(d.verb(&["net-autostart", "default"]), said("Network default marked as autostarted\n"));
        assert_eq!(
            d.verb(&["net-list"]),
            said(
                " Name      State    Autostart   Persistent\n\
                 --------------------------------------------\n \
                 default   active   yes         yes\n"
            )
        );
        let uuid = d.verb(&["net-uuid", "default"]).stdout;
        assert_eq!(d.verb(&["net-name", uuid.trim()]), said("default\n"));
        assert!(d.verb(&["net-dumpxml", "default"]).stdout.contains("<port start='1024' end='65535'/>"));
        assert!(!d.verb(&["net-dumpxml", "--inactive", "default"]).stdout.contains("<port"));
        let json: serde_json::Value =
            serde_json::from_str(&d.verb(&["-o", "json", "net-info", "default"]).stdout).unwrap();
        assert_eq!((&json["active"], &json["bridge"]), (&true.into(), &"virbr0".into()));
        assert_eq!(d.verb(&["net-destroy", "default"]), said("Network default destroyed\n"));
        assert_eq!(d.verb(&["net-undefine", "default"]), said("Network default has been undefined\n"));
        assert_eq!(d.verb(&["net-list", "--all", "--name"]), said(""));
    });
}

#[test]
fn files_are_defined_created_and_refused() {
    with_daemon(|d| {
        let good = d.file("lan.xml", "<network><name>lan</name><bridge name='br-lan'/></network>");
        assert_eq!(d.verb(&["net-define", &good]), said(&format!("Network lan defined from {good}\n")));
        let transient = d.file("temp.xml", "<network><name>temp</name></network>");
        assert_eq!(d.verb(&["net-create", &transient]), said(&format!("Network temp created from {transient}\n")));
        assert_eq!(d.verb(&["net-list", "--transient", "--name"]), said("temp\n"));
        let bad = d.file("bad.xml", "<network><name>bad</name>\n<virtualport type='midonet'/></network>");
        assert_eq!(
            d.verb(&["net-define", &bad]),
            failed(&format!(
                "error: Failed to define network from {bad}\n\
                 error: unsupported configuration: line 2: <virtualport>: type 'midonet' needs MidoNet, which netd does \
                 not use\n"
            ))
        );
        assert_eq!(
            d.verb(&["net-create", "/nonexistent"]),
            failed("error: Failed to open file '/nonexistent': No such file or directory\n")
        );
    });
}

#[test]
fn an_edit_is_taken_or_kept_for_the_user() {
    with_daemon(|d| {
        let edit = |editor: &str| printed(d.command(&["net-edit", "default"]).env("EDITOR", editor).output().unwrap());
        assert_eq!(edit("true"), said("Network default XML configuration not changed.\n"));
        assert_eq!(edit("sed -i s/254/200/"), said("Network default XML configuration edited.\n"));
        assert!(d.verb(&["net-dumpxml", "default"]).stdout.contains("end='192.168.122.200'"));
        assert_eq!(edit("false"), failed("error: The editor 'false' failed\nerror: exit status: 1\n"));

        let refused = edit("sed -i s/200/1/");
        assert!(!refused.ok);
        let first = "error: Failed to define network default\nerror: XML error: line 9: <range>: ";
        assert!(refused.stderr.starts_with(first), "{}", refused.stderr);
        let note = refused.stderr.lines().last().unwrap();
        let kept = note.strip_prefix("note: what you wrote is in ").unwrap().split(';').next().unwrap();
        assert!(fs::read_to_string(kept).unwrap().contains("end='192.168.122.1'"));
        assert!(d.verb(&["net-dumpxml", "default"]).stdout.contains("end='192.168.122.200'"));
    });
}

#[test]
fn a_program_gets_a_port_that_ends_with_it() {
    with_daemon(|d| {
        assert!(d.verb(&["net-start", "default"]).ok);
        let script = format!(
            "[ -c /proc/self/fd/3 ] && [ -c /proc/self/fd/4 ] && [ ! -e /proc/self/fd/5 ] && {NETD} port-list && \
             {NETD} domifaddr vm1 && echo $NETD_PORT_FDS $NETD_PORT_MAC $NETD_PORT_INTERFACE $NETD_PORT_MTU"
        );
        let mac = "52:54:00:aa:bb:cc";
        let arguments = ["port", "exec", "default", "--guest", "vm1", "--mac", mac, "--queues", "2", "--", "sh", "-c"];
        let output = d.command(&arguments).arg(script).output().unwrap();
        assert_eq!(
            printed(output),
            Printed {
                stdout: format!(
                    " Interface   Network   Guest   MAC address         MTU    Queues\n\
                     ------------------------------------------------------------------\n \
                     vnet0       default   vm1     {mac}   1500   2\n\n \
                     Name       MAC address          Protocol     Address\n{}\n\n\
                     3:4 {mac} vnet0 1500\n",
                    "-".repeat(79)
                ),
                stderr: String::new(),
                ok: true
            }
        );
        let gone = |d: &Daemon| d.verb(&["-o", "json", "port-list"]).stdout == "[]\n";
        let start = Instant::now();
        while !gone(d) {
            assert!(start.elapsed() < Duration::from_secs(5), "the port outlived its program");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(
            d.verb(&["port", "exec", "default", "--", "/nonexistent"]),
            failed("error: Failed to run '/nonexistent'\nerror: No such file or directory\n")
        );
    });
}

#[test]
fn a_port_tells_of_its_guards() {
    with_daemon(|d| {
        assert!(d.verb(&["net-start", "default"]).ok);
        let mac = "52:54:00:aa:bb:cc";
        let script = format!("{NETD} port-info vm1 && {NETD} -o json port-info vnet0");
        let exec = ["port", "exec", "default", "--guest", "vm1", "--mac", mac];
        let tell =
            |more: &[&str]| printed(d.command(&exec).args(more).args(["--", "sh", "-c", &script]).output().unwrap());
        let text = |guards: &str| {
            format!(
                "Interface:      vnet0\nNetwork:        default\nGuest:          vm1\nMAC address:    {mac}\n\
                 Leased:         -\nIsolated:       no\nGuards:         {guards}\n\n"
            )
        };
        let guarded = tell(&[]);
        assert!(
            guarded.stdout.starts_with(&text("on\nDropped:        MAC 0, VLAN 0, ARP 0, IP 0, ND 0, DHCP 0, RA 0")),
            "{guarded:?}"
        );
        let json = guarded.stdout.split_once("\n\n").unwrap().1;
        assert!(json.contains("\"dropped\": {") && json.contains("\"guards\": true"), "{json}");
        let start = Instant::now();
        while d.verb(&["port-info", "vm1"]).ok {
            assert!(start.elapsed() < Duration::from_secs(5), "the port outlived its program");
            thread::sleep(Duration::from_millis(5));
        }
        let free = tell(&["--no-guards"]);
        assert!(free.stdout.starts_with(&text("off")) && free.stdout.contains("\"dropped\": null"), "{free:?}");
        assert_eq!(
            d.verb(&["port-info", "nobody"]),
            failed(
                "error: Failed to get port information\n\
                 error: Port not found: no port or guest with matching name 'nobody'\n\
                 hint: 'netd port-list' shows the ports there are\n"
            )
        );
    });
}

#[test]
fn a_stranger_may_look_and_not_touch() {
    with_daemon(|d| {
        // Copied, because a stranger may not be let into the build directory; by another process, because a child that
        // another test is starting would hold a file open for writing that we wrote ourselves.
        let program = d.path("netd");
        assert!(Command::new("cp").arg(NETD).arg(&program).status().unwrap().success());
        let stranger = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.arg("--socket").arg(d.path("run/netd.sock")).args(arguments).uid(65534).gid(65534);
            printed(command.output().unwrap())
        };
        assert_eq!(stranger(&["net-list", "--all", "--name"]), said("default\n"));
        let socket = d.path("run/netd.sock");
        assert_eq!(
            stranger(&["net-start", "default"]),
            failed(&format!(
                "error: failed to connect to netd\n\
                 error: Failed to connect socket to '{}': Permission denied\n\
                 hint: run this as root or as a member of the group netd\n",
                socket.display()
            ))
        );
    });
}

#[test]
fn ports_are_forwarded_listed_and_refused() {
    with_daemon(|d| {
        assert!(d.verb(&["net-start", "default"]).ok);
        let printed = d.verb(&["forward-add", "default", "tcp/2222", "vm1:22"]);
        assert_eq!(printed.stdout, "Port tcp/2222 forwarded to vm1:22\n\n");
        assert_eq!(
            printed.stderr,
            "note: guest 'vm1' has no address on network 'default' yet: connections are rejected until it has one\n"
        );
        let several = ["forward-add", "default", "udp/8000-8003", "192.168.122.9,192.168.122.10:9000-9003"];
        assert_eq!(
            d.verb(&several),
            said("Port udp/8000-8003 forwarded to 192.168.122.9:8000-8003, 192.168.122.10:9000-9003\n")
        );
        assert_eq!(
            d.verb(&["forward-list"]),
            said(
                " Network   Host port       Host address   Target                     Leads to\n\
                 -------------------------------------------------------------------------------------\n \
                 default   tcp/2222        any            vm1:22                     -\n \
                 default   udp/8000-8003   any            192.168.122.9:8000-8003    192.168.122.9\n \
                 default   udp/8000-8003   any            192.168.122.10:9000-9003   192.168.122.10\n"
            )
        );
        let json: serde_json::Value =
            serde_json::from_str(&d.verb(&["-o", "json", "forward-list", "default"]).stdout).unwrap();
        assert_eq!((&json[0]["first_port"], &json[0]["targets"][0]["guest"]), (&2222.into(), &"vm1".into()));
        assert_eq!(
            d.verb(&["forward-add", "default", "udp/8003", "vm1"]),
            failed(
                "error: Failed to forward udp/8003 to network default\n\
                 error: operation failed: port udp/8003 of the host is already forwarded by network 'default'\n\
                 hint: 'netd forward-list default' shows where it leads; delete that, or choose another port\n"
            )
        );
        assert_eq!(
            d.verb(&["forward-add", "nope", "udp/1", "vm1"]).stderr.lines().next(),
            Some("error: failed to get network 'nope'")
        );
        assert_eq!(d.verb(&["forward-delete", "default", "tcp/2222"]), said("Port tcp/2222 not forwarded any more\n"));
        assert!(!d.verb(&["net-dumpxml", "default"]).stdout.contains("2222"));
    });
}

#[test]
fn titles_descriptions_and_metadata_are_kept_live_and_in_the_definition() {
    with_daemon(|d| {
        let uri = "http://app.example/1";
        assert_eq!(d.verb(&["net-desc", "default"]), said("No description for network: default\n"));
        assert_eq!(d.verb(&["net-desc", "default", "--title"]), said("No title for network: default\n"));
        assert!(d.verb(&["net-start", "default"]).ok);
        assert_eq!(
            d.verb(&["net-desc", "default", "--config", "--title", "Where", "the <lab> is"]),
            said("Network title updated successfully\n")
        );
        assert_eq!(d.verb(&["net-desc", "default", "--title"]), said("No title for network: default\n"));
        assert_eq!(d.verb(&["net-desc", "default", "--title", "--config"]), said("Where the <lab> is\n"));
        let both = ["net-desc", "default", "--live", "--config", "--new-desc", "two\nlines"];
        assert_eq!(d.verb(&both), said("Network description updated successfully\n"));
        assert_eq!(
            d.verb(&["net-metadata", "default", uri, "app", "<rack height='3'><row/></rack>"]),
            said("Metadata modified\n")
        );
        let live = d.verb(&["net-dumpxml", "default"]).stdout;
        let element = format!("    <app:rack xmlns:app='{uri}' height='3'><app:row/></app:rack>\n");
        assert!(live.contains("  <description>two\nlines</description>\n") && live.contains(&element), "{live}");
        assert!(!live.contains("<title>"), "{live}");
        let definition = d.verb(&["net-dumpxml", "default", "--inactive"]).stdout;
        assert!(definition.contains("  <title>Where the &lt;lab&gt; is</title>\n"), "{definition}");
        assert!(!definition.contains("rack"), "{definition}");
        let get = ["net-metadata", "default", uri];
        assert_eq!(d.verb(&get), said("<rack height='3'><row/></rack>\n"));
        let absent = "error: metadata not found: Requested metadata element is not present\n";
        assert_eq!(d.verb(&["net-metadata", "default", uri, "--config"]), failed(absent));
        assert_eq!(d.verb(&["net-metadata", "default", uri, "--remove"]), said("Metadata removed\n"));
        assert_eq!(d.verb(&get), failed(absent));
        assert_eq!(d.verb(&["net-metadata", "default", uri, "--remove"]), failed(absent));

        // What is refused leaves everything as it was.
        for (arguments, error) in [
            (
                vec!["net-desc", "default", "--title", "two\nlines"],
                "error: Failed to set new network title\n\
                 error: XML error: line 4: <title>: the title can't contain newlines\n",
            ),
            (
                vec!["net-desc", "default", "a\u{1}b"],
                "error: Failed to set new network description\n\
                 error: invalid argument: text 'a b' is not what XML can hold: no control characters, and not more than \
                 a network may have\n",
            ),
            (
                vec!["net-metadata", "default", uri, "app", "<a>"],
                "error: XML error: line 1: <a>: the text ends in the middle of an element\n",
            ),
            (
                vec!["net-metadata", "default", uri, "--edit"],
                "error: namespace key is required when modifying metadata\n",
            ),
            (vec!["net-desc", "nobody"], "error: failed to get network 'nobody'\n"),
        ] {
            let refused = d.verb(&arguments);
            assert!(!refused.ok && refused.stderr.starts_with(error), "{arguments:?}: {refused:?}");
        }
        assert_eq!(d.verb(&["net-dumpxml", "default", "--inactive"]).stdout, definition);

        assert!(d.verb(&["net-destroy", "default"]).ok);
        assert_eq!(
            d.verb(&["net-list", "--all", "--title"]),
            said(
                " Name      State      Autostart   Persistent   Title\n\
                 -------------------------------------------------------------------\n \
                 default   inactive   no          yes          Where the <lab> is\n"
            )
        );
        let not_running = d.verb(&["net-desc", "default", "--live", "x"]);
        assert!(not_running.stderr.contains("network is not running"), "{not_running:?}");
        assert_eq!(d.verb(&["net-desc", "default", "--title", ""]), said("Network title updated successfully\n"));
        assert_eq!(d.verb(&["net-desc", "default", "--title"]), said("No title for network: default\n"));
    });
}

#[test]
fn a_network_is_applied_updated_and_confirmed() {
    with_daemon(|d| {
        let lan = |mtu: &str| {
            format!(
                "<network><name>lan</name><bridge name='br-lan'/>{mtu}<ip address='10.9.0.1' prefix='24'><dhcp>\
                 <range start='10.9.0.10' end='10.9.0.20'/></dhcp></ip></network>"
            )
        };
        let (old, new) = (d.file("old.xml", &lan("")), d.file("new.xml", &lan("<mtu size='1400'/>")));
        assert_eq!(d.verb(&["net-apply", &old]), said(&format!("Network lan applied from {old}\n")));
        assert_eq!(d.verb(&["net-apply", &old]), said(&format!("Network lan is as in {old}: nothing to change\n")));
        assert_eq!(d.verb(&["net-list", "--persistent", "--name"]), said("lan\n"));
        assert_eq!(
            d.verb(&["net-apply", "--dry-run", &new]),
            said(
                "Network lan would change:\n  \
                   set the MTU of br-lan to 1400\n  \
                   reconfigure the servers on br-lan: MTU for guests 1400\n  \
                   write the definition of network lan\n"
            )
        );
        let json: serde_json::Value =
            serde_json::from_str(&d.verb(&["-o", "json", "net-apply", "--dry-run", &new]).stdout).unwrap();
        assert_eq!((&json["changed"], &json["steps"][0]), (&true.into(), &"set the MTU of br-lan to 1400".into()));
        assert_eq!(
            d.verb(&["net-apply", &new, "--confirm", "60"]),
            Printed {
                stdout: format!("Network lan applied from {new}\n\n"),
                stderr: "note: 'netd confirm lan' keeps this; without it, it is taken back in 60 s\n".into(),
                ok: true
            }
        );
        assert_eq!(
            d.verb(&["net-undefine", "lan"]),
            failed(
                "error: Failed to undefine network lan\n\
                 error: Requested operation is not valid: the last change of network 'lan' is not confirmed\n\
                 hint: 'netd confirm lan' keeps it; in time it is taken back by itself\n"
            )
        );
        assert_eq!(d.verb(&["confirm", "lan"]), said("Change of network lan confirmed\n"));
        assert_eq!(
            d.verb(&["confirm"]),
            failed(
                "error: Failed to confirm the change\n\
                 error: Requested operation is not valid: no change waits to be confirmed\n"
            )
        );

        let host = "<host mac='52:54:00:00:00:09' ip='10.9.0.9'/>";
        let update = |words: &[&str]| d.verb(&[&["net-update", "lan"], words].concat());
        let add = ["add", "ip-dhcp-host", host];
        assert_eq!(
            update(&[&add[..], &["--live", "--config"]].concat()),
            said("Updated network lan persistent config and live state\n")
        );
        assert_eq!(
            update(&add),
            failed(
                "error: Failed to update network lan\n\
                 error: Requested operation is not valid: there is an existing dhcp host entry in network 'lan' that matches \
                 \"<host mac='52:54:00:00:00:09' name='unknown' ip='10.9.0.9'/>\"\n"
            )
        );
        assert_eq!(update(&["delete", "ip-dhcp-host", host, "--current"]), said("Updated network lan live state\n"));
        assert_eq!(
            update(&["delete", "ip-dhcp-host", host, "--config", "--parent-index", "0"]),
            said("Updated network lan persistent config\n")
        );
        assert_eq!(
            update(&["add", "dns-host", host, "--current", "--live"]),
            failed("error: Options --current and --live are mutually exclusive\n")
        );
        let piece = d.file("mtu.xml", "<mtu size='1300'/>\n");
        assert_eq!(update(&["modify", "mtu", &piece]), said("Updated network lan live state\n"));
        assert_eq!(
            update(&["modify", "mtu", "/nonexistent"]),
            failed("error: Failed to open file '/nonexistent': No such file or directory\n")
        );
        let unknown = update(&["add", "colour", "<colour/>"]);
        assert!(
            unknown.stderr.starts_with(
                "error: Failed to update network lan\nerror: invalid argument: unrecognized section name 'colour'\n\
                 hint: the sections are bridge, domain, ip, "
            ),
            "{unknown:?}"
        );
        assert_eq!(
            d.verb(&["net-apply", "/nonexistent"]),
            failed("error: Failed to open file '/nonexistent': No such file or directory\n")
        );
        assert!(d.verb(&["net-destroy", "lan"]).ok);
        assert_eq!(
            update(&["modify", "mtu", &piece, "--live"]).stderr,
            "error: Failed to update network lan\n\
             error: Requested operation is not valid: network is not running\n"
        );
        assert_eq!(
            d.verb(&["net-apply", &new, "--confirm", "9"]).stderr,
            format!(
                "error: Failed to apply network from {new}\n\
                 error: Requested operation is not valid: network 'lan' is not active, so there is nothing to go back to\n\
                 hint: apply it without --confirm\n"
            )
        );
    });
}
