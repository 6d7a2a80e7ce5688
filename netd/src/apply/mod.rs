//! Doing a plan: one step after the other, everything taken back if one fails, and the work checked at the end.
//!
//! It knows no kernel: [`Executor`] does the steps, `kernel` is the real one, tests have one made of values.

mod bridge_port;
pub(crate) mod guards;
mod kernel;
pub(crate) mod links;
mod live;
mod macvtap;
mod ports;
mod shape;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::{future::Future, io};

pub use guards::Guards;
pub use kernel::Kernel;
pub use ports::PortError;

use crate::{
    host::{Focus, HostState},
    observe::ObserveError,
    plan::{self, Desired, InPlace, Others, Step, Undo},
};

/// Does single steps and says what the host looks like.
pub trait Executor: Send + Sync {
    /// Reads the host.
    fn observe(&self) -> impl Future<Output = Result<HostState, ObserveError>> + Send;
    /// Reads what of it is in focus: [`HostState::around`].
    fn observe_around(&self, focus: &Focus) -> impl Future<Output = Result<HostState, ObserveError>> + Send;
    /// Does one step. On an error nothing of it remains.
    fn run(&self, step: &Step) -> impl Future<Output = Result<Outcome, StepError>> + Send;
    /// Takes one step back, or finds it already taken back.
    fn undo(&self, undo: &Undo) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// What a step brought to light that later steps need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Where DNS is served, if this step started it.
    pub dns_port: Option<u16>,
}

/// Why a step could not be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused a change of a link, an address or a route.
    #[error("{0}")]
    Kernel(io::Error),
    /// The conversation with the kernel broke.
    #[error("{0}")]
    Netlink(rtnetlink::Error),
    /// An interface the step needs is not there.
    #[error("interface {0} does not exist")]
    NoLink(String),
    /// VLANs are wanted on a bridge that is not ours and looks at no tags.
    #[error(
        "bridge {bridge} does not filter VLANs; 'ip link set dev {bridge} type bridge vlan_filtering 1' has it do so"
    )]
    NoVlanFiltering {
        /// The bridge.
        bridge: String,
    },
    /// The kernel was built without something.
    #[error("this kernel cannot {what}: it has no {module}")]
    NoModule {
        /// What cannot be done.
        what: &'static str,
        /// What it lacks.
        module: &'static str,
    },
    /// A network has an IPv6 address and the kernel no IPv6.
    #[error("the kernel has no IPv6: boot it without ipv6.disable=1, or take the IPv6 addresses out of the network")]
    NoIpv6,
    /// A sysctl cannot be written.
    #[error("cannot write {path}: {cause}")]
    Sysctl {
        /// The file.
        path: String,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The host could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The packet filter refused.
    #[error(transparent)]
    Firewall(#[from] nat::Error),
    /// DHCP or DNS cannot be served.
    #[error(transparent)]
    Services(#[from] dhcp::Error),
}

/// Why a plan was not carried out. What had been done of it was taken back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A step failed.
    #[error("cannot {step}: {cause}")]
    Step {
        /// The step.
        step: Box<Step>,
        /// Why.
        cause: StepError,
    },
    /// All steps were done and yet the host is not as it should be.
    #[error("another program undid a change while it was being made: still to do: {0}")]
    Unverified(Box<Step>),
    /// The host could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
}

/// A plan that was not carried out.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: ApplyError,
    /// What could not be taken back of it.
    pub left: Vec<UndoError>,
}

/// Carries out `steps`, the plan for `desired`, and checks that they did what they should.
///
/// Returns the steps as they were done. On an error everything done is taken back first.
pub async fn apply<E: Executor>(
    executor: &E,
    desired: &Desired,
    steps: Vec<Step>,
    others: Others,
) -> Result<Vec<Step>, Failed> {
    let mut done = Vec::with_capacity(steps.len());
    match carry_out(executor, desired, steps, &mut done).await {
        Ok(()) => Ok(done),
        Err(error) => {
            let undos = plan::teardown(&plan::unwind(&done), others);
            Err(Failed { error, left: take_back(executor, &undos).await })
        }
    }
}

/// Does what it can of `steps`, for a network whose guests must not notice: nothing is ever taken back.
///
/// Returns what failed, and where DNS is served if a step started it.
pub async fn mend<E: Executor>(executor: &E, steps: Vec<Step>) -> (Outcome, Vec<ApplyError>) {
    let mut outcome = Outcome::default();
    let mut failures = Vec::new();
    for step in steps {
        tracing::debug!("{step}");
        match executor.run(&step).await {
            Ok(found) => outcome.dns_port = outcome.dns_port.or(found.dns_port),
            Err(cause) => failures.push(ApplyError::Step { step: Box::new(step), cause }),
        }
    }
    (outcome, failures)
}

async fn carry_out<E: Executor>(
    executor: &E,
    desired: &Desired,
    steps: Vec<Step>,
    done: &mut Vec<Step>,
) -> Result<(), ApplyError> {
    let mut dns_port = None;
    for step in steps {
        let step = step.with_dns_port(dns_port, &desired.addresses);
        tracing::debug!("{step}");
        match executor.run(&step).await {
            Ok(outcome) => {
                dns_port = dns_port.or(outcome.dns_port);
                done.push(step);
            }
            Err(cause) => return Err(ApplyError::Step { step: Box::new(step), cause }),
        }
    }
    let host = executor.observe_around(&desired.focus()).await?;
    let in_place = InPlace { firewall: true, services: true, forwards: false };
    match plan::plan(desired, &host, in_place).into_iter().next() {
        None => Ok(()),
        Some(step) => Err(ApplyError::Unverified(Box::new(step))),
    }
}

/// What could not be taken back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {undo}: {cause}")]
pub struct UndoError {
    /// What should have happened.
    pub undo: Box<Undo>,
    /// Why it did not.
    pub cause: StepError,
}

/// Does every undo, whatever becomes of the ones before it, and returns what failed.
pub async fn take_back<E: Executor>(executor: &E, undos: &[Undo]) -> Vec<UndoError> {
    let mut failures = Vec::new();
    for undo in undos {
        tracing::debug!("{undo}");
        if let Err(cause) = executor.undo(undo).await {
            failures.push(UndoError { undo: Box::new(undo.clone()), cause });
        }
    }
    failures
}
