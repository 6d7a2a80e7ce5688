//! EDGE: a station is a space that is plugged into a network like a guest: a machine without the machine.
//!
//! On a port of netd its frames go the way a guest's do: through the tap's descriptors, which a thread here pumps to
//! and from a tap of the station's own. Offload headers pass unchanged, so checksums are as partial as a guest's.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{read, write},
};

use netd_api::{Port, PortRequest};

use crate::{
    daemon::Daemon,
    space::Space,
    tap,
    wait::{self, PATIENCE},
};

/// The greatest frame with its offload header.
const FRAME: usize = 65_536 + 64;

/// A space on a network; unplugged when dropped.
#[derive(Debug)]
pub struct Station {
    /// For what this type has no method for.
    pub space: Space,
    /// The port on the host; none for a veth end put on the bridge by hand.
    pub port: Option<Port>,
    _pump: Option<Pump>,
}

impl Station {
    /// Plugs a new station into a network as a guest of this name.
    pub fn plug(daemon: &Daemon, network: &str, guest: &str) -> Result<Self> {
        let request = PortRequest {
            network: network.into(),
            guest: Some(guest.into()),
            mac: None,
            queues: 1,
            guards: None,
            portgroup: None,
        };
        Self::plug_with(daemon, guest, request)
    }

    /// The same, and the station believes no router advertisement: it has the IPv6 addresses that a test gives it, and
    /// no others.
    pub fn plug_deaf(daemon: &Daemon, network: &str, guest: &str) -> Result<Self> {
        let space = Space::new(guest)?;
        space.check("sysctl", &["-q", "-w", "net.ipv6.conf.default.accept_ra=0"])?;
        let request =
            PortRequest { network: network.into(), guest: Some(guest.into()), queues: 1, ..PortRequest::default() };
        Self::plug_into(space, daemon, request)
    }

    /// The same with all a port can be asked for.
    pub fn plug_with(daemon: &Daemon, name: &str, request: PortRequest) -> Result<Self> {
        Self::plug_into(Space::new(name)?, daemon, request)
    }

    fn plug_into(space: Space, daemon: &Daemon, request: PortRequest) -> Result<Self> {
        let (port, mut fds) = netd_api::blocking::add_port(&daemon.socket(), request)?;
        let outer = fds.pop().context("netd gave a port without a descriptor")?;
        let inner = space.inside(|| tap::open("eth0"))?;
        tap::set_offload(&outer)?;
        tap::copy_header_size(&outer, &inner)?;
        space.ip(&format!("link set eth0 address {} mtu {} up", port.mac, port.mtu))?;
        Ok(Station { space, port: Some(port), _pump: Some(Pump::start(outer, inner)?) })
    }

    /// Puts one end of a veth pair on a bridge of the host and the other into a new space, with nobody asked.
    pub fn by_hand(daemon: &Daemon, bridge: &str, name: &str) -> Result<Self> {
        let space = Space::new(name)?;
        let end: String = name.chars().take(15).collect();
        daemon.host.connect(&end, &space, "eth0")?;
        daemon.host.ip(&format!("link set {end} master {bridge}"))?;
        Ok(Station { space, port: None, _pump: None })
    }

    /// Puts a tap on a bridge of the host, as another manager does for a guest with this MAC, and the guest into a new
    /// space.
    pub fn on_tap(host: &Space, bridge: &str, interface: &str, mac: &str) -> Result<Self> {
        let space = Space::new("guest")?;
        let outer = host.inside(|| tap::open(interface))?;
        let inner = space.inside(|| tap::open("eth0"))?;
        tap::copy_header_size(&outer, &inner)?;
        host.ip(&format!("link set {interface} address fe{} master {bridge} up", &mac[2..]))?;
        space.ip(&format!("link set eth0 address {mac} up"))?;
        Ok(Station { space, port: None, _pump: Some(Pump::start(outer, inner)?) })
    }

    /// A guest on a tap that is there already, opened by its name, in a new space.
    pub fn on_kept_tap(host: &Space, interface: &str, mac: &str) -> Result<Self> {
        let space = Space::new("guest")?;
        let outer = host.inside(|| tap::open(interface))?;
        let inner = space.inside(|| tap::open("eth0"))?;
        tap::copy_header_size(&outer, &inner)?;
        space.ip(&format!("link set eth0 address {mac} up"))?;
        Ok(Station { space, port: None, _pump: Some(Pump::start(outer, inner)?) })
    }

    /// The MAC of `eth0`.
    pub fn mac(&self) -> Result<String> {
        let text = self.space.sh("cat /sys/class/net/eth0/address")?;
        Ok(text.trim().to_owned())
    }

    /// The first IPv4 address of `eth0`, as `a.b.c.d`.
    pub fn address(&self) -> Result<Option<String>> {
        let text = self.space.ip("-o -4 address show dev eth0")?;
        let address = text.split_whitespace().skip_while(|word| *word != "inet").nth(1);
        Ok(address.and_then(|address| address.split('/').next()).map(str::to_owned))
    }

    /// Asks for a lease once with udhcpc, as a test's means and not its subject; gives the address.
    pub fn lease(&self) -> Result<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/guest/dhcp-script");
        let hostname = self.space.name().split('-').next().unwrap_or_default();
        self.space.sh(&format!("udhcpc -i eth0 -q -n -f -t 5 -T 1 -x hostname:{hostname} -s {script}"))?;
        wait::until("the address is set", PATIENCE, || self.address())
    }

    /// Fetches `http://ADDRESS/`; gives the body.
    pub fn fetch(&self, address: impl Into<IpAddr>) -> Result<String> {
        let address = address.into();
        self.space.inside(|| {
            let patience = Duration::from_secs(3);
            let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, 80), patience)?;
            stream.set_read_timeout(Some(patience))?;
            stream.write_all(format!("GET / HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.split_once("\r\n\r\n").context("no HTTP answer")?.1.to_owned())
        })
    }

    /// True if an echo request is answered within a second.
    pub fn reaches(&self, address: &str) -> Result<bool> {
        Ok(self.space.run("ping", &["-n", "-c", "1", "-W", "1", address])?.status.success())
    }
}

/// Moves frames between two taps until dropped.
#[derive(Debug)]
struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    fn start(outer: OwnedFd, inner: OwnedFd) -> Result<Self> {
        for fd in [&outer, &inner] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut frame = vec![0; FRAME];
            while !stopped.load(Ordering::Relaxed) {
                let mut ready =
                    [PollFd::new(outer.as_fd(), PollFlags::POLLIN), PollFd::new(inner.as_fd(), PollFlags::POLLIN)];
                let timeout = PollTimeout::try_from(Duration::from_millis(100)).unwrap_or(PollTimeout::ZERO);
                match poll(&mut ready, timeout) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return,
                }
                for (from, to) in [(&outer, &inner), (&inner, &outer)] {
                    if drain(from, to, &mut frame).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Pump { stop, thread: Some(thread) })
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Moves what is there; an error means that one of the taps is gone.
fn drain(from: &OwnedFd, to: &OwnedFd, frame: &mut [u8]) -> nix::Result<()> {
    loop {
        match read(from.as_fd(), frame) {
            // A frame the other side has no room for, or is not up for, is lost, as on a wire.
            Ok(length) => match write(to.as_fd(), &frame[..length]) {
                Ok(_) | Err(Errno::EAGAIN | Errno::EIO | Errno::EINVAL) => {}
                Err(error) => return Err(error),
            },
            Err(Errno::EAGAIN | Errno::EINTR | Errno::EIO) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
