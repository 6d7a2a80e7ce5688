//! EDGE: the IPv6 task of one network: advertise, wait, parse, decide, make durable, tell who watches, emit.
//!
//! As with DHCPv4, all frames that are there are decided on before anything is waited for, and a bridge that goes away is
//! waited for.

use std::{io, net::Ipv6Addr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    clock,
    groups::{self, Groups},
    packet::{Hears, MAX_FRAME, PacketSocket},
};
use crate::{
    config::Mac,
    moment::Moment,
    network::Network,
    ra::{Advertisement, Answer},
    row::Write,
    stats::Received6,
    store::{Job, Store},
    v4::frame::Checksum,
    v6::{
        engine::{Heard, Next, Settled, Submission},
        frame::{self, ALL_NODES, SERVER_PORT},
        reply::Reply,
        report::Report,
        request::Kind,
    },
};

/// Frames decided on before the disk's answers are looked at.
const BURST: usize = 64;

/// Submissions on their way to the disk. More than that means it doesn't keep up: clients ask again.
const MAX_PENDING: usize = 4096;

/// Between two looks for a bridge that went away.
const RETRY: Duration = Duration::from_millis(100);

/// Between two ticks at most: timers stand still while the machine sleeps, leases don't.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// The task, as its owner sees it. If it is dropped, the task ends without a word to the guests: a daemon that ends
/// leaves its networks as they are.
#[derive(Debug)]
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    closed: oneshot::Receiver<()>,
    _task: JoinHandle<()>,
}

impl Running {
    /// Starts serving; the sockets are ready on return.
    pub(crate) fn start(network: Arc<Network>, bridge: &str, store: Arc<Store>) -> io::Result<Running> {
        let sockets = Sockets::open(bridge)?;
        let (stop, stopped) = oneshot::channel();
        let (closing, closed) = oneshot::channel();
        let (answers, settled) = mpsc::unbounded_channel();
        let server = Server {
            network,
            bridge: bridge.to_owned(),
            store,
            answers,
            pending: 0,
            report: Report::new(),
            last_tick: clock::now(),
        };
        let task = tokio::spawn(server.run(sockets, settled, stopped, closing));
        Ok(Running { stop, closed, _task: task })
    }

    /// Tells the guests that this is the end, and stops serving; the sockets are closed on return. What the disk hasn't
    /// answered yet is settled after that.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.closed.await;
    }
}

/// What a network has open while it is served.
#[derive(Debug)]
struct Sockets {
    packets: PacketSocket,
    _groups: Groups,
}

impl Sockets {
    fn open(bridge: &str) -> io::Result<Self> {
        Ok(Sockets { packets: PacketSocket::open(bridge, Hears::Ipv6)?, _groups: Groups::join(bridge)? })
    }

    /// Who we are on the link: the bridge's MAC, and its link-local address, which the kernel makes of that.
    fn own(&self, bridge: &str) -> io::Result<(Mac, Ipv6Addr)> {
        let mac = self.packets.mac()?;
        Ok((mac, groups::link_local(bridge).unwrap_or_else(|| frame::link_local(mac))))
    }
}

/// What the disk said, and when the message came that it is about.
type Answered = (Submission, bool, Moment);

struct Server {
    network: Arc<Network>,
    bridge: String,
    store: Arc<Store>,
    answers: mpsc::UnboundedSender<Answered>,
    pending: usize,
    report: Report,
    last_tick: Moment,
}

