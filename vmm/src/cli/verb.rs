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
    /// Limit what a NIC receives and sends in a second; what is not given is not limited.
    LimitNic {
        /// The NIC's address.
        mac: String,
        /// Bytes; 10M is 10 MiB.
        #[arg(long, value_parser = rate)]
        receive_bytes: Option<u64>,
        #[arg(long, value_parser = rate)]
        receive_frames: Option<u64>,
        #[arg(long, value_parser = rate)]
        send_bytes: Option<u64>,
        #[arg(long, value_parser = rate)]
        send_frames: Option<u64>,
    },
    /// Show its disks with their counters.
    Disks,
    /// Limit what a disk reads and writes in a second; what is not given is not limited.
    LimitDisk {
        /// The disk's number, from 0.
        number: u64,
        /// Bytes; 10M is 10 MiB.
        #[arg(long, value_parser = rate)]
        bytes: Option<u64>,
        /// Requests.
        #[arg(long, value_parser = rate)]
        operations: Option<u64>,
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
            Verb::LimitNic { mac, receive_bytes, receive_frames, send_bytes, send_frames } => {
                let receive = json!({ "bytes": receive_bytes, "operations": receive_frames });
                let send = json!({ "bytes": send_bytes, "operations": send_frames });
                ("SetNicLimits", json!({ "mac": mac, "receive": receive, "send": send }))
            }
            Verb::Disks => ("GetDisks", json!({})),
            Verb::LimitDisk { number, bytes, operations } => {
                let limits = json!({ "bytes": bytes, "operations": operations });
                ("SetDiskLimits", json!({ "number": number, "limits": limits }))
            }
            Verb::Events => ("Monitor", json!({})),
        })
    }
}

/// A number, in binary units if one follows.
fn rate(word: &str) -> Result<u64, String> {
    let digits = word.trim_end_matches(['K', 'M', 'G']);
    let shift = match &word[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => 64,
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1_u64.checked_shl(shift)?));
    number.ok_or_else(|| format!("'{word}' is not a number: write 1000, 10K, 10M or 1G"))
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
