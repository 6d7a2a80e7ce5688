//! `net-desc` and `net-metadata`: ask the daemon, say it in virsh's words.

use std::path::Path;

use netd_api::{
    Client, ClientError, Forms, MetadataKind,
    calls::{GetMetadata, SetMetadata},
};
use serde_json::json;

use super::{
    Output,
    args::{NetDescArgs, NetMetadataArgs, Where},
    connect::{connect, connect_to_read},
    edit,
    failure::{About, Failure},
};

pub(super) async fn desc(socket: &Path, args: &NetDescArgs) -> Result<Output, Failure> {
    let name = args.network.as_str();
    let (kind, what) =
        if args.title { (MetadataKind::Title, "title") } else { (MetadataKind::Description, "description") };
    let capital = if args.title { "Network title" } else { "Network description" };
    let failed = |e: ClientError| Failure::client("", About::Network(name), &e);
    let words = args.words();
    let new = words.join(" ");
    let get = GetMetadata { network: name.to_owned(), kind, uri: None, inactive: args.at.config && !args.at.live };
    if words.is_empty() && !args.edit {
        let text = connect_to_read(socket).await.map_err(failed)?.get_metadata(get).await.map_err(failed)?.text;
        let shown = text.clone().unwrap_or_else(|| format!("No {what} for network: {name}"));
        return Ok(Output::new(format!("{shown}\n"), json!({ what: text })));
    }
    let mut client = connect(socket).await.map_err(failed)?;
    let new = if args.edit {
        let before = match words.is_empty() {
            true => client.get_metadata(get).await.map_err(failed)?.text.unwrap_or_default(),
            false => new,
        };
        match edited(&before, &edit::text(&before, ".txt")?) {
            None => return Ok(Output::new(format!("{capital} not changed\n"), json!(null))),
            Some(new) => new,
        }
    } else {
        new
    };
    let failed =
        |e: ClientError| Failure::client(format!("Failed to set new network {what}"), About::Network(name), &e);
    let set =
        SetMetadata { network: name.to_owned(), kind, uri: None, key: None, text: Some(new), forms: forms(args.at) };
    let reply = client.set_metadata(set).await.map_err(failed)?;
    Ok(Output::new(format!("{capital} updated successfully\n"), json!(reply.network)).with_notices(reply.notices))
}

fn forms(at: Where) -> Forms {
    // --current says what is so anyway
    match (at.live, at.config) {
        (false, false) => Forms::Current,
        (true, false) => Forms::Live,
        (false, true) => Forms::Config,
        (true, true) => Forms::Both,
    }
}

/// What the user made of a text; editors end a file with a newline. `None` if it is the same.
fn edited(before: &str, after: &str) -> Option<String> {
    let after = after.trim_end_matches('\n');
    (after != before.trim_end_matches('\n')).then(|| after.to_owned())
}

pub(super) async fn metadata(socket: &Path, args: &NetMetadataArgs) -> Result<Output, Failure> {
    let name = args.network.as_str();
    let failed = |e: ClientError| Failure::client("", About::Network(name), &e);
    if !args.edit && !args.remove && args.set().is_none() {
        let mut client = connect_to_read(socket).await.map_err(failed)?;
        let text = element(&mut client, args).await.map_err(failed)?;
        let text = text.ok_or_else(|| Failure::new(ABSENT))?;
        return Ok(Output::new(format!("{text}\n"), json!({ "metadata": text })));
    }
    if !args.remove && args.key().is_none() {
        return Err(Failure::new("namespace key is required when modifying metadata"));
    }
    let mut client = connect(socket).await.map_err(failed)?;
    let text = match (args.set(), args.edit) {
        (Some(text), _) => Some(text.to_owned()),
        (None, false) => None,
        (None, true) => {
            let before = element(&mut client, args).await.map_err(failed)?.unwrap_or_else(|| "\n".to_owned());
            match edited(&before, &edit::text(&before, ".xml")?) {
                None => return Ok(Output::new("Metadata not changed\n".to_owned(), json!(null))),
                Some(new) => Some(new),
            }
        }
    };
    let set = SetMetadata {
        network: name.to_owned(),
        kind: MetadataKind::Element,
        uri: Some(args.uri.clone()),
        key: args.key().map(str::to_owned),
        text,
        forms: forms(args.at),
    };
    let reply = client.set_metadata(set).await.map_err(failed)?;
    let said = if args.remove { "Metadata removed\n" } else { "Metadata modified\n" };
    Ok(Output::new(said.to_owned(), json!(reply.network)).with_notices(reply.notices))
}

/// What libvirt says where there is no such element.
const ABSENT: &str = "metadata not found: Requested metadata element is not present";

async fn element(client: &mut Client, args: &NetMetadataArgs) -> Result<Option<String>, ClientError> {
    let get = GetMetadata {
        network: args.network.clone(),
        kind: MetadataKind::Element,
        uri: Some(args.uri.clone()),
        inactive: args.at.config && !args.at.live,
    };
    Ok(client.get_metadata(get).await?.text)
}