impl Server {
    async fn run(
        mut self,
        sockets: Sockets,
        mut settled: mpsc::UnboundedReceiver<Answered>,
        mut stopped: oneshot::Receiver<()>,
        closing: oneshot::Sender<()>,
    ) {
        let mut sockets = Some(sockets);
        let mut buffer = vec![0; MAX_FRAME];
        let mut wake = self.tick(sockets.as_ref());
        let mut retry = Instant::now();
        let network = self.network.clone();
        loop {
            tokio::select! {
                asked = &mut stopped => {
                    if asked.is_ok() {
                        let last = self.network.engine6().farewell(clock::now());
                        self.advertise(sockets.as_ref(), last, None);
                    }
                    break;
                }
                Some(answer) = settled.recv() => {
                    let mut outcomes = vec![self.settle(answer)];
                    while let Ok(answer) = settled.try_recv() {
                        outcomes.push(self.settle(answer));
                    }
                    self.network.tell(clock::now()).await;
                    for (outcome, came) in outcomes {
                        self.emit(outcome, sockets.as_ref(), came);
                    }
                    self.network.publish(clock::now());
                    wake = wake.min(self.alarm());
                }
                heard = hear(sockets.as_ref(), &mut buffer, |sockets, frame, checksum| {
                    self.handle(sockets, frame, checksum);
                }) => {
                    if let Err(cause) = heard {
                        self.lost(&cause);
                        sockets = None;
                        retry = Instant::now() + RETRY;
                    }
                    self.network.tell(clock::now()).await;
                    wake = wake.min(self.alarm());
                }
                () = sleep_until(retry), if sockets.is_none() => {
                    sockets = self.reopen();
                    retry = Instant::now() + RETRY;
                }
                () = network.wake6.notified() => wake = self.tick(sockets.as_ref()),
                () = sleep_until(wake) => {
                    wake = self.tick(sockets.as_ref());
                    self.network.tell(clock::now()).await;
                }
            }
        }
        drop(sockets);
        let _ = closing.send(());
        while self.pending > 0 {
            let Some(answer) = settled.recv().await else { return };
            let (outcome, came) = self.settle(answer);
            self.network.tell(clock::now()).await;
            self.emit(outcome, None, came);
        }
    }

    /// Decides on one frame, and sends or stores what follows.
    fn handle(&mut self, sockets: &Sockets, frame: &[u8], checksum: Checksum) {
        let now = clock::now();
        if self.pending >= MAX_PENDING {
            let network = &*self.network.name;
            self.report.trouble(now.boot, |more| {
                warn!(network, "the disk doesn't keep up with {MAX_PENDING} clients; message dropped{more}");
            });
            return;
        }
        let elsewhere = |name: &str| self.network.engine().name_holder(name, now);
        let heard = self.network.engine6().handle(frame, checksum, now, &elsewhere);
        match heard {
            Err(cause) => {
                self.network.stats.received6(Received6::Unusable);
                self.report.unusable(&self.network.name, &cause);
            }
            Ok(Heard::Solicitation { mac, from, answer }) => {
                self.network.stats.received6(Received6::RouterSolicitation);
                if answer == Answer::Now {
                    let advertisement = self.network.engine6().advertisement(now);
                    self.advertise(Some(sockets), advertisement, Some((mac, from)));
                }
            }
            Ok(Heard::Message(handled)) => {
                self.network.stats.received6(handled.kind.into());
                self.report.handled(&self.network.name, &handled, now.boot);
                match handled.next {
                    Next::Nothing => {}
                    Next::Send(reply) => self.send(sockets, &reply, now),
                    Next::Write(submission, writes) => self.store(submission, writes, now),
                }
            }
        }
    }

    fn store(&mut self, submission: Submission, writes: Vec<Write>, came: Moment) {
        self.pending += 1;
        let answers = self.answers.clone();
        let done = Box::new(move |result: Result<(), _>| {
            // Nobody is there to be told if the daemon is on its way out.
            let _ = answers.send((submission, result.is_ok(), came));
        });
        self.store.submit(Job { network: self.network.name.clone(), writes, done });
    }

    fn settle(&mut self, (submission, written, came): Answered) -> (Settled, Moment) {
        self.pending -= 1;
        (self.network.engine6().settle(submission, written), came)
    }

    fn emit(&mut self, settled: Settled, sockets: Option<&Sockets>, came: Moment) {
        if let (Some(reply), Some(sockets)) = (settled.reply, sockets) {
            self.send(sockets, &reply, came);
        }
        self.report.settled(&self.network.name, &settled.outcomes, clock::now().boot);
    }

