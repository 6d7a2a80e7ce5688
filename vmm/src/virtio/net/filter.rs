//! Which received frames the driver wants (virtio 1.2 §5.1.6.5.1, §5.1.6.5.2), by their destination address.
//!
//! Pure. Until the driver says what it wants it gets everything: firmware and simple drivers never say.

/// Addresses of one kind that are kept; a driver that names more gets all frames of the kind and filters itself.
pub(super) const MOST: usize = 64;

/// An Ethernet address.
pub(super) type Address = [u8; 6];

/// What the driver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    mac: Address,
    pub(super) promiscuous: bool,
    pub(super) all_multicast: bool,
    pub(super) all_unicast: bool,
    pub(super) no_multicast: bool,
    pub(super) no_unicast: bool,
    pub(super) no_broadcast: bool,
    unicast: Table,
    multicast: Table,
}

/// A table of addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Table {
    addresses: Vec<Address>,
    /// There were more than are kept.
    overflow: bool,
}

impl Table {
    /// The addresses, at most [`MOST`] of them.
    pub(super) fn new(addresses: impl ExactSizeIterator<Item = Address>) -> Self {
        if addresses.len() > MOST {
            Self::everything()
        } else {
            Self { addresses: addresses.collect(), overflow: false }
        }
    }

    /// Too many to keep.
    pub(super) fn everything() -> Self {
        Self { addresses: Vec::new(), overflow: true }
    }

    fn has(&self, address: Address) -> bool {
        self.overflow || self.addresses.contains(&address)
    }
}

impl Filter {
    /// A NIC after power-on.
    pub(super) fn new(mac: Address) -> Self {
        Self {
            mac,
            promiscuous: true,
            all_multicast: false,
            all_unicast: false,
            no_multicast: false,
            no_unicast: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
        }
    }

    pub(super) fn set_mac(&mut self, mac: Address) {
        self.mac = mac;
    }

    pub(super) fn set_tables(&mut self, unicast: Table, multicast: Table) {
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    /// Whether it lets everything through, so that nobody need look.
    pub(super) fn is_open(&self) -> bool {
        self.promiscuous
    }

    /// Whether a frame to this address is wanted.
    pub(super) fn accepts(&self, to: Address) -> bool {
        const BROADCAST: Address = [0xff; 6];
        let [first, ..] = to;
        if self.promiscuous {
            true
        } else if to == BROADCAST {
            !self.no_broadcast
        } else if first & 1 == 1 {
            !self.no_multicast && (self.all_multicast || self.multicast.has(to))
        } else {
            !self.no_unicast && (self.all_unicast || to == self.mac || self.unicast.has(to))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Address = [0x52, 0x54, 0, 1, 2, 3];
    const OTHER: Address = [0x52, 0x54, 0, 9, 9, 9];
    const GROUP: Address = [0x33, 0x33, 0, 0, 0, 1];
    const ALL: Address = [0xff; 6];

    fn wanted(filter: &Filter) -> [bool; 4] {
        [MINE, OTHER, GROUP, ALL].map(|to| filter.accepts(to))
    }

    #[test]
    fn everything_is_wanted_until_the_driver_speaks_and_then_what_it_names() {
        let mut filter = Filter::new(MINE);
        assert_eq!(wanted(&filter), [true; 4]);
        filter.promiscuous = false;
        assert_eq!(wanted(&filter), [true, false, false, true]);
        filter.set_tables(Table::new([OTHER].into_iter()), Table::new([GROUP].into_iter()));
        assert_eq!(wanted(&filter), [true; 4]);
        filter.set_tables(Table::default(), Table::new([MINE; MOST + 1].into_iter()));
        assert_eq!(wanted(&filter), [true, false, true, true], "more groups than are kept: all of them");
        filter.set_mac(OTHER);
        assert_eq!(wanted(&filter), [false, true, true, true]);
    }

    #[test]
    fn modes_of_one_kind_say_nothing_about_the_others() {
        let base = Filter { promiscuous: false, ..Filter::new(MINE) };
        assert_eq!(wanted(&Filter { all_multicast: true, ..base.clone() }), [true, false, true, true]);
        assert_eq!(wanted(&Filter { all_unicast: true, ..base.clone() }), [true, true, false, true]);
        assert_eq!(wanted(&Filter { no_unicast: true, ..base.clone() }), [false, false, false, true]);
        assert_eq!(wanted(&Filter { no_broadcast: true, ..base.clone() }), [true, false, false, false]);
        let none = Filter { no_multicast: true, all_multicast: true, ..base };
        assert_eq!(wanted(&none), [true, false, false, true]);
    }
}
