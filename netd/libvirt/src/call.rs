//! From a call to its answer.

use std::rc::Rc;

use crate::{
    connection,
    error::{Code, RemoteError},
    events::{Events, NetworkEvent},
    frame::{Frame, Header, KEEPALIVE, Kind, Payload, REMOTE, Status, VERSION},
    host, hypervisor, metadata,
    netd::Netd,
    networks::{self, Answer, Deed, New},
    node, ports,
    procedure::{Access, Procedure},
    session::Session,
    wire::NetworkRef,
    xdr::{Reader, Writer},
};

/// What calls are answered with.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) netd: Rc<Netd>,
    pub(crate) events: Rc<Events>,
    pub(crate) host: host::Recent,
}

/// What a frame means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Answer it.
    Call,
    /// The client wants to know whether we live.
    Ping,
    /// Nothing is to be done.
    Nothing,
    /// No client says that.
    Wrong,
}

const PING: i32 = 1;
const PONG: i32 = 2;

/// What a frame of a client means.
pub(crate) fn meaning(header: &Header) -> Meaning {
    match (header.program, header.kind) {
        (KEEPALIVE, Kind::Message) if header.procedure == PING => Meaning::Ping,
        (KEEPALIVE, Kind::Message) => Meaning::Nothing,
        (_, Kind::Call | Kind::CallWithFds) if header.status == Status::Ok => Meaning::Call,
        // Pieces of a stream that has ended: the client could not know.
        (_, Kind::Stream | Kind::StreamHole) => Meaning::Nothing,
        _ => Meaning::Wrong,
    }
}

/// A question whether the client lives.
pub(crate) fn ping() -> Vec<u8> {
    keepalive(PING)
}

/// The answer to such a question.
pub(crate) fn pong() -> Vec<u8> {
    keepalive(PONG)
}

fn keepalive(procedure: i32) -> Vec<u8> {
    Header { program: KEEPALIVE, ..Header::event(procedure) }.with(&[])
}

/// The frame that answers a call.
pub(crate) async fn reply<F>(front: &Front, session: &Rc<Session>, frame: Frame<F>) -> Vec<u8> {
    let Frame { header, payload, fds } = frame;
    // No procedure takes any: they are closed.
    drop(fds);
    let mut ret = Writer::default();
    match answer(front, session, &header, &payload, &mut ret).await {
        Ok(()) => header.reply(Status::Ok).with(&ret.finish()),
        Err(error) => {
            let name = Procedure::of(header.procedure).map_or("an unknown procedure", Procedure::name);
            tracing::debug!("{name}: {error}");
            header.reply(Status::Error).with(&error.encode())
        }
    }
}

/// An answer that is written.
fn done(_written: &mut Writer) -> Answer {
    Ok(())
}

