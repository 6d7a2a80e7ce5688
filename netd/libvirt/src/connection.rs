//! Procedures about the connection itself.

use crate::{
    error::{Code, Domain, RemoteError},
    networks::{Answer, only},
    session::Session,
    xdr::{Reader, Writer},
};

/// What clients know us as. Programs look at the scheme to tell what they can ask of a host.
pub(crate) const URI: &str = "qemu:///system";

/// The URIs that are served: what clients make of `network:///system` is the same.
const SERVED: [&str; 3] = ["", URI, "network:///system"];

/// The libvirt whose protocol this is: major × 1,000,000 + minor × 1,000 + release.
pub(crate) const PROTOCOL_VERSION: u64 = 9_000_000;

/// No authentication: who may open the socket may use it.
pub(crate) const AUTH_NONE: u32 = 0;

/// Bit of CONNECT_OPEN: the connection is for looking only.
const READ_ONLY: u32 = 1;

/// Features that clients ask for, by number (libvirt's `VIR_DRV_FEATURE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
enum Feature {
    /// Typed parameters may be strings.
    TypedParamString = 9,
    /// Both sides ask whether the other lives.
    Keepalive = 10,
    /// Events are asked for one by one.
    RemoteEventCallback = 14,
    /// Who asked for it is told when the connection to the hypervisor ends.
    RemoteCloseCallback = 15,
    /// NETWORK_UPDATE has its command before its section.
    NetworkUpdateHasCorrectOrder = 16,
}

fn internal(message: &str) -> RemoteError {
    RemoteError { code: Code::Internal, domain: Domain::Rpc, message: format!("internal error: {message}") }
}

/// CONNECT_OPEN.
pub(crate) fn open(session: &Session, args: &mut Reader<'_>) -> Answer {
    let (uri, flags) = (args.optional(Reader::string)?.unwrap_or_default(), args.u32()?);
    let flags = only(flags, READ_ONLY, "virConnectOpen")?;
    if session.open.get() {
        return Err(internal("connection already open"));
    }
    if !SERVED.contains(&uri) {
        let message = format!("no connection driver available for {uri}");
        return Err(RemoteError { code: Code::NoConnect, domain: Domain::Qemu, message });
    }
    session.open.set(true);
    if flags & READ_ONLY != 0 {
        session.read_only.set(true);
    }
    Ok(())
}

/// CONNECT_CLOSE: what the connection had is gone; the client hangs up next.
pub(crate) fn close(session: &Session) -> Answer {
    session.open.set(false);
    session.close_callback.set(false);
    session.callbacks.borrow_mut().clear();
    Ok(())
}

/// CONNECT_SUPPORTS_FEATURE.
pub(crate) fn supports_feature(session: &Session, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let number = args.i32()?;
    let ours = [
        Feature::TypedParamString,
        Feature::Keepalive,
        Feature::RemoteEventCallback,
        Feature::RemoteCloseCallback,
        Feature::NetworkUpdateHasCorrectOrder,
    ];
    let feature = ours.into_iter().find(|feature| *feature as i32 == number);
    if feature == Some(Feature::Keepalive) {
        session.keepalive.set(true);
    }
    ret.truth(feature.is_some());
    Ok(())
}

/// CONNECT_REGISTER_CLOSE_CALLBACK.
pub(crate) fn register_close_callback(session: &Session) -> Answer {
    match session.close_callback.replace(true) {
        false => Ok(()),
        true => Err(RemoteError { code: Code::OperationInvalid, ..internal("A close callback is already registered") }),
    }
}

/// CONNECT_UNREGISTER_CLOSE_CALLBACK.
pub(crate) fn unregister_close_callback(session: &Session) -> Answer {
    match session.close_callback.replace(false) {
        true => Ok(()),
        false => Err(RemoteError { code: Code::OperationInvalid, ..internal("A close callback is not registered") }),
    }
}