    fn send(&mut self, sockets: &Sockets, reply: &Reply, came: Moment) {
        let sent = sockets.own(&self.bridge).and_then(|(mac, own)| {
            let (from, to) = ((own, SERVER_PORT), (reply.to, reply.port));
            match frame::datagram(mac, reply.mac, from, to, &reply.payload) {
                Some(frame) => sockets.packets.send(&frame),
                None => Err(io::ErrorKind::InvalidData.into()),
            }
        });
        match sent {
            Ok(()) => self.network.stats.replied6(reply.kind, clock::now().boot.saturating_sub(came.boot)),
            Err(cause) => self.failed(reply.mac, &cause),
        }
    }

    /// Sends an advertisement, to one guest or to all.
    fn advertise(&mut self, sockets: Option<&Sockets>, what: Option<Advertisement>, to: Option<(Mac, Ipv6Addr)>) {
        let (Some(sockets), Some(advertisement)) = (sockets, what) else { return };
        let (to_mac, to) = to.unwrap_or((frame::multicast_mac(ALL_NODES), ALL_NODES));
        let sent = sockets.own(&self.bridge).and_then(|(mac, own)| {
            match frame::discovery(mac, to_mac, own, to, &advertisement.emit(mac)) {
                Some(frame) => sockets.packets.send(&frame),
                None => Err(io::ErrorKind::InvalidData.into()),
            }
        });
        match sent {
            Ok(()) => self.network.stats.advertised(),
            // A bridge without a port takes none: there is nobody to hear it, and who comes asks.
            Err(cause) if to == ALL_NODES && cause.raw_os_error() == Some(libc::ENOBUFS) => {
                debug!(network = &*self.network.name, "nobody is on bridge {} to hear of its router", self.bridge);
            }
            Err(cause) => self.failed(to_mac, &cause),
        }
    }

    fn failed(&mut self, to: Mac, cause: &io::Error) {
        let network = &*self.network.name;
        self.report.trouble(clock::now().boot, |more| warn!(network, "failed to send to {to}: {cause}{more}"));
    }

    /// Does what time asks for, and says when to do it next.
    fn tick(&mut self, sockets: Option<&Sockets>) -> Instant {
        let now = clock::now();
        self.network.engine6().tick(now, self.last_tick);
        self.last_tick = now;
        let due = self.network.engine6().advertise(now, rand::random());
        self.advertise(sockets, due, None);
        self.network.publish(now);
        self.alarm()
    }

    fn alarm(&self) -> Instant {
        let now = clock::now();
        let next = self.network.engine6().next(now);
        Instant::now() + next.map_or(MAX_SLEEP, |next| next.saturating_sub(now.boot).min(MAX_SLEEP))
    }

    fn lost(&mut self, cause: &io::Error) {
        let (network, bridge) = (&*self.network.name, &self.bridge);
        self.report.trouble(clock::now().boot, |more| {
            warn!(network, "IPv6 guests are not heard on bridge {bridge} ({cause}) until it is there and up{more}");
        });
    }

    fn reopen(&self) -> Option<Sockets> {
        let sockets = Sockets::open(&self.bridge).ok()?;
        debug!(network = &*self.network.name, "bridge {} is there again", self.bridge);
        Some(sockets)
    }
}

/// Hands frames over as they come; waits for ever where there is no socket.
async fn hear(
    sockets: Option<&Sockets>,
    buffer: &mut [u8],
    mut each: impl FnMut(&Sockets, &[u8], Checksum),
) -> io::Result<()> {
    match sockets {
        Some(sockets) => sockets.packets.receive(buffer, BURST, |frame, checksum| each(sockets, frame, checksum)).await,
        None => std::future::pending().await,
    }
}

impl From<Kind> for Received6 {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Solicit => Received6::Solicit,
            Kind::Request => Received6::Request,
            Kind::Confirm => Received6::Confirm,
            Kind::Renew => Received6::Renew,
            Kind::Rebind => Received6::Rebind,
            Kind::Release => Received6::Release,
            Kind::Decline => Received6::Decline,
            Kind::Information => Received6::Information,
        }
    }
}
