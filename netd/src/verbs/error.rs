//! Why a verb failed, and what a client is told.

use netd_api::ErrorKind;

use super::CaptureError;
use crate::{
    apply::{ApplyError, PortError, StepError, UndoError},
    hooks::{HookError, How},
    observe::ObserveError,
    port::tap::TapError,
    registry::Refusal,
    store::StoreError,
    why::WhyError,
    xml,
};

/// A verb that failed. The host and the disk are as they were, unless [`VerbError::Undo`] says what is left.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The request cannot be granted.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The host could not be read.
    #[error("internal error: {0}")]
    Observe(#[from] ObserveError),
    /// The host could not be changed.
    #[error("internal error: {0}")]
    Apply(#[from] ApplyError),
    /// A network was taken down, but for this.
    #[error("internal error: {0}")]
    Undo(#[from] UndoError),
    /// A single step failed.
    #[error("internal error: {0}")]
    Step(#[from] StepError),
    /// A port could not be made.
    #[error("internal error: {0}")]
    Port(Box<PortError>),
    /// An interface could not be heard.
    #[error("internal error: {0}")]
    Capture(#[from] CaptureError),
    /// One of the user's hooks said no.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// The disk did not do as asked.
    #[error("internal error: {0}")]
    Store(#[from] StoreError),
    /// A flow could not be followed.
    #[error("internal error: {0}")]
    Why(#[from] WhyError),
}

impl From<Refusal> for VerbError {
    fn from(refusal: Refusal) -> Self {
        VerbError::Refused(Box::new(refusal))
    }
}

impl From<PortError> for VerbError {
    fn from(error: PortError) -> Self {
        VerbError::Port(Box::new(error))
    }
}

impl From<xml::Error> for VerbError {
    fn from(error: xml::Error) -> Self {
        Refusal::from(error).into()
    }
}

impl VerbError {
    fn hint(&self) -> Option<String> {
        match self {
            VerbError::Port(error) => match &**error {
                PortError::Tap(TapError::Open(cause)) => Some(match cause.raw_os_error() {
                    Some(libc::ENOENT | libc::ENODEV) => "load the tun module: 'modprobe tun'".into(),
                    _ => "the daemon must be allowed to use /dev/net/tun: run it as root".into(),
                }),
                _ => None,
            },
            VerbError::Store(StoreError { cause, path, .. }) => match cause.raw_os_error() {
                Some(libc::ENOSPC | libc::EDQUOT) => {
                    Some(format!("the disk is full: 'df {}' shows it", path.parent().unwrap_or(path).display()))
                }
                Some(libc::EROFS) => Some("the file system is read-only: choose another with --config-dir".into()),
                _ => None,
            },
            VerbError::Hook(HookError { how: How::TooLong { .. }, .. }) => {
                Some("a hook may ask netd, but not make it change anything: that waits for the hook to end".into())
            }
            VerbError::Undo(_) => Some("the rest of the network is down; restart the daemon to try again".into()),
            _ => None,
        }
    }
}

impl From<VerbError> for netd_api::Error {
    fn from(error: VerbError) -> Self {
        match error {
            VerbError::Refused(refusal) => (*refusal).into(),
            VerbError::Hook(error) => {
                let reply = netd_api::Error::new(ErrorKind::OperationFailed, error.to_string());
                match VerbError::Hook(error).hint() {
                    Some(hint) => reply.with_hint(hint),
                    None => reply,
                }
            }
            error => {
                let reply = netd_api::Error::new(ErrorKind::Internal, error.to_string());
                match error.hint() {
                    Some(hint) => reply.with_hint(hint),
                    None => reply,
                }
            }
        }
    }
}
