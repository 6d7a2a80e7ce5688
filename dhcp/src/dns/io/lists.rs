//! EDGE: the files that list resolvers, read again whenever they change.
//!
//! What is watched is the directory, and the file while it is there: the file may be missing, be replaced, or be a link into a directory that does not
//! exist yet, and none of this is fatal. All networks that follow the same files share one watch (the kernel gives
//! a user only 128 of them).

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::StreamExt;
use inotify::{EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use nix::libc;
use tokio::{
    fs::OpenOptions,
    io::AsyncReadExt,
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};

use crate::dns::upstream::{self, Nameserver};

/// More of a file is not read, in octets.
const LONGEST_FILE: u64 = 1 << 16;

/// Writers replace a file in several steps: changes this close together are one.
const SETTLE: Duration = Duration::from_millis(20);

/// How often files are read where the kernel has no watch left for us.
const POLL: Duration = Duration::from_secs(5);

/// As many links in a row as the kernel follows.
const LINKS: usize = 40;

/// What the files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    /// The host's resolv.conf.
    pub(super) listed: Vec<Nameserver>,
    /// What systemd-resolved asks itself.
    pub(super) behind_stub: Vec<Nameserver>,
}

/// One network's view of the files.
#[derive(Debug)]
pub(super) struct Follower {
    lists: watch::Receiver<Arc<Lists>>,
    /// Keeps the watch going.
    _shared: Arc<Shared>,
}

/// The watch on one pair of files; it ends with the last follower.
#[derive(Debug)]
struct Shared {
    lists: watch::Receiver<Arc<Lists>>,
    task: AbortHandle,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Files = [PathBuf; 2];

/// The watches that are going on in this process.
static WATCHES: Mutex<Vec<(Files, Weak<Shared>)>> = Mutex::new(Vec::new());

impl Follower {
    /// Follows a resolv.conf and systemd-resolved's own list.
    pub(super) async fn new(resolv_conf: &Path, behind_stub: &Path) -> Follower {
        let files = [resolv_conf.to_owned(), behind_stub.to_owned()];
        let first = Arc::new(read_all(&files).await);
        let mut watches = WATCHES.lock().unwrap_or_else(PoisonError::into_inner);
        watches.retain(|(_, shared)| shared.strong_count() > 0);
        let known = watches.iter().filter(|(of, _)| *of == files).find_map(|(_, shared)| shared.upgrade());
        // A watch whose runtime has gone is dead: its sender is closed.
        let shared = known.filter(|shared| shared.lists.has_changed().is_ok()).unwrap_or_else(|| {
            let (sender, lists) = watch::channel(first);
            let task = tokio::spawn(follow(files.clone(), sender)).abort_handle();
            let shared = Arc::new(Shared { lists, task });
            watches.push((files, Arc::downgrade(&shared)));
            shared
        });
        Follower { lists: shared.lists.clone(), _shared: shared }
    }

    /// What the files say now.
    pub(super) fn lists(&self) -> Arc<Lists> {
        self.lists.borrow().clone()
    }

    /// Waits until they say something else. `false` when they will not any more.
    pub(super) async fn changed(&mut self) -> bool {
        self.lists.changed().await.is_ok()
    }
}

async fn follow(files: Files, lists: watch::Sender<Arc<Lists>>) {
    let mut watcher = Watcher::new().inspect_err(|error| {
        tracing::warn!(%error, "no inotify watch for {}: it is read every {POLL:?}", files[0].display());
    });
    loop {
        if let Ok(watcher) = &mut watcher {
            watcher.aim(&files);
        }
        // Read after aiming: a change from now on is an event.
        let fresh = read_all(&files).await;
        lists.send_if_modified(|known| {
            let changed = **known != fresh;
            if changed {
                *known = Arc::new(fresh);
            }
            changed
        });
        match &mut watcher {
            Ok(watcher) => watcher.wait().await,
            Err(_) => sleep(POLL).await,
        }
    }
}

async fn read_all(files: &Files) -> Lists {
    Lists { listed: read(&files[0]).await, behind_stub: read(&files[1]).await }
}

/// A file that can't be read lists nobody.
async fn read(file: &Path) -> Vec<Nameserver> {
    let text = async {
        // Not blocking: whoever puts a pipe there shall not stop us.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file).await?;
        let mut text = Vec::new();
        file.take(LONGEST_FILE).read_to_end(&mut text).await?;
        io::Result::Ok(text)
    };
    match text.await {
        Ok(text) => upstream::parse(&String::from_utf8_lossy(&text)),
        Err(error) => {
            tracing::debug!(%error, "can't read {}", file.display());
            Vec::new()
        }
    }
}

/// An inotify instance and what it is looking at.
struct Watcher {
    events: EventStream<[u8; 4096]>,
    /// By directory, with the names in it that matter; and the files themselves.
    watched: HashMap<PathBuf, (WatchDescriptor, Vec<OsString>)>,
}

impl Watcher {
    fn new() -> io::Result<Watcher> {
        let events = Inotify::init()?.into_event_stream([0; 4096])?;
        Ok(Watcher { events, watched: HashMap::new() })
    }

