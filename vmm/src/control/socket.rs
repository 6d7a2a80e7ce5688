//! EDGE: the control socket: a thread that reads calls, has the machine's thread answer them, and tells of events.
//!
//! ```text
//!   client ──call──► this thread ──Asked──► the machine's thread (`attend`)
//!          ◄─reply──             ◄─oneshot─
//!          ◄─event──             ◄─broadcast─
//! ```
//! Nobody waits for a client: who takes its replies slowly is hung up on, who is slow with events loses some and is told.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, oneshot, watch},
    task::JoinSet,
};
use zlink::{Connection, tokio::unix::Stream, varlink_service};

use crate::sandbox::{self, Role};

use super::{
    Wake,
    api::{Asked, Call, Event, RawCall, Refusal, Reply, Told},
    listener::Listener,
};

/// A client has this long to take a reply.
const PATIENCE: Duration = Duration::from_secs(2);
/// Events kept for a client that is slow.
const BACKLOG: usize = 64;
/// Most clients at once.
const MAX_CLIENTS: usize = 16;

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) call: Call,
    answer: oneshot::Sender<Result<Reply, Refusal>>,
}

impl Question {
    /// Answers; nobody to hear it is no error.
    pub(crate) fn answer(self, answer: Result<Reply, Refusal>) {
        let _ = self.answer.send(answer);
    }
}

/// The machine's side of the socket. Without a socket nobody asks, and nobody listens.
#[derive(Debug)]
pub(crate) struct Control {
    questions: Receiver<Question>,
    wake: Arc<Wake>,
    events: broadcast::Sender<Event>,
    thread: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    /// Removed when this is dropped; the thread may not.
    _listener: Option<Listener>,
}

impl Control {
    /// Serves `listener`, if there is one, on a thread called `control`.
    pub(crate) fn start(listener: Option<Listener>) -> io::Result<Self> {
        let (sender, questions) = channel();
        let (events, _) = broadcast::channel(BACKLOG);
        let wake = Arc::new(Wake::new()?);
        let mut control =
            Control { questions, wake: wake.clone(), events: events.clone(), thread: None, _listener: None };
        if let Some(listener) = &listener {
            let socket = listener.socket.try_clone()?;
            let (stop, stopped) = watch::channel(false);
            let machine = Machine { questions: sender, wake, events, stopped };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
                let served = sandbox::take(Role::Control).and_then(|()| runtime.block_on(serve(socket, &machine)));
                if let Err(error) = served {
                    tracing::error!(%error, "the control socket is not served any more");
                }
            })?;
            control.thread = Some((stop, thread));
        }
        control._listener = listener;
        Ok(control)
    }

    /// Something to wait for: readable when somebody asks.
    pub(crate) fn wake(&self) -> &Wake {
        &self.wake
    }

    /// The next question.
    pub(crate) fn next(&self) -> Option<Question> {
        self.wake.clear();
        self.questions.try_recv().ok()
    }

    /// Tells whoever listens.
    pub(crate) fn tell(&self, event: impl Into<Event>) {
        // An error means that nobody does.
        let _ = self.events.send(event.into());
    }

    /// Lets the last answers and events out, and ends the thread.
    pub(crate) fn finish(self) {
        let Control { questions, events, thread, _listener, .. } = self;
        // Whoever still waits for an answer hears that there is none.
        drop((questions, events));
        if let Some((stop, thread)) = thread {
            let _ = stop.send(true);
            if thread.join().is_err() {
                tracing::error!("the control thread panicked");
            }
        }
    }
}

/// What each client's task has of the machine.
#[derive(Clone)]
struct Machine {
    questions: Sender<Question>,
    wake: Arc<Wake>,
    events: broadcast::Sender<Event>,
    stopped: watch::Receiver<bool>,
}

async fn serve(socket: std::os::unix::net::UnixListener, machine: &Machine) -> io::Result<()> {
    let socket = UnixListener::from_std(socket)?;
    let mut clients = JoinSet::new();
    let mut stopped = machine.stopped.clone();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                    let machine = machine.clone();
                    clients.spawn(async move {
                        if let Err(error) = converse(stream, machine).await {
                            tracing::debug!(%error, "a control connection ended");
                        }
                    });
                }
                Ok(_) => tracing::debug!("too many control connections: one refused"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = clients.join_next() => {}
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    while clients.join_next().await.is_some() {}
    Ok(())
}

async fn converse(stream: UnixStream, machine: Machine) -> zlink::Result<()> {
    let mut connection = Connection::new(Stream::try_from(stream)?);
    let mut stopped = machine.stopped.clone();
    loop {
        let call = tokio::select! {
            biased;
            received = connection.receive_call::<RawCall>() => match received {
                Ok((call, _)) => call,
                Err(zlink::Error::UnexpectedEof) => return Ok(()),
                Err(error) => return Err(error),
            },
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
        };
        let asked = match call.method().understand() {
            Ok(Asked::Machine(Call::Monitor)) if call.more() => return tell(connection, machine).await,
            Ok(Asked::Machine(Call::Monitor)) => Err(varlink_service::Error::ExpectedMore),
            other => other,
        };
        let oneway = call.oneway();
        match asked {
            Ok(Asked::Machine(call)) => {
                let answer = machine.ask(call).await;
                if oneway {
                    continue;
                }
                match answer {
                    Ok(reply) => {
                        let reply = zlink::Reply::new(Some(reply));
                        timed(connection.send_reply(&reply, Vec::new())).await?;
                    }
                    Err(refusal) => timed(connection.send_error(&refusal, Vec::new())).await?,
                }
            }
            Ok(Asked::Service(value)) => {
                timed(connection.send_reply(&zlink::Reply::new(Some(value)), Vec::new())).await?;
            }
            Err(error) => timed(connection.send_error::<varlink_service::Error<'_>>(&error, Vec::new())).await?,
        }
    }
}

/// Tells a client of events until it hangs up, says anything else, or the guest has ended.
async fn tell(connection: Connection<Stream>, machine: Machine) -> zlink::Result<()> {
    let mut events = machine.events.subscribe();
    let mut stopped = machine.stopped.clone();
    // Only the machine's own end keeps the channel open.
    drop(machine);
    let (mut read, mut write) = connection.split();
    let mut told = Told::default();
    loop {
        let reply = zlink::Reply::new(Some(&told)).set_continues(Some(true));
        timed(write.send_reply(&reply, Vec::new())).await?;
        told = tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => Told { event: Some(event), missed: 0 },
                Err(broadcast::error::RecvError::Lagged(missed)) => Told { event: None, missed },
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            _ = read.receive_call::<RawCall>() => return Ok(()),
        };
    }
}

impl Machine {
    async fn ask(&self, call: Call) -> Result<Reply, Refusal> {
        let gone = || Refusal::new("the guest has ended");
        let (answer, answered) = oneshot::channel();
        self.questions.send(Question { call, answer }).map_err(|_| gone())?;
        self.wake.signal();
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The client must take it in time.
async fn timed(sent: impl Future<Output = zlink::Result<()>>) -> zlink::Result<()> {
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(result) => result,
        Err(late) => Err(io::Error::from(late).into()),
    }
}
