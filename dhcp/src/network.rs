//! What the servers of one network share: the engine with its leases, the names that follow from them, and who is told
//! of changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{dns::Names, engine::Engine, moment::Moment, stats::Stats, watch::LeaseWatch};

/// One network, served or not.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: Arc<str>,
    engine: Mutex<Engine>,
    names: watch::Sender<Arc<Names>>,
    /// What its servers have done.
    pub(crate) stats: Arc<Stats>,
    watch: Option<Arc<dyn LeaseWatch>>,
    /// Held from reading what changed until it was told, so that changes are told in their order.
    telling: tokio::sync::Mutex<()>,
}

impl Network {
    /// A network of whose leases `watch` hears.
    pub(crate) fn new(name: &str, engine: Engine, watch: Option<Arc<dyn LeaseWatch>>) -> Self {
        Network {
            name: name.into(),
            engine: Mutex::new(engine),
            names: watch::Sender::default(),
            stats: Arc::default(),
            watch,
            telling: tokio::sync::Mutex::default(),
        }
    }

    /// The engine, for the length of one decision: never held over an await.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        // An engine whose last decision panicked has the state before it, or after it: changes are small and whole.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells DNS the names, if they have changed.
    pub(crate) fn publish(&self, now: Moment) {
        if let Some(names) = self.engine().take_names(now) {
            self.names.send_if_modified(|known| {
                let changed = **known != names;
                *known = Arc::new(names);
                changed
            });
        }
    }

    /// Tells whoever watches the leases what has happened, if anything has, and waits until that is taken note of.
    pub(crate) async fn tell(&self, now: Moment) {
        let _telling = self.telling.lock().await;
        let changes = self.engine().take_changes(now);
        if let Some(watch) = self.watch.as_ref().filter(|_| !changes.is_empty()) {
            watch.changed(&self.name, &changes).await;
        }
    }

    /// Where DNS learns the names.
    pub(crate) fn names(&self) -> watch::Receiver<Arc<Names>> {
        self.names.subscribe()
    }
}
