//! EDGE: connections to netd. Those that only look are kept for the next call; each that changes something is new, so that
//! nothing is done twice because a connection had died.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    time::Duration,
};

use netd_api::{Client, ClientError, Monitor};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep},
};

/// Calls at once that only look; netd has room for 256 connections.
const MOST_LOOKS: usize = 24;

/// Calls at once that change something. netd does one after the other, so those that only look are not behind them.
const MOST_CHANGES: usize = 32;

/// Connections that are kept though nobody calls.
const MOST_KEPT: usize = 4;

/// A netd that is being restarted is waited for this long.
pub(crate) const RESTART: Duration = Duration::from_secs(2);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// netd, as the front door sees it.
#[derive(Debug)]
pub(crate) struct Netd {
    socket: PathBuf,
    patience: Duration,
    kept: RefCell<Vec<Client>>,
    looks: Semaphore,
    changes: Semaphore,
}

impl Netd {
    /// netd at this socket. It need not be there yet: each call waits so long for it.
    pub(crate) fn new(socket: &Path, patience: Duration) -> Self {
        Netd {
            socket: socket.to_owned(),
            patience,
            kept: RefCell::default(),
            looks: Semaphore::new(MOST_LOOKS),
            changes: Semaphore::new(MOST_CHANGES),
        }
    }

    /// Asks something that changes nothing; asked again if the connection turns out to have died meanwhile.
    pub(crate) async fn look<T>(
        &self,
        call: impl AsyncFn(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let _place = place(&self.looks).await;
        let kept = self.kept.borrow_mut().pop();
        if let Some(mut client) = kept {
            match call(&mut client).await {
                Err(ClientError::Transport(_)) => {}
                said => return self.keep(client, said),
            }
        }
        let mut client = self.connect().await?;
        let said = call(&mut client).await;
        self.keep(client, said)
    }

    /// Keeps the connection if it is still of use.
    fn keep<T>(&self, client: Client, said: Result<T, ClientError>) -> Result<T, ClientError> {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MOST_KEPT && matches!(said, Ok(_) | Err(ClientError::Refused(_))) {
            kept.push(client);
        }
        said
    }

    /// Asks something that changes the host.
    pub(crate) async fn change<T>(
        &self,
        call: impl AsyncFnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let _place = place(&self.changes).await;
        call(&mut self.connect().await?).await
    }

    /// Hears what happens from now on.
    pub(crate) async fn monitor(&self) -> Result<Monitor, ClientError> {
        self.connect().await?.monitor(None).await
    }

    async fn connect(&self) -> Result<Client, ClientError> {
        let end = Instant::now() + self.patience;
        loop {
            match Client::connect(&self.socket).await {
                Err(_) if Instant::now() < end => sleep(PAUSE).await,
                tried => return tried,
            }
        }
    }
}

async fn place(places: &Semaphore) -> Option<SemaphorePermit<'_>> {
    // `None` only of a semaphore that was closed, which these never are.
    places.acquire().await.ok()
}
