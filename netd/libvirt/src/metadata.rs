//! What people and other programs keep in a network's XML: title, description, elements.

use netd_api::{
    Forms, MetadataKind,
    calls::{GetMetadata, SetMetadata},
};

use crate::{
    error::{Code, RemoteError},
    netd::Netd,
    networks::{Answer, CONFIG, Held, LIVE, only},
    xdr::{Reader, Writer},
};

/// The numbers of what there is (libvirt's `virNetworkMetadataType`).
fn kind(number: i32) -> Result<MetadataKind, RemoteError> {
    match number {
        0 => Ok(MetadataKind::Description),
        1 => Ok(MetadataKind::Title),
        2 => Ok(MetadataKind::Element),
        _ => Err(RemoteError::network(Code::InvalidArg, format!("invalid argument: unknown metadata type {number}"))),
    }
}

/// The number that events have for it.
pub(crate) fn number(kind: &str) -> i32 {
    match kind {
        "description" => 0,
        "title" => 1,
        _ => 2,
    }
}

/// NETWORK_GET_METADATA.
pub(crate) async fn get(netd: &Netd, args: &mut Reader<'_>, ret: &mut Writer) -> Answer {
    let (network, kind) = (Held::read(args)?, kind(args.i32()?)?);
    let uri = args.optional(Reader::string)?.map(str::to_owned);
    let flags = only(args.u32()?, LIVE | CONFIG, "networkGetMetadata")?;
    if flags & LIVE != 0 && !network.get(netd).await?.active {
        let message = "Requested operation is not valid: network is not running";
        return Err(RemoteError::network(Code::OperationInvalid, message));
    }
    let request = GetMetadata { network: network.key.clone(), kind, uri, inactive: flags & CONFIG != 0 };
    let got = netd.look(async |client| client.get_metadata(request.clone()).await).await;
    let text = got.map_err(|error| network.failed(error))?.text;
    let absent = "metadata not found: Requested metadata element is not present";
    ret.string(&text.ok_or_else(|| RemoteError::network(Code::NoNetworkMetadata, absent))?);
    Ok(())
}

/// NETWORK_SET_METADATA.
pub(crate) async fn set(netd: &Netd, args: &mut Reader<'_>) -> Answer {
    let (network, kind) = (Held::read(args)?, kind(args.i32()?)?);
    let mut text = || Ok::<_, RemoteError>(args.optional(Reader::string)?.map(str::to_owned));
    let (text, key, uri) = (text()?, text()?, text()?);
    let flags = only(args.u32()?, LIVE | CONFIG, "networkSetMetadata")?;
    let forms = match (flags & LIVE != 0, flags & CONFIG != 0) {
        (false, false) => Forms::Current,
        (true, false) => Forms::Live,
        (false, true) => Forms::Config,
        (true, true) => Forms::Both,
    };
    let request = SetMetadata { network: network.key.clone(), kind, uri, key, text, forms };
    let done = netd.change(async |client| client.set_metadata(request).await).await;
    done.map(drop).map_err(|error| network.failed(error))
}
