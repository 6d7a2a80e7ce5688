//! EDGE: the DHCP task of one network: wait, parse, decide, make durable, tell who watches, emit.
//!
//! All frames that are there are decided on before anything is waited for, so that a burst shares one commit. A bridge
//! that goes away is waited for, and served again when it is back under its name.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    clock,
    packet::{Hears, MAX_FRAME, PacketSocket},
    reserve::ReservedPort,
};
use crate::{
    engine::{Next, Settled, Submission},
    moment::Moment,
    network::Network,
    report::Report,
    row::Write,
    stats::Received,
    store::{Job, Store},
    v4::{frame::Checksum, options::code, reply::Reply, request::Kind},
};

/// Frames decided on before the disk's answers are looked at.
const BURST: usize = 64;

/// Submissions on their way to the disk. More than that means it doesn't keep up: clients ask again.
const MAX_PENDING: usize = 4096;

/// Between two looks for a bridge that went away.
const RETRY: Duration = Duration::from_millis(100);

/// Between two ticks at most: timers stand still while the machine sleeps, leases don't.
const MAX_SLEEP: Duration = Duration::from_secs(30);

/// The task, as its owner sees it.
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

    /// Stops serving; the sockets are closed on return. What the disk hasn't answered yet is settled after that.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.closed.await;
    }
}

/// What a network has open while it is served.
#[derive(Debug)]
struct Sockets {
    packets: PacketSocket,
    _port: ReservedPort,
}

impl Sockets {
    fn open(bridge: &str) -> io::Result<Self> {
        Ok(Sockets { packets: PacketSocket::open(bridge, Hears::Dhcp4)?, _port: ReservedPort::open(bridge)? })
    }
}

/// What the disk said, and when the message came that it is about.
type Answer = (Submission, bool, Moment);

struct Server {
    network: Arc<Network>,
    bridge: String,
    store: Arc<Store>,
    answers: mpsc::UnboundedSender<Answer>,
    pending: usize,
    report: Report,
    last_tick: Moment,
}

impl Server {
    async fn run(
        mut self,
        sockets: Sockets,
        mut settled: mpsc::UnboundedReceiver<Answer>,
        mut stopped: oneshot::Receiver<()>,
        closing: oneshot::Sender<()>,
    ) {
        let mut sockets = Some(sockets);
        let mut buffer = vec![0; MAX_FRAME];
        let mut wake = self.tick();
        let mut retry = Instant::now();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
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
                heard = hear(sockets.as_ref(), &mut buffer, |packets, frame, checksum| {
                    self.handle(packets, frame, checksum);
                }) => {
                    if let Err(cause) = heard {
                        self.lost(&cause);
                        sockets = None;
                        retry = Instant::now() + RETRY;
                    }
                    self.network.tell(clock::now()).await;
                }
                () = sleep_until(retry), if sockets.is_none() => {
                    sockets = self.reopen();
                    retry = Instant::now() + RETRY;
                }
                () = sleep_until(wake) => {
                    wake = self.tick();
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
    fn handle(&mut self, packets: &PacketSocket, frame: &[u8], checksum: Checksum) {
        let now = clock::now();
        let network = &self.network.name;
        if self.pending >= MAX_PENDING {
            self.report.trouble(now.boot, |more| {
                warn!(
                    network = &**network,
                    "the disk doesn't keep up with {MAX_PENDING} clients; message dropped{more}"
                );
            });
            return;
        }
        let handled = match self.network.engine().handle(frame, checksum, now) {
            Ok(handled) => handled,
            Err(cause) => {
                self.network.stats.received(Received::Unusable);
                return self.report.unusable(network, &cause);
            }
        };
        self.network.stats.received(handled.kind.into());
        self.report.handled(network, &handled, now.boot);
        match handled.next {
            Next::Nothing => {}
            Next::Send(reply) => self.send(packets, &reply, now),
            Next::Write(submission, writes) => self.store(submission, writes, now),
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

    fn settle(&mut self, (submission, written, came): Answer) -> (Settled, Moment) {
        self.pending -= 1;
        (self.network.engine().settle(submission, written), came)
    }

    fn emit(&mut self, settled: Settled, sockets: Option<&Sockets>, came: Moment) {
        if let (Some(reply), Some(sockets)) = (settled.reply, sockets) {
            self.send(&sockets.packets, &reply, came);
        }
        if let Some((mac, outcome)) = settled.about {
            self.report.settled(&self.network.name, mac, &outcome, clock::now().boot);
        }
    }

    fn send(&mut self, packets: &PacketSocket, reply: &Reply, came: Moment) {
        let sent = packets.mac().and_then(|mac| match self.network.engine().frame(reply, mac) {
            Some(frame) => packets.send(&frame),
            None => Err(io::ErrorKind::InvalidData.into()),
        });
        if sent.is_ok() {
            let kind = reply.message.options.get(code::MESSAGE_TYPE).and_then(|value| value.first()).copied();
            self.network.stats.replied(kind, clock::now().boot.saturating_sub(came.boot));
        }
        if let Err(cause) = sent {
            let (network, to) = (&*self.network.name, reply.mac);
            self.report.trouble(clock::now().boot, |more| warn!(network, "failed to send to {to}: {cause}{more}"));
        }
    }

    /// Does what time asks for, and says when to do it next.
    fn tick(&mut self) -> Instant {
        let now = clock::now();
        self.network.engine().tick(now, self.last_tick);
        self.last_tick = now;
        self.network.publish(now);
        self.alarm()
    }

    fn alarm(&self) -> Instant {
        let now = clock::now();
        let next = self.network.engine().next_end(now);
        Instant::now() + next.map_or(MAX_SLEEP, |next| next.saturating_sub(now.boot).min(MAX_SLEEP))
    }

    fn lost(&mut self, cause: &io::Error) {
        let (network, bridge) = (&*self.network.name, &self.bridge);
        self.report.trouble(clock::now().boot, |more| {
            warn!(network, "DHCP hears nothing on bridge {bridge} ({cause}) until it is there and up{more}");
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
    mut each: impl FnMut(&PacketSocket, &[u8], Checksum),
) -> io::Result<()> {
    match sockets {
        Some(Sockets { packets, .. }) => {
            packets.receive(buffer, BURST, |frame, checksum| each(packets, frame, checksum)).await
        }
        None => std::future::pending().await,
    }
}

impl From<Kind> for Received {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Discover => Received::Discover,
            Kind::Request => Received::Request,
            Kind::Decline => Received::Decline,
            Kind::Release => Received::Release,
            Kind::Inform => Received::Inform,
            Kind::Bootp => Received::Bootp,
        }
    }
}
