//! EDGE: the table `inet netd` in the kernel, of which one network or forward is changed by netlink.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use crate::{
    apply::{self, Error, check, check_name},
    compile,
    forwards::{Forward, Others},
    intent::Network,
    ruleset::{self, Transaction},
    socket::Socket,
};

/// A way to the table for which nothing is read that is in it already: a netlink socket, in the network namespace it was
/// opened in. The kernel still looks through the table for loops of chains, once for each change.
///
/// Where the kernel refuses a change, because there is no table yet or for any other reason, `nft` is given the whole of
/// it: it makes what all networks stand on, and it has the words for what is wrong.
#[derive(Debug)]
pub struct Table(Mutex<Socket>);

impl Table {
    /// Opens the socket. The program `nft` must find itself in the same network namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Table(Mutex::new(Socket::open()?)))
    }

    /// Makes this network's rules, and the table if it is the first. Adding twice changes nothing.
    pub async fn add(&self, network: &Network) -> Result<(), Error> {
        check(network)?;
        self.run(&ruleset::add(network)).await
    }

    /// Takes this network's rules away. Fine if they were not there.
    pub async fn remove(&self, network: &Network) -> Result<(), Error> {
        check(network)?;
        self.run(&ruleset::remove(network)).await
    }

    /// Puts this network's rules in the place of what it had, and the forwards `after` in the place of those `before`,
    /// which must be all that the table has: all in one transaction.
    pub async fn change(&self, network: &Network, before: &[Forward], after: &[Forward]) -> Result<(), Error> {
        check(network)?;
        after.iter().try_for_each(|forward| check_name(&forward.bridge))?;
        self.run(&ruleset::change(network, before, after)).await
    }

    /// Puts the forwards `after` of some networks in the place of those `before`, which must be exactly what the table has
    /// of them: if they are not this fails, and [`crate::replace`] helps. It has `others` of other networks.
    pub async fn change_forwards(&self, before: &[Forward], after: &[Forward], others: Others) -> Result<(), Error> {
        after.iter().try_for_each(|forward| check_name(&forward.bridge))?;
        let transaction = ruleset::change_forwards(before, after, others);
        if transaction.is_empty() { Ok(()) } else { self.run(&transaction).await }
    }

    async fn run(&self, transaction: &Transaction<'_>) -> Result<(), Error> {
        match self.natively(transaction) {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => tracing::debug!("the kernel refused a change of the table: {error}; asking nft"),
            None => {}
        }
        apply::run(transaction).await
    }

    /// By netlink; `None` if that is not for this transaction.
    fn natively(&self, transaction: &Transaction<'_>) -> Option<io::Result<()>> {
        let batch = if transaction.moves_base() { None } else { compile::batch(transaction.commands()) }?;
        // A panic while the socket was held leaves nothing on it that the next one does not throw away.
        Some(self.0.lock().unwrap_or_else(PoisonError::into_inner).change(batch))
    }
}

#[cfg(test)]
mod tests;
