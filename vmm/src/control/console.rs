//! EDGE: the console thread: carries bytes between COM1 and standard input and output, or the clients of a socket.
//!
//! The guest never waits for it. A socket's clients share one console: all see the output, all can type; who comes late
//! first gets the last 64 KiB; who does not read is hung up on.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Wake,
    listener::{ListenError, Listener},
    terminal::RawTerminal,
};
use crate::{
    config::Console as Kind,
    machine::serial::{Com1, Output},
    sandbox::{self, Role},
};

/// Output kept for a client that comes later, in bytes.
const REPLAY: usize = 64 << 10;
/// Output kept for a client that does not read, in bytes; beyond it is hung up on.
const BACKLOG: usize = 1 << 20;
/// Most clients at once.
const MAX_CLIENTS: usize = 16;
/// How much is written at once to a descriptor that may block: no more than a pipe takes when it says it is writable.
const CHUNK: usize = 4096;
/// How long the guest's last words may take to get out.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why there is no console.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsoleError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("failed to make the terminal raw: {0}")]
    Terminal(io::Error),
    #[error("failed to start the console thread: {0}")]
    Start(io::Error),
}

/// A console that is ready and not yet connected to a guest.
#[derive(Debug)]
pub(crate) enum Console {
    Stdio,
    None,
    Socket(Listener),
}

impl Console {
    /// Opens what `kind` names; a socket is there from now on.
    pub(crate) fn open(kind: &Kind) -> Result<Self, ConsoleError> {
        match kind {
            Kind::Stdio => Ok(Console::Stdio),
            Kind::None => Ok(Console::None),
            Kind::Socket(path) => Ok(Console::Socket(Listener::bind("console", path)?)),
        }
    }

    /// Where COM1's output should go for this console.
    pub(crate) fn output(&self) -> io::Result<Output> {
        if matches!(self, Console::None) { Ok(Output::discard()) } else { Output::new() }
    }

    /// Connects the console to the guest.
    pub(crate) fn start(self, com1: &Arc<Com1>) -> Result<Running, ConsoleError> {
        let (side, terminal, listener): (Box<dyn Side>, _, _) = match self {
            Console::None => return Ok(Running { thread: None, _terminal: None, _listener: None }),
            Console::Stdio => {
                let terminal = RawTerminal::new().map_err(ConsoleError::Terminal)?;
                (Box::new(Stdio::new(terminal.is_some())), terminal, None)
            }
            Console::Socket(listener) => {
                let socket = listener.socket.try_clone().map_err(ConsoleError::Start)?;
                (Box::new(Clients::new(socket)), None, Some(listener))
            }
        };
        let stop = Arc::new(Wake::new().map_err(ConsoleError::Start)?);
        let (done, ended) = channel::<()>();
        let worker = Worker { side, com1: com1.clone(), stop: stop.clone(), typed: VecDeque::new() };
        std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                match sandbox::take(Role::Console) {
                    Ok(()) => worker.run(),
                    Err(error) => tracing::error!(%error, "the console's thread cannot enter its sandbox; it ends"),
                }
                drop(done);
            })
            .map_err(ConsoleError::Start)?;
        Ok(Running { thread: Some((stop, ended)), _terminal: terminal, _listener: listener })
    }
}

/// A console at work.
#[derive(Debug)]
pub(crate) struct Running {
    thread: Option<(Arc<Wake>, Receiver<()>)>,
    /// Restored when this is dropped.
    _terminal: Option<RawTerminal>,
    /// Removed when this is dropped; the thread may not.
    _listener: Option<Listener>,
}

impl Running {
    /// Lets the guest's last words out and ends the thread. A reader that has hung for two seconds does not get them.
    pub(crate) fn finish(self) {
        if let Some((stop, ended)) = &self.thread {
            stop.signal();
            // Disconnected is what is waited for; a timeout leaves the thread to the end of the process.
            let _ = ended.recv_timeout(LAST_WORDS);
        }
    }
}

/// Whoever is at the other end of the console.
trait Side: Send {
    /// What to poll, and for what.
    fn poll(&self) -> Vec<PollFd<'_>>;
    /// Reads what was typed and writes what can be written, given the poll's answers in the order of [`Side::poll`].
    fn serve(&mut self, ready: &[PollFlags], typed: &mut VecDeque<u8>);
    /// Takes output to write.
    fn write(&mut self, output: &[u8]);
    /// Nothing is waiting to be written.
    fn is_drained(&self) -> bool;
}

struct Worker {
    side: Box<dyn Side>,
    com1: Arc<Com1>,
    stop: Arc<Wake>,
    /// Typed and not yet taken by the guest.
    typed: VecDeque<u8>,
}

/// Typed bytes kept for a guest that does not read; more are not read from the user.
const TYPED_LIMIT: usize = 64 << 10;

impl Worker {
    fn run(mut self) {
        let mut stopping = false;
        loop {
            let Ok(ready) = self.wait(stopping) else { return };
            self.com1.space().clear();
            stopping |= self.stop.clear();
            let output = self.com1.output().take();
            self.side.write(&output);
            self.side.serve(&ready, &mut self.typed);
            self.type_in();
            if stopping && output.is_empty() && self.side.is_drained() {
                return;
            }
        }
    }

