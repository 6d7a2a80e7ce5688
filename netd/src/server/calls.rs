//! From a call's name and parameters to a verb, and from what the verb said to a reply. No socket in sight.

use std::os::fd::OwnedFd;

use netd_api::{
    Error, ErrorKind, INTERFACE, INTERFACE_FILE, NetworkPortReply, PortReply, Update, Xml,
    calls::{
        AddForward, AddPort, AdoptNetwork, ApplyNetwork, ConfirmChange, CreateNetworkPort, CreatePort, DeleteForward,
        DeletePort, DumpXml, Explain, GetPorts, ImportLeases, ListAddresses, ListForwards, ListLeases, ListNetworks,
        ListPorts, Method, Monitor, NewNetwork, OneNetwork, OpenCapture, SetAutostart, UpdateNetwork,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use zlink::varlink_service;

use super::{Access, RawCall};
use crate::{
    change::Edit,
    registry::{Affect, PortRequest},
    verbs::{Host, How, VerbError, Verbs},
};

/// varlink's own interface, which every service has.
const SERVICE: &str = "org.varlink.service";

/// That interface in varlink's own language.
const SERVICE_FILE: &str = "\
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
";

/// What to send back.
#[derive(Debug)]
pub(super) enum Answer {
    /// It worked.
    Reply(Value, Vec<OwnedFd>),
    /// The verb said no.
    Refused(Error),
    /// The call is not one of ours, or not of its form.
    Wrong(varlink_service::Error<'static>),
}

impl From<varlink_service::Error<'static>> for Answer {
    fn from(error: varlink_service::Error<'static>) -> Self {
        Answer::Wrong(error)
    }
}

/// Does what the call says.
pub(super) async fn answer<H: Host>(verbs: &Verbs<H>, access: Access, call: &RawCall) -> Answer {
    let Some((interface, name)) = call.method.rsplit_once('.') else {
        return varlink_service::Error::MethodNotFound { method: call.method.clone().into() }.into();
    };
    match interface {
        INTERFACE => match Method::ALL.into_iter().find(|method| method.name() == name) {
            Some(method) if method.changes() && access == Access::ReadOnly => Answer::Refused(read_only(method)),
            Some(method) => ours(verbs, method, call).await.unwrap_or_else(|wrong| wrong),
            None => varlink_service::Error::MethodNotFound { method: call.method.clone().into() }.into(),
        },
        SERVICE => service(name, call).unwrap_or_else(|wrong| wrong),
        other => varlink_service::Error::InterfaceNotFound { interface: other.to_owned().into() }.into(),
    }
}

/// Whether the call asks for events; the answer to that is no single reply.
pub(super) fn is_monitor(call: &RawCall) -> bool {
    call.method.rsplit_once('.').is_some_and(|(interface, name)| interface == INTERFACE && name == "Monitor")
}

/// The name of the network whose events are asked for, if not those of all.
pub(super) fn monitored<H: Host>(verbs: &Verbs<H>, call: &RawCall) -> Result<Option<String>, Answer> {
    let Monitor { network } = parameters(call)?;
    let found = network.map(|key| verbs.get(&key)).transpose();
    found.map(|found| found.map(|reply| reply.network.name)).map_err(|error| reply::<()>(Err(error)))
}

fn read_only(method: Method) -> Error {
    Error::new(ErrorKind::AccessDenied, format!("operation forbidden: read only access prevents {}", method.name()))
        .with_hint("run as root or as a member of group netd, on the socket netd.sock")
}

async fn ours<H: Host>(verbs: &Verbs<H>, method: Method, call: &RawCall) -> Result<Answer, Answer> {
    Ok(match method {
        Method::ListNetworks => {
            let ListNetworks {} = parameters(call)?;
            reply(Ok(verbs.list()))
        }
        Method::Monitor => Answer::Wrong(varlink_service::Error::ExpectedMore),
        Method::GetNetwork => reply(verbs.get(&parameters::<OneNetwork>(call)?.network)),
        Method::DefineNetwork => reply(verbs.define(&parameters::<NewNetwork>(call)?.xml).await),
        Method::CreateNetwork => reply(verbs.create(&parameters::<NewNetwork>(call)?.xml).await),
        Method::StartNetwork => reply(verbs.start(&parameters::<OneNetwork>(call)?.network).await),
        Method::DestroyNetwork => reply(verbs.destroy(&parameters::<OneNetwork>(call)?.network).await),
        Method::UndefineNetwork => reply(verbs.undefine(&parameters::<OneNetwork>(call)?.network).await),
        Method::SetAutostart => {
            let SetAutostart { network, autostart } = parameters(call)?;
            reply(verbs.set_autostart(&network, autostart).await)
        }
        Method::DumpXml => {
            let DumpXml { network, inactive } = parameters(call)?;
            reply(verbs.dump_xml(&network, inactive).map(|xml| Xml { xml }))
        }
        Method::GetMetadata => reply(verbs.metadata(&parameters(call)?)),
        Method::SetMetadata => reply(verbs.set_metadata(&parameters(call)?).await),
        Method::ListLeases => {
            let ListLeases { network, mac } = parameters(call)?;
            reply(verbs.leases(&network, mac.as_deref()))
        }
        Method::ListPorts => reply(verbs.list_ports(parameters::<ListPorts>(call)?.network.as_deref())),
        Method::GetPorts => reply(verbs.port_info(&parameters::<GetPorts>(call)?.port).await),
        Method::ListNetworkPorts => reply(verbs.network_ports(&parameters::<OneNetwork>(call)?.network)),
        Method::CreateNetworkPort => {
            let CreateNetworkPort { network, xml } = parameters(call)?;
            reply(verbs.create_network_port(&network, &xml).await.map(|port| NetworkPortReply { port }))
        }
        Method::AddPort => {
            let AddPort { network, guest, mac, queues, guards, portgroup } = parameters(call)?;
            match verbs.add_port(&PortRequest { network, guest, mac, queues, guards, portgroup }).await {
                Ok((port, fds)) => with_fds(reply(Ok(PortReply { port })), fds),
                Err(error) => Answer::Refused(error.into()),
            }
        }
        Method::ListAddresses => {
            let ListAddresses { guest, source } = parameters(call)?;
            reply(verbs.addresses(&guest, source).await)
        }
        Method::OpenCapture => {
            let OpenCapture { interface, snaplen } = parameters(call)?;
            match verbs.open_capture(&interface, snaplen) {
                Ok((capture, fd)) => with_fds(reply(Ok(capture)), vec![fd]),
                Err(error) => Answer::Refused(error.into()),
            }
        }
        Method::ListForwards => reply(verbs.list_forwards(parameters::<ListForwards>(call)?.network.as_deref())),
        Method::AddForward => reply(verbs.add_forward(&parameters::<AddForward>(call)?.forward).await),
        Method::ImportLeases => {
            let ImportLeases { network, leases } = parameters(call)?;
            reply(verbs.import_leases(&network, &leases).await)
        }
        Method::CreatePort => {
            let CreatePort { network, guest, mac } = parameters(call)?;
            let request = PortRequest { network, guest, mac, queues: 1, guards: None, portgroup: None };
            reply(verbs.create_port(&request).await.map(|port| PortReply { port }))
        }
        Method::DeletePort => {
            let DeletePort { interface } = parameters(call)?;
            reply(verbs.delete_port(&interface).await.map(|port| PortReply { port }))
        }
        Method::AdoptNetwork => {
            let AdoptNetwork { xml, ports, leases } = parameters(call)?;
            reply(verbs.adopt(&xml, &ports, &leases).await)
        }
        Method::DeleteForward => reply(verbs.delete_forward(parameters::<DeleteForward>(call)?).await),
        Method::ApplyNetwork => {
            let ApplyNetwork { xml, dry_run, confirm } = parameters(call)?;
            reply(verbs.apply_network(&xml, How { dry_run, confirm }).await)
        }
        Method::UpdateNetwork => {
            let UpdateNetwork { update } = parameters(call)?;
            let Update { network, command, section, xml, parent_index, live, config } = update;
            let edit = Edit { command: command.into(), section: &section, xml: &xml, parent_index };
            reply(verbs.update_network(&network, edit, Affect { live, config }).await)
        }
        Method::ConfirmChange => reply(verbs.confirm(parameters::<ConfirmChange>(call)?.network.as_deref()).await),
        Method::Explain => reply(verbs.explain(&parameters::<Explain>(call)?).await),
    })
}

fn service(name: &str, call: &RawCall) -> Result<Answer, Answer> {
    #[derive(serde::Deserialize)]
    struct Described {
        interface: String,
    }
    match name {
        "GetInfo" => Ok(Answer::Reply(
            json!({
                "vendor": "netd",
                "product": "netd",
                "version": env!("CARGO_PKG_VERSION"),
                "url": "",
                "interfaces": [SERVICE, INTERFACE],
            }),
            Vec::new(),
        )),
        "GetInterfaceDescription" => {
            let Described { interface } = parameters(call)?;
            let description = match interface.as_str() {
                INTERFACE => INTERFACE_FILE,
                SERVICE => SERVICE_FILE,
                _ => return Err(varlink_service::Error::InterfaceNotFound { interface: interface.into() }.into()),
            };
            Ok(Answer::Reply(json!({ "description": description }), Vec::new()))
        }
        _ => Err(varlink_service::Error::MethodNotFound { method: call.method.clone().into() }.into()),
    }
}

fn parameters<T: DeserializeOwned>(call: &RawCall) -> Result<T, Answer> {
    let given = call.parameters.clone().filter(|value| !value.is_null()).unwrap_or_else(|| json!({}));
    serde_json::from_value(given)
        .map_err(|error| varlink_service::Error::InvalidParameter { parameter: error.to_string().into() }.into())
}

fn reply<T: Serialize>(result: Result<T, VerbError>) -> Answer {
    match result.map(|value| serde_json::to_value(value)) {
        Ok(Ok(value)) => Answer::Reply(value, Vec::new()),
        Ok(Err(error)) => Answer::Refused(Error::new(ErrorKind::Internal, format!("cannot encode the reply: {error}"))),
        Err(error) => {
            let error: Error = error.into();
            tracing::info!("refused: {error}");
            Answer::Refused(error)
        }
    }
}

fn with_fds(answer: Answer, fds: Vec<OwnedFd>) -> Answer {
    match answer {
        Answer::Reply(value, _) => Answer::Reply(value, fds),
        refused => refused,
    }
}
