//! What the servers of one network share: the engine with its leases, and the names that follow from them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{dns::Names, engine::Engine, moment::Moment};

/// One network, served or not.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: Arc<str>,
    engine: Mutex<Engine>,
    names: watch::Sender<Arc<Names>>,
    changes: watch::Sender<()>,
}

impl Network {
    /// A network that tells `changes` whenever an address may be another's.
    pub(crate) fn new(name: &str, engine: Engine, changes: watch::Sender<()>) -> Self {
        let names = watch::Sender::new(Arc::default());
        Network { name: name.into(), engine: Mutex::new(engine), names, changes }
    }

    /// The engine, for the length of one decision: never held over an await.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        // An engine whose last decision panicked has the state before it, or after it: changes are small and whole.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells DNS the names, if they have changed, and everyone else that leases may have.
    pub(crate) fn publish(&self, now: Moment) {
        if let Some(names) = self.engine().take_names(now) {
            self.names.send_if_modified(|known| {
                let changed = **known != names;
                *known = Arc::new(names);
                changed
            });
            self.changes.send_replace(());
        }
    }

    /// Where DNS learns the names.
    pub(crate) fn names(&self) -> watch::Receiver<Arc<Names>> {
        self.names.subscribe()
    }
}