    /// Sleeps until something can be done; gives the answers for the side's descriptors.
    fn wait(&self, stopping: bool) -> Result<Vec<PollFlags>, Errno> {
        let own = [self.stop.as_fd(), self.com1.space().as_fd()];
        let mut fds: Vec<_> = own.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        fds.extend(self.com1.output().ready().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let first_of_side = fds.len();
        let full = self.typed.len() >= TYPED_LIMIT;
        fds.extend(self.side.poll().into_iter().map(|mut fd| {
            if full {
                fd.set_events(fd.events() - PollFlags::POLLIN);
            }
            fd
        }));
        // The last round does not sleep unless somebody has yet to read.
        let timeout = if stopping && self.side.is_drained() { PollTimeout::ZERO } else { PollTimeout::NONE };
        loop {
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) => break,
            }
        }
        Ok(fds[first_of_side..].iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect())
    }

    fn type_in(&mut self) {
        while !self.typed.is_empty() {
            let (front, _) = self.typed.as_slices();
            let taken = self.com1.send(front);
            if taken == 0 {
                return;
            }
            self.typed.drain(..taken);
        }
    }
}

/// Standard input and output. Written to only when it says it can take a little, because it may block.
struct Stdio {
    stdin: Option<io::Stdin>,
    stdout: Option<io::Stdout>,
    waiting: VecDeque<u8>,
}

impl Stdio {
    /// `foreground` is false for a background job on a terminal: reading would stop it. What is not a terminal is read anyway.
    fn new(foreground: bool) -> Self {
        use io::IsTerminal;
        let stdin = io::stdin();
        let readable = foreground || !stdin.is_terminal();
        Stdio { stdin: readable.then_some(stdin), stdout: Some(io::stdout()), waiting: VecDeque::new() }
    }
}

const ENDED: PollFlags = PollFlags::POLLHUP.union(PollFlags::POLLERR).union(PollFlags::POLLNVAL);

impl Side for Stdio {
    fn poll(&self) -> Vec<PollFd<'_>> {
        let input = self.stdin.as_ref().map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        let output = self.stdout.as_ref().filter(|_| !self.waiting.is_empty());
        let output = output.map(|stdout| PollFd::new(stdout.as_fd(), PollFlags::POLLOUT));
        input.into_iter().chain(output).collect()
    }

    fn serve(&mut self, ready: &[PollFlags], typed: &mut VecDeque<u8>) {
        let mut ready = ready.iter();
        if let Some(stdin) = &self.stdin
            && let Some(flags) = ready.next()
            && flags.intersects(PollFlags::POLLIN | ENDED)
        {
            match read_some(stdin.as_fd(), typed) {
                Ok(0) | Err(_) => self.stdin = None,
                Ok(_) => {}
            }
        }
        if let Some(stdout) = &self.stdout
            && let Some(flags) = ready.next()
            && flags.intersects(PollFlags::POLLOUT | ENDED)
        {
            let (front, _) = self.waiting.as_slices();
            match nix::unistd::write(stdout.as_fd(), &front[..front.len().min(CHUNK)]) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => {
                    // The reader is gone; the guest lives on without one.
                    self.stdout = None;
                    self.waiting.clear();
                }
            }
        }
    }

    fn write(&mut self, output: &[u8]) {
        if self.stdout.is_some() {
            let room = BACKLOG.saturating_sub(self.waiting.len());
            self.waiting.extend(&output[..output.len().min(room)]);
        }
    }

    fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn read_some(fd: BorrowedFd<'_>, typed: &mut VecDeque<u8>) -> nix::Result<usize> {
    let mut buffer = [0; 1024];
    match nix::unistd::read(fd, &mut buffer) {
        Ok(count) => {
            typed.extend(&buffer[..count]);
            Ok(count)
        }
        // Nothing lost, nothing ended: say that something came.
        Err(Errno::EINTR | Errno::EAGAIN) => Ok(1),
        Err(errno) => Err(errno),
    }
}

/// The clients of a console socket.
struct Clients {
    listener: UnixListener,
    clients: Vec<Client>,
    recent: VecDeque<u8>,
}

struct Client {
    stream: UnixStream,
    waiting: VecDeque<u8>,
    gone: bool,
}

impl Clients {
    fn new(listener: UnixListener) -> Self {
        Clients { listener, clients: Vec::new(), recent: VecDeque::new() }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, waiting: self.recent.clone(), gone: false });
            }
        }
    }
}

impl Side for Clients {
    fn poll(&self) -> Vec<PollFd<'_>> {
        let clients = self.clients.iter().map(|client| {
            let out = if client.waiting.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            PollFd::new(client.stream.as_fd(), PollFlags::POLLIN | out)
        });
        std::iter::once(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)).chain(clients).collect()
    }

    fn serve(&mut self, ready: &[PollFlags], typed: &mut VecDeque<u8>) {
        // The first answer is the listener's; clients accepted below were not polled and have their turn next time.
        for (client, flags) in self.clients.iter_mut().zip(ready.iter().skip(1)) {
            if flags.intersects(PollFlags::POLLIN | ENDED) {
                client.read(typed);
            }
            client.flush();
        }
        self.clients.retain(|client| !client.gone);
        if ready.first().is_some_and(|flags| flags.contains(PollFlags::POLLIN)) {
            self.accept();
        }
    }

    fn write(&mut self, output: &[u8]) {
        self.recent.extend(output);
        let excess = self.recent.len().saturating_sub(REPLAY);
        self.recent.drain(..excess);
        for client in &mut self.clients {
            client.waiting.extend(output);
            client.gone |= client.waiting.len() > BACKLOG;
        }
    }

    fn is_drained(&self) -> bool {
        self.clients.iter().all(|client| client.waiting.is_empty() || client.gone)
    }
}

impl Client {
    fn read(&mut self, typed: &mut VecDeque<u8>) {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.gone = true,
            Ok(count) => typed.extend(&buffer[..count]),
            Err(e) => self.gone |= !is_temporary(&e),
        }
    }

    fn flush(&mut self) {
        while !self.gone && !self.waiting.is_empty() {
            let (front, _) = self.waiting.as_slices();
            match self.stream.write(front) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(e) if is_temporary(&e) => return,
                Err(_) => self.gone = true,
            }
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests;
