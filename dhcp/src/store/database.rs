//! EDGE: the SQLite database of leases: its schema, opening it, one transaction, and what to do when it is broken.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, ErrorCode, Transaction, params};
use tracing::{error, warn};

use crate::{
    config::{LeaseTime, Mac},
    row::{Row, Write},
    v6::{row::Row6, table::Key},
};

/// The layout below. A database with a higher one is not touched.
const VERSION: i64 = 2;

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
";

/// What layout 2 has more: IPv6 leases, and the one DUID that our server has on every network (RFC 8415 §11).
const SCHEMA_6: &str = "
CREATE TABLE leases6 (
    network   TEXT NOT NULL,
    mac       TEXT NOT NULL,
    iaid      INTEGER NOT NULL,
    address   TEXT NOT NULL,
    prefix    INTEGER NOT NULL,
    duid      BLOB NOT NULL,
    hostname  TEXT,
    granted   INTEGER,
    ends      INTEGER,
    PRIMARY KEY (network, mac, iaid),
    UNIQUE (network, address)
) STRICT, WITHOUT ROWID;
CREATE TABLE server (
    duid      BLOB NOT NULL
) STRICT;
PRAGMA user_version = 2;
";

/// What was on disk.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    /// Each with its network.
    pub(crate) leases: Vec<(String, Row)>,
    pub(crate) leases6: Vec<(String, Row6)>,
    /// The server's DUID.
    pub(crate) duid: Vec<u8>,
}

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
    duid: Vec<u8>,
}

impl Database {
    /// Opens or makes the database and reads it. One that is corrupt is set aside. `duid` becomes the server's where none
    /// is stored.
    pub(super) fn open(path: &Path, duid: &[u8]) -> Result<(Database, Stored), OpenError> {
        let (connection, stored) = open_or_replace(path, duid)?;
        Ok((Database { path: path.to_owned(), connection: Some(connection), duid: stored.duid.clone() }, stored))
    }

    /// Makes the writes in one transaction; they are on disk when this returns `Ok`, and none is when it doesn't.
    pub(super) fn write<'a>(
        &mut self,
        writes: impl Iterator<Item = (&'a str, &'a Write)> + Clone,
    ) -> Result<(), WriteError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => open_or_replace(&self.path, &self.duid)?.0,
        };
        match transact(connection, writes.clone()) {
            Ok(connection) => {
                self.connection = Some(connection);
                Ok(())
            }
            // The leases that were in it come back as their clients renew.
            Err(cause) if is_corrupt(&cause) => {
                set_aside(&self.path, &cause.to_string())?;
                self.connection = Some(transact(open_or_replace(&self.path, &self.duid)?.0, writes)?);
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
                granted(row.granted),
                row.ends.map(|ends| i64::try_from(ends).unwrap_or(i64::MAX)),
            ])?,
        Write::Delete(mac) => transaction
            .prepare_cached("DELETE FROM leases WHERE network = ? AND mac = ?")?
            .execute(params![network, mac.to_string()])?,
        Write::Put6(row) => transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO leases6 (network, mac, iaid, address, prefix, duid, hostname, granted, ends)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                network,
                row.key.mac.to_string(),
                row.key.iaid,
                row.address.to_string(),
                row.prefix,
                row.duid,
                row.hostname,
                granted(row.granted),
                row.ends.map(|ends| i64::try_from(ends).unwrap_or(i64::MAX)),
            ])?,
        Write::Delete6(key) => transaction
            .prepare_cached("DELETE FROM leases6 WHERE network = ? AND mac = ? AND iaid = ?")?
            .execute(params![network, key.mac.to_string(), key.iaid])?,
        Write::DeleteAll => {
            transaction.prepare_cached("DELETE FROM leases WHERE network = ?")?.execute(params![network])?;
            transaction.prepare_cached("DELETE FROM leases6 WHERE network = ?")?.execute(params![network])?
        }
    };
    Ok(())
}

/// As it is stored.
fn granted(time: LeaseTime) -> Option<u32> {
    match time {
        LeaseTime::Seconds(seconds) => Some(seconds),
        LeaseTime::Infinite => None,
    }
}

/// As it was stored.
fn granted_from(seconds: Option<i64>) -> LeaseTime {
    seconds.map_or(LeaseTime::Infinite, |seconds| LeaseTime::Seconds(seconds.clamp(0, i64::from(u32::MAX)) as u32))
}

fn open_or_replace(path: &Path, duid: &[u8]) -> Result<(Connection, Stored), OpenError> {
    match open(path, duid) {
        Err(OpenError::Sqlite(cause)) if is_corrupt(&cause) => {
            set_aside(path, &cause.to_string())?;
            open(path, duid)
        }
        other => other,
    }
}

fn open(path: &Path, duid: &[u8]) -> Result<(Connection, Stored), OpenError> {
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
            connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA} {SCHEMA_6} COMMIT;")).map_err(name_busy)?;
            sync_directory(path)?;
        }
        1..=VERSION => {
            let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict != "ok" {
                return Err(OpenError::Sqlite(corrupt(verdict)));
            }
            if version < VERSION {
                connection.execute_batch(&format!("BEGIN IMMEDIATE; {SCHEMA_6} COMMIT;")).map_err(name_busy)?;
            }
        }
        newer => return Err(OpenError::Newer(newer)),
    }
    let stored =
        Stored { leases: read(&connection)?, leases6: read6(&connection)?, duid: own_duid(&connection, duid)? };
    Ok((connection, stored))
}

/// The server's DUID: the one that is stored, or else `new`, which is then.
fn own_duid(connection: &Connection, new: &[u8]) -> rusqlite::Result<Vec<u8>> {
    let stored = connection.query_row("SELECT duid FROM server", [], |row| row.get(0));
    match stored {
        Err(rusqlite::Error::QueryReturnedNoRows) => {
            connection.execute("INSERT INTO server (duid) VALUES (?)", params![new])?;
            Ok(new.to_vec())
        }
        other => other,
    }
}

fn read6(connection: &Connection) -> rusqlite::Result<Vec<(String, Row6)>> {
    let mut statement =
        connection.prepare("SELECT network, mac, iaid, address, prefix, duid, hostname, granted, ends FROM leases6")?;
    let mut cursor = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = cursor.next()? {
        let (network, mac, iaid): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let address: String = row.get(3)?;
        let parts = (mac.parse::<Mac>(), u32::try_from(iaid), address.parse::<Ipv6Addr>());
        let (Ok(mac), Ok(iaid), Ok(address)) = parts else {
            warn!("the lease of '{mac}' on network '{network}' with address '{address}' makes no sense; left out");
            continue;
        };
        let row = Row6 {
            key: Key { mac, iaid },
            address,
            prefix: row.get::<_, i64>(4)?.clamp(0, 128) as u8,
            duid: row.get(5)?,
            hostname: row.get(6)?,
            granted: granted_from(row.get(7)?),
            ends: row.get::<_, Option<i64>>(8)?.map(|ends| u64::try_from(ends).unwrap_or(0)),
        };
        rows.push((network, row));
    }
    Ok(rows)
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
        let ends: Option<i64> = row.get(7)?;
        rows.push((
            network,
            Row {
                mac,
                address,
                prefix: row.get::<_, i64>(3)?.clamp(0, 32) as u8,
                hostname: row.get(4)?,
                client_id: row.get(5)?,
                granted: granted_from(row.get(6)?),
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
