//! Hooks in libvirt's calling convention: the user's programs that are told of networks and ports, and may refuse.
//!
//! ```text
//! CONFIG/hooks/network, then CONFIG/hooks/network.d/* by name:   NAME OPERATION begin|end -   <hookData> on stdin
//!
//! start ──► (network is made) ──► started … port-created, port-deleted, updated … (network is taken down) ──► stopped
//! ```
//!
//! `start`, `started` and `port-created` that fail undo what they were called about. The others are told after the fact.
//! Here is what is said to them and what their failure means; `run` runs them.

mod run;

#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

pub use run::Hooks;

use crate::{model::MacAddr, xml::escape};

/// What a hook is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A network is about to be made.
    Start,
    /// It is there.
    Started,
    /// It is gone.
    Stopped,
    /// A guest is about to be plugged in.
    PortCreated,
    /// It is gone.
    PortDeleted,
    /// A network was changed while active.
    Updated,
}

impl Operation {
    /// The second argument.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Start => "start",
            Operation::Started => "started",
            Operation::Stopped => "stopped",
            Operation::PortCreated => "port-created",
            Operation::PortDeleted => "port-deleted",
            Operation::Updated => "updated",
        }
    }

    /// The third argument.
    pub fn sub_operation(self) -> &'static str {
        match self {
            Operation::Stopped => "end",
            _ => "begin",
        }
    }
}

/// A port as hooks see it.
#[derive(Clone, Copy, Debug)]
pub struct HookPort<'a> {
    /// The guest's name.
    pub guest: Option<&'a str>,
    /// The MAC of the guest's side.
    pub mac: MacAddr,
    /// What it is on.
    pub plug: HookPlug<'a>,
}

/// What a port is on, as `<plug>` has it.
#[derive(Clone, Copy, Debug)]
pub enum HookPlug<'a> {
    /// A network's own bridge.
    Network(&'a str),
    /// A bridge of the host.
    Bridge(&'a str),
    /// An interface of the host, by macvtap.
    Direct {
        /// The interface.
        dev: &'a str,
        /// The mode of the macvtap.
        mode: &'static str,
    },
}

impl fmt::Display for HookPlug<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HookPlug::Network(bridge) => write!(f, "type='network' bridge='{}'", escape(bridge)),
            HookPlug::Bridge(bridge) => write!(f, "type='bridge' bridge='{}'", escape(bridge)),
            HookPlug::Direct { dev, mode } => write!(f, "type='direct' dev='{}' mode='{mode}'", escape(dev)),
        }
    }
}

/// What a hook reads: the network's XML, and the port's where it is about one.
pub fn input(network: &str, port: Option<HookPort<'_>>) -> String {
    let port = port.map(|port| {
        let owner = port.guest.map(|guest| format!("  <owner>\n    <name>{}</name>\n  </owner>\n", escape(guest)));
        format!(
            "<networkport>\n{}  <mac address='{}'/>\n  <plug {}/>\n</networkport>\n",
            owner.unwrap_or_default(),
            port.mac,
            port.plug,
        )
    });
    format!("<hookData>\n{network}{}</hookData>\n", port.unwrap_or_default())
}

/// A hook that did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Hook script execution failed: internal error: Child process ({command}) {how}")]
pub struct HookError {
    /// Its path and arguments.
    pub command: String,
    /// How it ended, and what it said on stderr.
    pub how: How,
}

/// How a hook ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum How {
    /// With another exit status than 0.
    #[error("unexpected exit status {status}: {stderr}")]
    Status {
        /// The status.
        status: i32,
        /// What it said.
        stderr: String,
    },
    /// By a signal.
    #[error("unexpected fatal signal {signal}: {stderr}")]
    Signal {
        /// Its number.
        signal: i32,
        /// What it said.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("did not end within {} seconds and was killed: {stderr}", patience.as_secs())]
    TooLong {
        /// How long it was given.
        patience: Duration,
        /// What it said.
        stderr: String,
    },
    /// It could not be run.
    #[error("could not be run: {0}")]
    NotRun(String),
}
