//! Title, description and metadata of a network: what a request about them means. Pure.

use netd_api::{
    Forms, MetadataKind,
    calls::{GetMetadata, SetMetadata},
};

use super::{Refusal, Registry};
use crate::{
    model::{Network, NetworkName, printable},
    xml,
};

/// A network with other metadata: what of it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataChange {
    /// Which.
    pub name: NetworkName,
    /// The definition as it is to be.
    pub definition: Option<Network>,
    /// The live network as it is to be.
    pub live: Option<Network>,
}

impl Registry {
    /// The text asked for, if there is one.
    pub fn metadata(&self, request: &GetMetadata) -> Result<Option<String>, Refusal> {
        let (_, entry) = self.find(&request.network)?;
        let network = match &entry.definition {
            Some(definition) if request.inactive => definition,
            None if request.inactive => return Err(Refusal::TransientConfig),
            _ => entry.network().ok_or_else(|| Refusal::NoNetwork(request.network.clone()))?,
        };
        Ok(match request.kind {
            MetadataKind::Title => network.title.clone(),
            MetadataKind::Description => network.description.clone(),
            MetadataKind::Element => {
                let uri = need_uri(request.uri.as_deref())?;
                network.metadata.iter().find(|element| element.namespace == uri).map(xml::without_namespace)
            }
        })
    }

    /// What setting or removing it changes.
    pub fn set_metadata(&self, request: &SetMetadata) -> Result<MetadataChange, Refusal> {
        let (name, entry) = self.find(&request.network)?;
        let (live, config) = match request.forms {
            Forms::Current => (entry.live.is_some(), entry.live.is_none()),
            Forms::Live => (true, false),
            Forms::Config => (false, true),
            Forms::Both => (true, true),
        };
        if live && entry.live.is_none() {
            return Err(Refusal::NotRunning);
        }
        if config && entry.definition.is_none() {
            return Err(Refusal::TransientConfig);
        }
        let changed = |network: Option<&Network>, wanted: bool| {
            network.filter(|_| wanted).map(|network| change(network.clone(), request)).transpose()
        };
        Ok(MetadataChange {
            name: name.clone(),
            definition: changed(entry.definition.as_ref(), config)?,
            live: changed(entry.live.as_ref().map(|live| &live.network), live)?,
        })
    }

    /// The change was made.
    pub fn metadata_changed(&mut self, change: MetadataChange) {
        self.change(&change.name, |entry| {
            if change.definition.is_some() {
                entry.definition = change.definition;
            }
            if let (Some(live), Some(network)) = (&mut entry.live, change.live) {
                live.network = network;
            }
        });
    }
}

fn change(mut network: Network, request: &SetMetadata) -> Result<Network, Refusal> {
    let text = request.text.clone().filter(|text| !text.is_empty());
    match request.kind {
        MetadataKind::Title => network.title = text,
        MetadataKind::Description => network.description = text,
        MetadataKind::Element => {
            let uri = need_uri(request.uri.as_deref())?;
            let at = network.metadata.iter().position(|element| element.namespace == uri);
            match (text, at) {
                (Some(text), at) => {
                    let element = xml::with_namespace(&text, uri, request.key.as_deref().unwrap_or_default())?;
                    match at {
                        Some(at) => network.metadata[at] = element,
                        None => network.metadata.push(element),
                    }
                }
                (None, Some(at)) => drop(network.metadata.remove(at)),
                (None, None) => return Err(Refusal::NoMetadata),
            }
        }
    }
    // What cannot be written as XML, or is more than a network may have, would be lost or worse.
    match xml::parse(&xml::write(&network)) {
        Ok(again) if again == network => Ok(network),
        Ok(_) => Err(unfit(request)),
        Err(error) if request.kind == MetadataKind::Title => Err(error.into()),
        Err(_) => Err(unfit(request)),
    }
}

fn unfit(request: &SetMetadata) -> Refusal {
    Refusal::Argument {
        what: "text",
        value: printable(request.text.as_deref().unwrap_or_default()),
        expected: "what XML can hold: no control characters, and not more than a network may have".into(),
    }
}

fn need_uri(uri: Option<&str>) -> Result<&str, Refusal> {
    let expected = "the name space of an element".to_owned();
    uri.filter(|uri| !uri.is_empty()).ok_or(Refusal::Argument { what: "uri", value: String::new(), expected })
}
