//! EDGE: the MSI-X table joined to the machine's router: raising a vector writes its irqfd (an event descriptor), or
//! sets its pending bit.
//!
//! A line is asked from the router when its vector is first unmasked, and routed again only when its message changed:
//! changing a route stalls every vCPU, masking and unmasking happens often. A line stays routed while its vector is
//! masked, since nobody writes to it then.

use std::sync::{Arc, Mutex};

use super::table::MsixTable;
use super::{MsiMessage, MsiRoutes, MsiVector};
use crate::pci::lock;

/// The vectors of one function. Workers raise, vCPUs program; both lock for a few instructions.
pub(crate) struct MsixVectors {
    routes: Arc<dyn MsiRoutes>,
    state: Mutex<State>,
}

struct State {
    table: MsixTable,
    lines: Vec<Option<Line>>,
}

struct Line {
    vector: MsiVector,
    routed: Option<MsiMessage>,
}

impl MsixVectors {
    pub(crate) fn new(vectors: usize, routes: Arc<dyn MsiRoutes>) -> Self {
        let lines = (0..vectors).map(|_| None).collect();
        Self { routes, state: Mutex::new(State { table: MsixTable::new(vectors), lines }) }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.state).table.len()
    }

    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        lock(&self.state).table.read(offset, data);
    }

    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        lock(&self.state).table.read_pending(offset, data);
    }

    /// A guest write to the table; what it unmasks and was pending is delivered.
    pub(crate) fn write_table(&self, offset: u64, data: &[u8]) {
        let mut state = lock(&self.state);
        state.table.write(offset, data);
        let first = usize::try_from(offset).unwrap_or(usize::MAX) / super::ENTRY_SIZE;
        let last = usize::try_from(offset).unwrap_or(usize::MAX).saturating_add(data.len()) / super::ENTRY_SIZE;
        for vector in first..=last.min(first.saturating_add(1)) {
            state.update(vector, &*self.routes);
        }
    }

    /// A guest write to the control register; what it unmasks and was pending is delivered.
    pub(crate) fn set_control(&self, control: u16) {
        let mut state = lock(&self.state);
        state.table.set_control(control);
        for vector in 0..state.table.len() {
            state.update(vector, &*self.routes);
        }
    }

    /// Sends the vector's interrupt, or keeps it pending while masked; a vector that is not there is no interrupt.
    /// False, and nothing done, if MSI-X is off.
    pub(crate) fn raise(&self, vector: u16) -> bool {
        let mut state = lock(&self.state);
        let on = state.table.enabled();
        if on {
            state.table.set_pending(usize::from(vector), true);
            state.update(usize::from(vector), &*self.routes);
        }
        on
    }

    /// Back to power-on: everything masked and routed nowhere.
    pub(crate) fn reset(&self) {
        let mut state = lock(&self.state);
        state.table = MsixTable::new(state.table.len());
        for line in state.lines.iter_mut().flatten() {
            if line.routed.take().is_some()
                && let Err(error) = self.routes.route(line.vector.gsi, None)
            {
                tracing::warn!(gsi = line.vector.gsi, %error, "cannot take back an interrupt route");
            }
        }
    }
}

impl State {
    /// Makes the router agree with the table about one vector, and delivers it if it is pending and may be.
    fn update(&mut self, vector: usize, routes: &dyn MsiRoutes) {
        let (Some(message), Some(line)) = (self.table.deliverable(vector), self.lines.get_mut(vector)) else { return };
        let line = match line {
            Some(line) => line,
            None => match routes.vector() {
                Ok(fresh) => line.insert(Line { vector: fresh, routed: None }),
                Err(error) => return tracing::error!(vector, %error, "no interrupt line to be had; it stays pending"),
            },
        };
        if line.routed != Some(message) {
            if let Err(error) = routes.route(line.vector.gsi, Some(message)) {
                return tracing::error!(vector, ?message, %error, "cannot route an interrupt; it stays pending");
            }
            line.routed = Some(message);
        }
        if self.table.is_pending(vector) {
            self.table.set_pending(vector, false);
            // Fails only with a full counter: then the interrupt is already on its way.
            let _ = line.vector.fd.write(1);
        }
    }
}