    /// Watches the files and the directories that matter for them as things are now, and no others.
    fn aim(&mut self, files: &Files) {
        let mut wanted: HashMap<PathBuf, Vec<OsString>> = HashMap::new();
        for (directory, name) in files.iter().flat_map(|file| places(file)) {
            wanted.entry(directory).or_default().push(name);
        }
        let mut watches = self.events.watches();
        let mut kept = HashMap::new();
        for (directory, names) in wanted {
            let mask = WatchMask::CREATE
                | WatchMask::CLOSE_WRITE
                | WatchMask::MODIFY
                | WatchMask::MOVE
                | WatchMask::DELETE
                | WatchMask::DELETE_SELF
                | WatchMask::MOVE_SELF
                | WatchMask::ONLYDIR;
            // Adding one that is there is a change of nothing; one that is gone shows in the next look.
            match watches.add(&directory, mask) {
                Ok(descriptor) => drop(kept.insert(directory, (descriptor, names))),
                Err(error) => tracing::debug!(%error, "can't watch {}", directory.display()),
            }
        }
        // A file that is mounted in its place, as containers have it, is changed in a directory nobody sees from here.
        for file in files {
            match watches.add(file, WatchMask::CLOSE_WRITE | WatchMask::MODIFY) {
                Ok(descriptor) => drop(kept.insert(file.clone(), (descriptor, Vec::new()))),
                Err(error) => tracing::debug!(%error, "can't watch {}", file.display()),
            }
        }
        for (_, (descriptor, _)) in self.watched.drain() {
            if !kept.values().any(|(still, _)| *still == descriptor) {
                // Gone already where the directory is.
                let _ = watches.remove(descriptor);
            }
        }
        self.watched = kept;
    }

    /// Waits for a change that matters, and for things to settle.
    async fn wait(&mut self) {
        loop {
            match self.events.next().await {
                Some(Ok(event)) if !self.matters(&event) => {}
                Some(Ok(_)) => break,
                Some(Err(_)) | None => return sleep(POLL).await,
            }
        }
        while timeout(SETTLE, self.events.next()).await.is_ok_and(|event| matches!(event, Some(Ok(_)))) {}
    }

    fn matters(&self, event: &EventOwned) -> bool {
        let Some(name) = &event.name else { return true };
        self.watched.values().any(|(descriptor, names)| *descriptor == event.wd && names.contains(name))
    }
}

/// Where a change would show: for the file and every link on the way to it, its directory, or the nearest one above
/// that exists, and the name to look for there.
fn places(file: &Path) -> Vec<(PathBuf, OsString)> {
    let mut places = Vec::new();
    let mut file = file.to_owned();
    for _ in 0..LINKS {
        let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { break };
        let (mut there, mut look_for) = (directory, name);
        while !there.is_dir()
            && let (Some(above), Some(missing)) = (there.parent(), last_component(there))
        {
            (there, look_for) = (above, missing);
        }
        let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
        places.push((there.to_owned(), look_for.to_owned()));
        match std::fs::read_link(&file) {
            Ok(target) => file = directory.join(target),
            Err(_) => break,
        }
    }
    places
}

/// The last component, `..` included.
fn last_component(path: &Path) -> Option<&OsStr> {
    path.components().next_back().map(|component| component.as_os_str())
}
