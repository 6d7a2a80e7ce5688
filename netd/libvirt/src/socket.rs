//! EDGE: one client's socket: what it sends is cut into frames, calls are answered side by side, pings asked and answered,
//! and what waits for it is sent as it takes it.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    rc::Rc,
    time::Instant,
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use tokio::{io::Interest, net::UnixStream, task::spawn_local, time::sleep_until};

use crate::{
    call::{self, Front, Meaning},
    frame::{Frame, FrameError, Frames},
    session::Session,
    watch::{Due, PATIENCE, State, UNANSWERED, Watch},
};

/// The longest payload of who may change things: a string of the greatest length, and what stands beside it.
const LONGEST: usize = crate::xdr::LONGEST_STRING + (64 << 10);

/// The longest payload of who may not: nothing it may call takes more.
const LONGEST_READ_ONLY: usize = 64 << 10;

/// Bytes that are read at once.
const CHUNK: usize = 64 << 10;

/// What one read needs. All connections share one, so that one that is silent costs next to nothing.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Box<[u8]>,
    fds: Vec<u8>,
}

impl Default for Chunk {
    fn default() -> Self {
        // 253 is the most that one message carries (SCM_MAX_FD).
        Chunk { bytes: vec![0; CHUNK].into_boxed_slice(), fds: nix::cmsg_space!([std::os::fd::RawFd; 253]) }
    }
}

/// Why a connection was ended by us.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The socket said so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Frames cannot be told apart any more.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// It sent what no client sends.
    #[error("a frame that no client sends: {0:?}")]
    Wrong(crate::frame::Header),
    /// What it is sent piles up.
    #[error("it does not read what it is sent")]
    Deaf,
    /// A frame that begins and does not end.
    #[error("a frame did not end in {PATIENCE:?}")]
    Unfinished,
    /// It does not answer.
    #[error("it answered none of {UNANSWERED} pings")]
    Silent,
}

/// Serves one client until it hangs up.
pub(crate) async fn serve(
    stream: UnixStream,
    read_only: bool,
    front: Rc<Front>,
    chunk: Rc<RefCell<Chunk>>,
) -> Result<(), Ended> {
    let session = Rc::new(Session::new(read_only));
    let mut frames = Frames::new(if read_only { LONGEST_READ_ONLY } else { LONGEST });
    let mut watch = Watch::new(Instant::now());
    loop {
        while session.may_call()
            && let Some(frame) = frames.next()
        {
            take(&front, &session, frame)?;
        }
        let outgoing = &session.outgoing;
        if outgoing.is_full() {
            return Err(Ended::Deaf);
        }
        let state = State {
            reads: session.may_call() && frames.waiting() == 0,
            sends: outgoing.waiting() > 0,
            answers: session.keepalive.get(),
        };
        let wake = watch.note(Instant::now(), state);
        tokio::select! {
            ready = stream.writable(), if state.sends => {
                ready?;
                let waited = outgoing.waiting();
                match outgoing.send(|bytes| stream.try_write(bytes)) {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error.into()),
                    _ => {}
                }
                if outgoing.waiting() < waited {
                    watch.taken();
                }
            }
            ready = stream.readable(), if state.reads => {
                ready?;
                let mut chunk = chunk.borrow_mut();
                match read(&stream, &mut chunk) {
                    Ok((0, _)) => return Ok(()),
                    Ok((length, fds)) => {
                        frames.push(chunk.bytes.get(..length).unwrap_or_default(), fds)?;
                        watch.heard(Instant::now(), frames.waiting() > 0, frames.in_frame());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
            () = outgoing.changed.notified() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {
                match watch.due(Instant::now(), state) {
                    Due::Nothing => {}
                    Due::Ask => outgoing.reply(call::ping()),
                    Due::Deaf => return Err(Ended::Deaf),
                    Due::Unfinished => return Err(Ended::Unfinished),
                    Due::Silent => return Err(Ended::Silent),
                }
            }
        }
    }
}

fn take(front: &Rc<Front>, session: &Rc<Session>, frame: Frame<OwnedFd>) -> Result<(), Ended> {
    match call::meaning(&frame.header) {
        Meaning::Call => {
            session.calls.set(session.calls.get() + 1);
            let (front, session) = (Rc::clone(front), Rc::clone(session));
            spawn_local(async move {
                let reply = call::reply(&front, &session, frame).await;
                session.calls.set(session.calls.get() - 1);
                session.outgoing.reply(reply);
            });
        }
        Meaning::Ping => session.outgoing.reply(call::pong()),
        Meaning::Nothing => {}
        Meaning::Wrong => return Err(Ended::Wrong(frame.header)),
    }
    Ok(())
}

/// Reads what there is, with its file descriptors.
fn read(stream: &UnixStream, chunk: &mut Chunk) -> io::Result<(usize, Vec<OwnedFd>)> {
    let Chunk { bytes, fds } = chunk;
    stream.try_io(Interest::READABLE, || {
        let mut places = [IoSliceMut::new(bytes)];
        let received = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut places, Some(fds), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut owned = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for us, and nobody else knows of them.
                owned.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        Ok((received.bytes, owned))
    })
}
