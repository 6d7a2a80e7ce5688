//! EDGE: the SQLite database of leases: its schema, opening it, one transaction, and what to do when it is broken.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, ErrorCode, Transaction, params};
use tracing::{error, warn};

use crate::{
    config::{LeaseTime, Mac},
    row::{Row, Write},
};

/// The layout below. A database with a higher one is not touched.
const VERSION: i64 = 1;

/// Times are seconds since the Unix epoch; `granted` is seconds; NULL in either means a lease without end. A row replaces
/// its MAC's and its address's older ones: a release that never got here can't come back as a second holder.
const SCHEMA: &str = "
CREATE TABLE leases (
    network   TEXT NOT NULL,
    mac       TEXT NOT NULL,
    address   TEXT NOT NULL,
    prefix    INTEGER NOT NULL,
    hostname  TEXT,
    client_id BLOB,
    granted   INTEGER,
    ends      INTEGER,
    PRIMARY KEY (network, mac),
    UNIQUE (network, address)
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
";

/// How long another process may keep us from opening: one that is just stopping.
const BUSY: Duration = Duration::from_secs(2);

/// Why the database can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("another process uses it; stop the other daemon or give this one a state directory of its own")]
    InUse,
    #[error("it was written by a newer version (layout {0}, this one knows {VERSION}); start that version")]
    Newer(i64),
    #[error("it is a SQLite database, but not one of leases; move it away")]
    Foreign,
    #[error("it is corrupt, and renaming it to {} failed: {cause}", to.display())]
    SetAside { to: PathBuf, cause: io::Error },
    #[error("failed to start its thread: {0}")]
    Thread(io::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// Why a transaction failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the database could not be opened again: {0}")]
    Reopen(#[from] OpenError),
}

/// The database; closed between an error that may have spoiled the connection and the next write.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Option<Connection>,
}

impl Database {
    /// Opens or makes the database and reads it. One that is corrupt is set aside.
    pub(super) fn open(path: &Path) -> Result<(Database, Vec<(String, Row)>), OpenError> {
        let (connection, rows) = open_or_replace(path)?;
        Ok((Database { path: path.to_owned(), connection: Some(connection) }, rows))
    }

    /// Makes the writes in one transaction; they are on disk when this returns `Ok`, and none is when it doesn't.
    pub(super) fn write<'a>(
        &mut self,
        writes: impl Iterator<Item = (&'a str, &'a Write)> + Clone,
    ) -> Result<(), WriteError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_or_replace(&self.path)?.0,
        };
        match transact(connection, writes.clone()) {
            Ok(connection) => {
                self.connection = Some(connection);
                Ok(())
            }
            // The leases that were in it come back as their clients renew.
            Err(cause) if is_corrupt(&cause) => {
                set_aside(&self.path, &cause.to_string())?;
                self.connection = Some(transact(open_or_replace(&self.path)?.0, writes)?);
                Ok(())
            }
            Err(cause) => Err(cause.into()),
        }
    }
}

/// Hands the connection back only if all went well.
fn transact<'a>(
    mut connection: Connection,
    writes: impl Iterator<Item = (&'a str, &'a Write)>,
) -> rusqlite::Result<Connection> {
    let transaction = connection.transaction()?;
    for (network, write) in writes {
        apply(&transaction, network, write)?;
    }
    transaction.commit()?;
    Ok(connection)
}

fn apply(transaction: &Transaction<'_>, network: &str, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put(row) => transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO leases (network, mac, address, prefix, hostname, client_id, granted, ends)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                network,
                row.mac.to_string(),
                row.address.to_string(),
                row.prefix,
                row.hostname,
                row.client_id,
                match row.granted {
                    LeaseTime::Seconds(seconds) => Some(seconds),
                    LeaseTime::Infinite => None,
                },
                row.ends.map(|ends| i64::try_from(ends).unwrap_or(i64::MAX)),
            ])?,
        Write::Delete(mac) => transaction
            .prepare_cached("DELETE FROM leases WHERE network = ? AND mac = ?")?
            .execute(params![network, mac.to_string()])?,
        Write::DeleteAll => {
            transaction.prepare_cached("DELETE FROM leases WHERE network = ?")?.execute(params![network])?
        }
    };
    Ok(())
}

