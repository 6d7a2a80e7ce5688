//! EDGE: the DHCP clients people have: udhcpc, ISC dhclient, dhcpcd, each run in a space on `eth0`.
//!
//! All call `tests/guest/dhcp-script`, which sets addresses and writes one line per event to a log; the tests wait
//! for lines there. What differs between the clients, their options and signals, is said here and nowhere else.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    paths,
    space::{Running, Space},
    wait::{self, PATIENCE},
};

/// Which client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// busybox.
    Udhcpc,
    /// ISC, what Debian's ifupdown uses.
    Dhclient,
    /// Roy Marples'.
    Dhcpcd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Udhcpc, Kind::Dhclient, Kind::Dhcpcd];

    fn program(self) -> &'static str {
        match self {
            Kind::Udhcpc => "udhcpc",
            Kind::Dhclient => "dhclient",
            Kind::Dhcpcd => "dhcpcd",
        }
    }

    /// What the script is called with when a first lease is there.
    fn bound(self) -> &'static str {
        match self {
            Kind::Udhcpc => "bound",
            Kind::Dhclient | Kind::Dhcpcd => "BOUND",
        }
    }

    /// The same when a lease was prolonged.
    fn renewed(self) -> &'static str {
        match self {
            Kind::Udhcpc => "renew",
            Kind::Dhclient | Kind::Dhcpcd => "RENEW",
        }
    }
}

/// A client that runs; ended when dropped, without a release.
#[derive(Debug)]
pub struct Client<'a> {
    kind: Kind,
    space: &'a Space,
    process: Running,
}

/// The script all clients call.
fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/dhcp-script")
}

impl<'a> Client<'a> {
    /// Starts a client in the foreground on `eth0`, telling the server a host name.
    pub fn start(kind: Kind, space: &'a Space, hostname: &str) -> Result<Self> {
        let file = |name: &str| space.dir().join(name);
        let config = match kind {
            Kind::Udhcpc => String::new(),
            // T1 at two seconds: the client prolongs its lease while a test waits.
            Kind::Dhclient => format!(
                "send host-name \"{hostname}\";\nsupersede dhcp-renewal-time 2;\ntimeout 10;\nretry 1;\n\
                 initial-interval 1;\nrequest subnet-mask, routers, domain-name-servers, interface-mtu;\n"
            ),
            Kind::Dhcpcd => format!("hostname {hostname}\nnoarp\nnoipv6rs\nipv4only\nnoipv4ll\nclientid\n"),
        };
        fs::write(file("client.conf"), config)?;
        let mut command = space.command(paths::tool(kind.program())?);
        command.env("DHCP_LOG", file("client.log"));
        match kind {
            Kind::Udhcpc => {
                command.args(["-f", "-i", "eth0", "-t", "5", "-T", "1", "-x", &format!("hostname:{hostname}"), "-s"]);
                command.arg(script());
            }
            Kind::Dhclient => {
                // dhclient tells its script only what it is told to tell.
                command.args(["-4", "-d", "-e"]).arg(format!("DHCP_LOG={}", file("client.log").display()));
                for (option, value) in
                    [("-sf", script()), ("-cf", file("client.conf")), ("-lf", file("leases")), ("-pf", file("pid"))]
                {
                    command.arg(option).arg(value);
                }
                command.arg("eth0");
            }
            Kind::Dhcpcd => {
                command.args(["-B", "-e"]).arg(format!("DHCP_LOG={}", file("client.log").display()));
                command.arg("-f").arg(file("client.conf")).arg("-c").arg(script()).arg("eth0");
            }
        }
        let output = File::options().create(true).append(true).open(file("client.out"))?;
        command.stdout(Stdio::from(output.try_clone()?)).stderr(output);
        let process = Running(command.spawn().with_context(|| format!("cannot start {}", kind.program()))?);
        Ok(Client { kind, space, process })
    }

    /// Waits for the first lease; gives its address.
    pub fn bound(&self) -> Result<String> {
        self.event(self.kind.bound(), 1)
    }

    /// Prolongs the lease now (dhclient: when its T1 of two seconds is over) and waits until that is done.
    pub fn renew(&self) -> Result<String> {
        let count = self.count(self.kind.renewed())?;
        match self.kind {
            Kind::Udhcpc => self.process.signal(Signal::SIGUSR1),
            Kind::Dhclient => {}
            Kind::Dhcpcd => self.process.signal(Signal::SIGUSR1),
        }
        self.event(self.kind.renewed(), count + 1)
    }

    /// Gives the lease back.
    pub fn release(mut self) -> Result<()> {
        match self.kind {
            Kind::Udhcpc => {
                self.process.signal(Signal::SIGUSR2);
                self.event("deconfig", 2).map(drop)
            }
            Kind::Dhclient => {
                let file = |name: &str| self.space.dir().join(name);
                let mut command = self.space.command(paths::tool("dhclient")?);
                command.args(["-4", "-r"]);
                for (option, value) in
                    [("-sf", script()), ("-cf", file("client.conf")), ("-lf", file("leases")), ("-pf", file("pid"))]
                {
                    command.arg(option).arg(value);
                }
                let output = command.arg("eth0").output()?;
                ensure!(output.status.success(), "dhclient -r: {}", crate::space::told(&output));
                Ok(())
            }
            Kind::Dhcpcd => {
                // SIGALRM is what `dhcpcd --release` sends to the one that runs.
                self.process.signal(Signal::SIGALRM);
                wait::until("dhcpcd ends", PATIENCE, || Ok(self.process.0.try_wait()?)).map(drop)
            }
        }
    }

    /// What the client and its script said, for messages.
    pub fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.space.dir().join(name)).unwrap_or_default();
        format!("{}{}", read("client.out"), read("client.log"))
    }

    fn count(&self, event: &str) -> Result<usize> {
        Ok(self.events(event)?.len())
    }

    fn events(&self, event: &str) -> Result<Vec<String>> {
        let log = fs::read_to_string(self.space.dir().join("client.log")).unwrap_or_default();
        let of_kind = log.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| *name == event);
        Ok(of_kind.map(|(_, address)| address.to_owned()).collect())
    }

    /// Waits for the nth event of a name; gives its address.
    fn event(&self, event: &str, nth: usize) -> Result<String> {
        let what = format!("{} says {event}", self.kind.program());
        wait::until(&what, PATIENCE, || Ok(self.events(event)?.get(nth - 1).cloned()))
            .with_context(|| format!("it said:\n{}", self.log()))
    }
}
