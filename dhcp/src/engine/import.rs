//! Leases that another DHCP server made, brought along when a network moves to this one: which are taken.

use super::{Engine, Submission, UNKNOWN_PREFIX};
use crate::{
    config::LeaseTime,
    leases::{Change, Holder},
    moment::Moment,
    row::{Row, Write},
};

impl Engine {
    /// The changes that take leases in: those that neither are over nor are in the way of a lease that is here. To be
    /// made durable and settled as any others.
    pub(crate) fn import(&mut self, rows: Vec<Row>, now: Moment) -> (Submission, Vec<Write>) {
        let mut chosen: Vec<Row> = Vec::new();
        for row in rows {
            let left = row.ends.map(|ends| ends.saturating_sub(now.wall.as_secs()));
            // How long it was granted for nobody says: what is left counts as that.
            let granted = match left {
                Some(0) => continue,
                Some(left) => LeaseTime::Seconds(u32::try_from(left).unwrap_or(u32::MAX - 1)),
                None => LeaseTime::Infinite,
            };
            let twice = chosen.iter().any(|other| other.mac == row.mac || other.address == row.address);
            if !twice && self.has_room_for(&row, now) {
                chosen.push(Row { granted, ..row });
            }
        }
        if self.policy.is_none()
            && self.prefix == UNKNOWN_PREFIX
            && let Some(row) = chosen.first()
        {
            self.prefix = row.prefix;
        }
        let changes = chosen.into_iter().map(|row| Change::Bind(row.into_binding(now))).collect();
        self.submit(Submission { ticket: 0, changes, reply: None, about: None }, Some(now))
    }

    fn has_room_for(&self, row: &Row, now: Moment) -> bool {
        let inside = self.policy.as_ref().is_none_or(|policy| policy.subnet().contains(&row.address));
        let free = match self.table.holder(row.address, now.boot) {
            Holder::Nobody | Holder::Remembered(..) => true,
            Holder::Offered(mac, _) | Holder::Leased(mac) => mac == row.mac,
            Holder::Quarantined(_) => false,
        };
        let elsewhere = self
            .table
            .binding(row.mac)
            .is_some_and(|binding| binding.is_live(now.boot) && binding.address != row.address);
        inside && free && !elsewhere
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Mac;

    const NOW: Moment = Moment { boot: Duration::from_secs(50), wall: Duration::from_secs(1_000) };

    fn row(mac: u8, last: u8, ends: Option<u64>) -> Row {
        Row {
            mac: Mac([2, 0, 0, 0, 0, mac]),
            address: [10, 0, 0, last].into(),
            prefix: 24,
            hostname: Some(format!("guest{mac}")),
            client_id: None,
            granted: LeaseTime::Infinite,
            ends,
        }
    }

    fn import(engine: &mut Engine, rows: Vec<Row>) -> Vec<(u8, u8, Option<u64>, u8)> {
        let (submission, _) = engine.import(rows, NOW);
        engine.settle(submission, true);
        let rows = engine.leases(NOW).into_iter();
        rows.map(|row| (row.mac.0[5], row.address.octets()[3], row.ends, row.prefix)).collect()
    }

    #[test]
    fn leases_are_taken_with_their_ends_and_those_that_are_over_are_not() {
        let mut engine = Engine::new([], NOW);
        let taken = import(&mut engine, vec![row(1, 5, Some(1_600)), row(2, 6, None), row(3, 7, Some(1_000))]);
        assert_eq!(taken, [(1, 5, Some(1_600), 24), (2, 6, None, 24)]);
    }

    #[test]
    fn what_is_here_already_wins_and_a_later_end_of_the_same_lease_is_taken() {
        let mut engine = Engine::new([], NOW);
        import(&mut engine, vec![row(1, 5, Some(1_600)), row(2, 6, Some(1_600))]);
        let again =
            vec![row(1, 9, Some(9_000)), row(3, 6, Some(9_000)), row(2, 6, Some(9_000)), row(4, 6, Some(9_000))];
        assert_eq!(import(&mut engine, again), [(1, 5, Some(1_600), 24), (2, 6, Some(9_000), 24)]);
    }

    #[test]
    fn what_the_disk_refuses_is_not_here() {
        let mut engine = Engine::new([], NOW);
        let (submission, writes) = engine.import(vec![row(1, 5, None)], NOW);
        assert_eq!(writes.len(), 1);
        engine.settle(submission, false);
        assert!(engine.leases(NOW).is_empty());
    }
}
