//! EDGE: waiting for something outside this process, with an end to it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long anything here may take in a namespace on a busy machine. A test that fails waits this long, one that
/// passes does not.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks every few milliseconds until there is an answer.
pub fn until<T>(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().with_context(|| format!("waiting until {what}"))? {
            return Ok(answer);
        }
        if begun.elapsed() > patience {
            bail!("waited {} s in vain until {what}", patience.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The same for a condition.
pub fn until_true(what: &str, patience: Duration, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, patience, || Ok(ask()?.then_some(())))
}
