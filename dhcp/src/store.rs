//! EDGE: leases on disk, in one SQLite database for every network.
//!
//! One thread owns the connection. It takes whatever jobs are waiting into one transaction, so that a burst of clients
//! costs one sync (WAL, `synchronous=FULL`), and answers each job when the transaction is on disk or has failed. It
//! decides nothing about leases and keeps none: what failed is the caller's to take back.
//!
//! A failure (disk full, I/O error) fails the jobs at hand; the next ones try again. A corrupt database is renamed, so
//! that it can be looked at, and a fresh one made.

mod database;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use database::{Database, WriteError};
pub(crate) use database::{OpenError, Stored};
use tracing::{error, info};

use crate::{limit::Limit, row::Write};

/// Jobs in one transaction: bounds the wait of the first for the last.
const MAX_GROUP: usize = 1024;

/// Writes of one network that stand or fall together.
pub(crate) struct Job {
    pub(crate) network: Arc<str>,
    pub(crate) writes: Vec<Write>,
    /// Called once, on the store's thread, with what became of them.
    pub(crate) done: Box<dyn FnOnce(Result<(), WriteFailed>) + Send>,
}

/// The writes are not on disk.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WriteFailed(pub(crate) Arc<str>);

/// The open database. Dropping it waits for the writes handed over so far.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the database, and reads every lease. `duid` becomes the server's where none is stored. Blocks on the
    /// disk.
    pub(crate) fn open(path: &Path, duid: &[u8]) -> Result<(Store, Stored), OpenError> {
        let (database, stored) = Database::open(path, duid)?;
        let (jobs, queue) = mpsc::channel();
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("leases".into())
            .spawn(move || run(database, &path, &queue))
            .map_err(OpenError::Thread)?;
        Ok((Store { jobs: Some(jobs), thread: Some(thread) }, stored))
    }

    /// Hands over a job; returns at once.
    pub(crate) fn submit(&self, job: Job) {
        let refused = match &self.jobs {
            Some(jobs) => jobs.send(job).err().map(|mpsc::SendError(job)| job),
            None => Some(job),
        };
        if let Some(job) = refused {
            (job.done)(Err(WriteFailed("the lease store has stopped".into())));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the lease store's thread panicked");
        }
    }
}

fn run(mut database: Database, path: &Path, queue: &mpsc::Receiver<Job>) {
    let mut health = Health::new();
    while let Ok(first) = queue.recv() {
        let mut group = vec![first];
        group.extend(queue.try_iter().take(MAX_GROUP - 1));
        let writes = group.iter().flat_map(|job| job.writes.iter().map(|write| (&*job.network, write)));
        let result = database.write(writes);
        health.report(path, &result);
        let result = result.map_err(|failed| WriteFailed(failed.to_string().into()));
        for job in group {
            (job.done)(result.clone());
        }
    }
}

/// Says when writing stops to work and when it works again, without a line for every lease that fails.
struct Health {
    began: Instant,
    failing: bool,
    limit: Limit,
}

impl Health {
    fn new() -> Self {
        Health { began: Instant::now(), failing: false, limit: Limit::new(1, Duration::from_secs(30)) }
    }

    fn report(&mut self, path: &Path, result: &Result<(), WriteError>) {
        let path = path.display();
        match result {
            Err(cause) => {
                if let Some(more) = self.limit.pass(self.began.elapsed()) {
                    error!(
                        "failed to write leases to {path}: {cause}; no client gets an address until that works \
                         ({more} more failures since the last such line)"
                    );
                }
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!("leases are written to {path} again");
                self.failing = false;
            }
            Ok(()) => {}
        }
    }
}

#[cfg(test)]
mod tests;
