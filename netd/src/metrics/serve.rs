//! EDGE: the sockets that metrics are read from, Unix and loopback TCP, and the clock.
//!
//! Every connection is a task with a deadline, brings one request of bounded length and gets one answer. A page is
//! gathered for one of those who ask at the same time, and serves all who ask within a second: however often anybody
//! asks, the host is looked at once a second at most.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, UnixListener},
    sync::Mutex,
};

use super::{
    http::{self, Asked, LONGEST_HEAD},
    page,
};
use crate::{
    server::limits::{Seat, Seats},
    verbs::{Host, Verbs},
};

/// From connecting to the end of a request.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// A client has this long to take the page.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// How old a page may be.
const FRESH: Duration = Duration::from_secs(1);

/// After `accept` failed (no descriptors left, say) the next try waits this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Over TCP nobody knows who it is: all clients share one user's places.
const ANYBODY: u32 = u32::MAX;

/// The page and when it was gathered.
#[derive(Debug)]
pub(crate) struct Pages<H> {
    verbs: Arc<Verbs<H>>,
    begun: Instant,
    last: Mutex<Option<(Instant, Arc<str>)>>,
}

impl<H: Host + 'static> Pages<H> {
    /// Pages about a daemon that starts now.
    pub(crate) fn new(verbs: Arc<Verbs<H>>) -> Arc<Self> {
        Arc::new(Pages { verbs, begun: Instant::now(), last: Mutex::default() })
    }

    async fn current(&self) -> Result<Arc<str>, String> {
        let mut last = self.last.lock().await;
        if let Some((at, text)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let facts = self.verbs.facts(self.begun.elapsed()).await.map_err(|error| error.to_string())?;
        let text: Arc<str> = page(facts).map_err(|error| error.to_string())?.into();
        *last = Some((Instant::now(), text.clone()));
        Ok(text)
    }

    /// Serves a Unix socket until the future is dropped.
    pub(crate) async fn serve_unix(self: Arc<Self>, listener: UnixListener) {
        let seats = Seats::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let user = stream.peer_cred().map(|peer| peer.uid());
                    self.welcome(stream, user.ok().and_then(|user| seats.take(user)));
                }
                Err(error) => rest(&error).await,
            }
        }
    }

    /// Serves a TCP socket until the future is dropped.
    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let seats = Seats::new();
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.welcome(stream, seats.take(ANYBODY)),
                Err(error) => rest(&error).await,
            }
        }
    }

    fn welcome(self: &Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, seat: Option<Seat>) {
        let Some(seat) = seat else {
            tracing::debug!("too many connections for metrics: one refused");
            return;
        };
        let pages = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = pages.converse(stream).await {
                tracing::debug!("metrics: {error}");
            }
            drop(seat);
        });
    }

    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let head = tokio::time::timeout(READ_DEADLINE, read_head(&mut stream)).await??;
        let answer = async {
            match http::read(&head) {
                Asked::Page { body } => match self.current().await {
                    Ok(text) => {
                        stream.write_all(http::page_head(text.len()).as_bytes()).await?;
                        if body {
                            stream.write_all(text.as_bytes()).await?;
                        }
                    }
                    Err(why) => {
                        let refusal = http::refusal("500 Internal Server Error", &why);
                        stream.write_all(refusal.as_bytes()).await?;
                    }
                },
                Asked::Refused { status, why } => stream.write_all(http::refusal(status, why).as_bytes()).await?,
            }
            stream.shutdown().await
        };
        tokio::time::timeout(WRITE_DEADLINE, answer).await?
    }
}

async fn rest(error: &io::Error) {
    tracing::warn!("cannot accept a connection for metrics: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !http::is_whole(&head) {
        if head.len() >= LONGEST_HEAD {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the request is too long"));
        }
        let mut part = [0; 1024];
        match stream.read(&mut part).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => head.extend_from_slice(&part[..length]),
        }
    }
    Ok(head)
}