fn open_or_replace(path: &Path) -> Result<(Connection, Vec<(String, Row)>), OpenError> {
    match open(path) {
        Err(OpenError::Sqlite(cause)) if is_corrupt(&cause) => {
            set_aside(path, &cause.to_string())?;
            open(path)
        }
        other => other,
    }
}

fn open(path: &Path) -> Result<(Connection, Vec<(String, Row)>), OpenError> {
    let connection = Connection::open(path).map_err(name_busy)?;
    connection.busy_timeout(BUSY)?;
    // Exclusive: a second daemon fails here and not with the first lease both give away; and without shared memory
    // there is no mapped file that a full disk turns into SIGBUS. It must come before WAL.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(name_busy)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).map_err(name_busy)?;
    connection.pragma_update(None, "synchronous", "FULL")?;

    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(name_busy)?;
    match version {
        0 => {
            let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            if tables != 0 {
                return Err(OpenError::Foreign);
            }
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} COMMIT;")).map_err(name_busy)?;
            sync_directory(path)?;
        }
        VERSION => {
            let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(OpenError::Sqlite(corrupt(verdict)));
            }
        }
        newer => return Err(OpenError::Newer(newer)),
    }
    let rows = read(&connection)?;
    Ok((connection, rows))
}

fn read(connection: &Connection) -> rusqlite::Result<Vec<(String, Row)>> {
    let mut statement =
        connection.prepare("SELECT network, mac, address, prefix, hostname, client_id, granted, ends FROM leases")?;
    let mut cursor = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        let (network, mac, address): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (Ok(mac), Ok(address)) = (mac.parse::<Mac>(), address.parse::<Ipv4Addr>()) else {
            warn!("the lease of '{mac}' on network '{network}' with address '{address}' makes no sense; left out");
            continue;
        };
        let granted: Option<i64> = row.get(6)?;
        let ends: Option<i64> = row.get(7)?;
        let granted = granted
            .map_or(LeaseTime::Infinite, |seconds| LeaseTime::Seconds(seconds.clamp(0, i64::from(u32::MAX)) as u32));
        rows.push((
            network,
            Row {
                mac,
                address,
                prefix: row.get::<_, i64>(3)?.clamp(0, 32) as u8,
                hostname: row.get(4)?,
                client_id: row.get(5)?,
                granted,
                ends: ends.map(|ends| u64::try_from(ends).unwrap_or(0)),
            },
        ));
    }
    Ok(rows)
}

/// Renames the database and its log, so that a fresh one can be made in its place.
fn set_aside(path: &Path, cause: &str) -> Result<(), OpenError> {
    let stamp = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let named = |from: &Path, suffix: &str| {
        let mut name = from.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let to = (0..)
        .map(|n| named(path, &if n == 0 { format!(".corrupt-{stamp}") } else { format!(".corrupt-{stamp}-{n}") }))
        .find(|to| !to.exists())
        .unwrap_or_else(|| named(path, ".corrupt"));
    fs::rename(path, &to).map_err(|cause| OpenError::SetAside { to: to.clone(), cause })?;
    for suffix in ["-wal", "-shm"] {
        match fs::rename(named(path, suffix), named(&to, suffix)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::SetAside { to: named(&to, suffix), cause });
            }
            _ => {}
        }
    }
    error!(
        "the lease database {} is corrupt ({cause}); it is now {}, and a fresh one is made: clients keep their \
         addresses by renewing",
        path.display(),
        to.display()
    );
    Ok(())
}

/// Makes the new file's name last, as SQLite does only for its logs.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

fn is_corrupt(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn name_busy(error: rusqlite::Error) -> OpenError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenError::InUse,
        _ => OpenError::Sqlite(error),
    }
}

fn corrupt(verdict: String) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(verdict))
}
