//! EDGE: `vmm control`: what can be said to a running guest; prints what it answers.

use std::{
    io::{Write, stdout},
    path::Path,
    process::ExitCode,
};

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    config::{ConfigError, MemorySize},
    control::client,
};

/// What to say.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show name, state, CPUs, memory and process.
    State,
    /// Let its CPUs stand still.
    Pause,
    /// Let them run on.
    Resume,
    /// Press its power button.
    PowerButton,
    /// Start it over.
    Reset,
    /// End it at once.
    Quit,
    /// Show how much memory it has and how it uses it, or set how much it is to use.
    Memory {
        /// 512M, 2G; a bare number is MiB.
        size: Option<String>,
    },
    /// Show its NICs with their counters.
    Nics,
    /// Plug the cable of a NIC in, or pull it.
    Link {
        /// The NIC's address.
        mac: String,
        /// up or down.
        state: Link,
    },
    /// Print events, one a line, until the guest ends.
    Events,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Link {
    Up,
    Down,
}

impl Verb {
    fn method(self) -> Result<(&'static str, Value), ConfigError> {
        Ok(match self {
            Verb::State => ("GetState", json!({})),
            Verb::Pause => ("Pause", json!({})),
            Verb::Resume => ("Resume", json!({})),
            Verb::PowerButton => ("PowerButton", json!({})),
            Verb::Reset => ("Reset", json!({})),
            Verb::Quit => ("Quit", json!({})),
            Verb::Memory { size: None } => ("GetMemory", json!({})),
            Verb::Memory { size: Some(size) } => ("SetMemory", json!({ "bytes": size.parse::<MemorySize>()?.bytes() })),
            Verb::Nics => ("GetNics", json!({})),
            Verb::Link { mac, state } => ("SetLink", json!({ "mac": mac, "up": state == Link::Up })),
            Verb::Events => ("Monitor", json!({})),
        })
    }
}

/// Says it and prints the answer.
pub(super) fn carry_out(socket: &Path, verb: Verb) -> anyhow::Result<ExitCode> {
    let watching = matches!(verb, Verb::Events);
    let (method, parameters) = verb.method()?;
    client::call(socket, method, &parameters, watching, |reply| {
        let mut out = stdout().lock();
        match reply.as_object() {
            // The first reply to Monitor only says that it listens.
            _ if watching && reply["event"].is_null() && reply["missed"] == 0 => Ok(()),
            _ if watching => writeln!(out, "{reply}"),
            Some(values) if values.is_empty() => Ok(()),
            _ => writeln!(out, "{reply:#}"),
        }?;
        out.flush()
    })?;
    Ok(ExitCode::SUCCESS)
}
