//! What the servers of one network share: the engine with its leases, the names that follow from them, and who is told
//! of changes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::{dns::Names, engine::Engine, moment::Moment, stats::Stats, v6, watch::LeaseWatch};

/// One network, served or not.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: Arc<str>,
    engine: Mutex<Engine>,
    /// Never locked by who holds the other engine; the other way round is fine.
    engine6: Mutex<v6::engine::Engine>,
    /// There is something to do for IPv6 that neither a frame nor the time tells of.
    pub(crate) wake6: Notify,
    /// What IPv4's leases and IPv6's were last known by.
    parts: Mutex<[Names; 2]>,
    names: watch::Sender<Arc<Names>>,
    /// What its servers have done.
    pub(crate) stats: Arc<Stats>,
    watch: Option<Arc<dyn LeaseWatch>>,
    /// Held from reading what changed until it was told, so that changes are told in their order.
    telling: tokio::sync::Mutex<()>,
}

impl Network {
    /// A network of whose leases `watch` hears.
    pub(crate) fn new(
        name: &str,
        engine: Engine,
        engine6: v6::engine::Engine,
        watch: Option<Arc<dyn LeaseWatch>>,
    ) -> Self {
        Network {
            name: name.into(),
            engine: Mutex::new(engine),
            engine6: Mutex::new(engine6),
            wake6: Notify::new(),
            parts: Mutex::default(),
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

    /// The engine of IPv6, likewise.
    pub(crate) fn engine6(&self) -> MutexGuard<'_, v6::engine::Engine> {
        self.engine6.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells DNS the names, if they have changed.
    pub(crate) fn publish(&self, now: Moment) {
        let names = self.engine().take_names(now);
        let elsewhere = |name: &str| self.engine().name_holder(name, now);
        let names6 = self.engine6().take_names(now, names.is_some(), &elsewhere);
        if names.is_none() && names6.is_none() {
            return;
        }
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let [part, part6] = &mut *parts;
        names.into_iter().for_each(|names| *part = names);
        names6.into_iter().for_each(|names| *part6 = names);
        let names = Names { records: part.records.iter().chain(&part6.records).cloned().collect() };
        self.names.send_if_modified(|known| {
            let changed = **known != names;
            *known = Arc::new(names);
            changed
        });
    }

    /// Tells whoever watches the leases what has happened, if anything has, and waits until that is taken note of.
    pub(crate) async fn tell(&self, now: Moment) {
        let _telling = self.telling.lock().await;
        let mut changes = self.engine().take_changes(now);
        changes.extend(self.engine6().take_changes(now));
        if let Some(watch) = self.watch.as_ref().filter(|_| !changes.is_empty()) {
            watch.changed(&self.name, &changes).await;
        }
    }

    /// Where DNS learns the names.
    pub(crate) fn names(&self) -> watch::Receiver<Arc<Names>> {
        self.names.subscribe()
    }
}
