//! What went wrong, as libvirt's clients want to hear it. They act on the code; people read the message.

use netd_api::{ClientError, ErrorKind};

use crate::xdr::{Writer, XdrError};

/// What is wrong (libvirt's `virErrorNumber`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Code {
    /// Something that should not be.
    Internal = 1,
    /// The function is not there.
    NoSupport = 3,
    /// Nobody serves this URI.
    NoConnect = 5,
    /// An argument is not of its form.
    InvalidArg = 8,
    /// It was tried and did not work.
    OperationFailed = 9,
    /// The XML breaks a rule.
    Xml = 27,
    /// It may not be done.
    OperationDenied = 29,
    /// The system said no.
    System = 38,
    /// The message is not one of the protocol's.
    Rpc = 39,
    /// A MAC address is not of its form.
    InvalidMac = 40,
    /// No such guest.
    NoDomain = 42,
    /// No such network.
    NoNetwork = 43,
    /// Right request, wrong state.
    OperationInvalid = 55,
    /// Something we do not have.
    ConfigUnsupported = 67,
    /// No such port.
    NoNetworkPort = 107,
    /// No such element of metadata.
    NoNetworkMetadata = 111,
}

/// Where it went wrong (libvirt's `virErrorDomain`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Domain {
    /// The protocol.
    Rpc = 7,
    /// The hypervisor.
    Qemu = 10,
    /// Networks.
    Network = 19,
}

/// An error as it travels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct RemoteError {
    /// What clients act on.
    pub(crate) code: Code,
    /// Where.
    pub(crate) domain: Domain,
    /// The line after `error: `.
    pub(crate) message: String,
}

/// `VIR_ERR_ERROR`.
const LEVEL_ERROR: i32 = 2;

impl RemoteError {
    /// Of the protocol.
    pub(crate) fn rpc(message: impl Into<String>) -> Self {
        RemoteError { code: Code::Rpc, domain: Domain::Rpc, message: message.into() }
    }

    /// Of networks.
    pub(crate) fn network(code: Code, message: impl Into<String>) -> Self {
        RemoteError { code, domain: Domain::Network, message: message.into() }
    }

    /// A procedure that is not served. The client's library looks at how the sentence begins and does as with an old
    /// server.
    pub(crate) fn unknown_procedure(number: i32) -> Self {
        RemoteError::rpc(format!("unknown procedure: {number}"))
    }

    /// A word of flags with bits that are not known.
    pub(crate) fn flags(unknown: u32, function: &str) -> Self {
        let message = format!("unsupported flags (0x{unknown:x}) in function {function}");
        RemoteError::network(Code::InvalidArg, message)
    }

    /// What a client on a read-only connection may not do.
    pub(crate) fn read_only(function: &str) -> Self {
        let message = format!("operation forbidden: read only access prevents {function}");
        RemoteError { code: Code::OperationDenied, domain: Domain::Rpc, message }
    }

    /// As it travels: code, domain, message, level; and of what the error is about, which nobody needs, nothing.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.i32(self.code as i32).i32(self.domain as i32).optional_string(Some(&self.message)).i32(LEVEL_ERROR);
        // domain, three strings, two numbers, network
        for _ in 0..7 {
            writer.u32(0);
        }
        writer.finish()
    }
}

impl From<XdrError> for RemoteError {
    fn from(error: XdrError) -> Self {
        RemoteError::rpc(format!("Unable to decode message payload: {error}"))
    }
}

/// How libvirt's sentences begin, by code: netd says what libvirt says, but tells fewer kinds of errors apart.
const BEGINNINGS: [(&str, Code); 10] = [
    ("internal error:", Code::Internal),
    ("this function is not supported", Code::NoSupport),
    ("invalid argument:", Code::InvalidArg),
    ("operation failed:", Code::OperationFailed),
    ("XML error:", Code::Xml),
    ("operation forbidden:", Code::OperationDenied),
    ("Network not found:", Code::NoNetwork),
    ("Requested operation is not valid:", Code::OperationInvalid),
    ("unsupported configuration:", Code::ConfigUnsupported),
    ("metadata not found:", Code::NoNetworkMetadata),
];

impl From<netd_api::Error> for RemoteError {
    fn from(error: netd_api::Error) -> Self {
        let message = error.to_string();
        let said = BEGINNINGS.iter().find(|(beginning, _)| message.starts_with(beginning)).map(|(_, code)| *code);
        let code = said.unwrap_or(match error.kind() {
            ErrorKind::NoNetwork => Code::NoNetwork,
            ErrorKind::NoGuest => Code::NoDomain,
            ErrorKind::OperationInvalid => Code::OperationInvalid,
            ErrorKind::OperationFailed => Code::OperationFailed,
            ErrorKind::Xml => Code::Xml,
            ErrorKind::ConfigUnsupported => Code::ConfigUnsupported,
            ErrorKind::InvalidArg => Code::InvalidArg,
            ErrorKind::AccessDenied => Code::OperationDenied,
            ErrorKind::Internal => Code::Internal,
        });
        RemoteError::network(code, message)
    }
}

impl From<ClientError> for RemoteError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(error) => error.into(),
            error @ ClientError::Connect { .. } => {
                RemoteError::network(Code::System, format!("{error}: start it with 'systemctl start netd'"))
            }
            error @ ClientError::Transport(_) => RemoteError::network(Code::System, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_travels_as_eleven_fields() {
        let bytes = RemoteError::unknown_procedure(500).encode();
        let mut expected = Writer::default();
        expected.i32(39).i32(7).u32(1).string("unknown procedure: 500").i32(2);
        let mut expected = expected.finish();
        expected.extend([0; 28]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn the_code_is_the_one_that_libvirts_sentence_has() {
        for (kind, message, code) in [
            (ErrorKind::OperationFailed, "internal error: Network is already in use by interface eth0", 1),
            (ErrorKind::OperationFailed, "operation failed: network 'x' already exists with uuid y", 9),
            (ErrorKind::NoNetwork, "Network not found: no network with matching name 'x'", 43),
            (ErrorKind::OperationInvalid, "Requested operation is not valid: network is already active", 55),
            (ErrorKind::ConfigUnsupported, "unsupported configuration: x", 67),
            (ErrorKind::Xml, "(network_definition):1: no end tag", 27),
            (ErrorKind::InvalidArg, "invalid argument: x", 8),
            (ErrorKind::OperationInvalid, "metadata not found: Requested metadata element is not present", 111),
            (ErrorKind::AccessDenied, "no", 29),
        ] {
            let error = RemoteError::from(netd_api::Error::new(kind, message));
            assert_eq!((error.code as i32, error.domain, error.message.as_str()), (code, Domain::Network, message));
        }
    }
}