async fn answer(front: &Front, session: &Rc<Session>, header: &Header, payload: &Payload, ret: &mut Writer) -> Answer {
    if (header.program, header.version) != (REMOTE, VERSION) {
        let Header { program, version, .. } = header;
        return Err(RemoteError::rpc(format!("Cannot find program {program} version {version}")));
    }
    let procedure = Procedure::of(header.procedure).ok_or_else(|| RemoteError::unknown_procedure(header.procedure))?;
    match procedure.access() {
        Access::Always => {}
        _ if !session.open.get() => {
            return Err(RemoteError {
                code: Code::Internal,
                ..RemoteError::rpc("internal error: connection not open")
            });
        }
        Access::Change(function) if session.read_only.get() => return Err(RemoteError::read_only(function)),
        Access::Read | Access::Change(_) => {}
    }
    let Payload::Whole(payload) = payload else {
        return Err(RemoteError::rpc("Unable to decode message payload: it is longer than any that can be meant"));
    };
    let args = &mut Reader::new(payload);
    let netd = &*front.netd;
    match procedure {
        Procedure::ConnectOpen => connection::open(session, args),
        Procedure::ConnectClose => connection::close(session),
        Procedure::ConnectGetType => done(ret.string("QEMU")),
        Procedure::ConnectGetVersion => done(ret.u64(hypervisor::VERSION)),
        Procedure::ConnectGetLibVersion => done(ret.u64(connection::PROTOCOL_VERSION)),
        Procedure::ConnectGetHostname => done(ret.string(&host::name()?)),
        Procedure::ConnectGetUri => done(ret.string(connection::URI)),
        Procedure::ConnectIsSecure => done(ret.truth(true)),
        Procedure::ConnectSupportsFeature => connection::supports_feature(session, args, ret),
        Procedure::AuthList => done(ret.count(1).u32(connection::AUTH_NONE)),
        Procedure::ConnectRegisterCloseCallback => connection::register_close_callback(session),
        Procedure::ConnectUnregisterCloseCallback => connection::unregister_close_callback(session),

        Procedure::NodeGetInfo => done(node::write_info(&front.host.get()?, ret)),
        Procedure::ConnectGetCapabilities => done(ret.string(&node::capabilities(&front.host.get()?))),
        Procedure::ConnectNumOfDomains
        | Procedure::ConnectNumOfDefinedDomains
        | Procedure::ConnectNumOfStoragePools
        | Procedure::ConnectNumOfDefinedStoragePools
        | Procedure::ConnectNumOfNwfilters => done(ret.count(0)),
        Procedure::ConnectListDomains
        | Procedure::ConnectListDefinedDomains
        | Procedure::ConnectListStoragePools
        | Procedure::ConnectListDefinedStoragePools
        | Procedure::ConnectListNwfilters => hypervisor::no_names(args, ret),
        Procedure::ConnectListAllDomains => hypervisor::no_domains(args, ret),
        Procedure::DomainLookupById => hypervisor::no_domain_of_id(args),
        Procedure::DomainLookupByName => hypervisor::no_domain_of_name(args),
        Procedure::DomainLookupByUuid => hypervisor::no_domain_of_uuid(args),

        Procedure::ConnectListAllNetworks => networks::list_all(netd, args, ret).await,
        Procedure::ConnectNumOfNetworks => networks::number(netd, true, ret).await,
        Procedure::ConnectNumOfDefinedNetworks => networks::number(netd, false, ret).await,
        Procedure::ConnectListNetworks => networks::names(netd, true, args, ret).await,
        Procedure::ConnectListDefinedNetworks => networks::names(netd, false, args, ret).await,
        Procedure::NetworkLookupByName => networks::by_name(netd, args, ret).await,
        Procedure::NetworkLookupByUuid => networks::by_uuid(netd, args, ret).await,
        Procedure::NetworkIsActive => networks::is(netd, args, ret, |network| network.active).await,
        Procedure::NetworkIsPersistent => networks::is(netd, args, ret, |network| network.persistent).await,
        Procedure::NetworkGetAutostart => networks::is(netd, args, ret, |network| network.autostart).await,
        Procedure::NetworkGetBridgeName => networks::bridge_name(netd, args, ret).await,
        Procedure::NetworkGetXmlDesc => networks::xml(netd, args, ret).await,
        Procedure::NetworkGetDhcpLeases => networks::leases(netd, args, ret).await,
        Procedure::NetworkDefineXml => networks::new(netd, New::Definition, false, args, ret).await,
        Procedure::NetworkDefineXmlFlags => networks::new(netd, New::Definition, true, args, ret).await,
        Procedure::NetworkCreateXml => networks::new(netd, New::Transient, false, args, ret).await,
        Procedure::NetworkCreateXmlFlags => networks::new(netd, New::Transient, true, args, ret).await,
        Procedure::NetworkCreate => networks::deed(netd, Deed::Start, args).await,
        Procedure::NetworkDestroy => networks::deed(netd, Deed::Destroy, args).await,
        Procedure::NetworkUndefine => networks::deed(netd, Deed::Undefine, args).await,
        Procedure::NetworkSetAutostart => networks::set_autostart(netd, args).await,
        Procedure::NetworkUpdate => networks::update(netd, args).await,
        Procedure::NetworkGetMetadata => metadata::get(netd, args, ret).await,
        Procedure::NetworkSetMetadata => metadata::set(netd, args).await,

        Procedure::NetworkListAllPorts => ports::list_all(netd, args, ret).await,
        Procedure::NetworkPortLookupByUuid => ports::by_uuid(netd, args, ret).await,
        Procedure::NetworkPortCreateXml => ports::create(netd, args, ret).await,
        Procedure::NetworkPortGetXmlDesc => ports::xml(netd, args, ret).await,
        Procedure::NetworkPortDelete => ports::delete(netd, args).await,

        Procedure::ConnectNetworkEventRegisterAny => {
            let event = NetworkEvent::of(args.i32()?)?;
            let network = args.optional(NetworkRef::read)?.map(|network| network.uuid);
            ret.i32(front.events.register(&front.netd, session, event, network).await?);
            Ok(())
        }
        Procedure::ConnectNetworkEventDeregisterAny => session.callbacks.borrow_mut().remove(args.i32()?),
    }
}

#[cfg(test)]
mod tests;
