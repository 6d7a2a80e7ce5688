//! Verbs about title, description and metadata.

use netd_api::{
    MetadataKind, NetworkReply,
    calls::{GetMetadata, SetMetadata},
};

use super::{Host, VerbError, Verbs, reply};
use crate::{events::metadata_changed, registry::metadata::MetadataChange, store::Phase};

impl<H: Host> Verbs<H> {
    /// The title, the description, or the element of a name space.
    pub fn metadata(&self, request: &GetMetadata) -> Result<netd_api::Metadata, VerbError> {
        Ok(netd_api::Metadata { text: self.registry().metadata(request)? })
    }

    /// Sets or removes it, in the live network, the definition, or both; on an error both are as before.
    pub async fn set_metadata(&self, request: &SetMetadata) -> Result<NetworkReply, VerbError> {
        let _turn = self.turn.lock().await;
        let change = self.registry().set_metadata(request)?;
        let name = change.name.clone();
        self.registry().refuse_unconfirmed(&name)?;
        let (before, uuid) = {
            let registry = self.registry();
            let (_, entry) = registry.find(name.as_str())?;
            let definition = entry.definition.clone().filter(|_| change.definition.is_some());
            let live = entry.live.as_ref().map(|live| live.network.clone()).filter(|_| change.live.is_some());
            let uuid = entry.network().map(|network| network.uuid).unwrap_or_default();
            (MetadataChange { name: name.clone(), definition, live }, uuid)
        };
        self.registry_mut().metadata_changed(change.clone());
        if let Err(error) = self.save_metadata(&change) {
            self.registry_mut().metadata_changed(before.clone());
            if let Err(error) = self.save_metadata(&before) {
                tracing::error!("network {name}: {error}");
            }
            return Err(error);
        }
        let part = match request.kind {
            MetadataKind::Title => "title",
            MetadataKind::Description => "description",
            MetadataKind::Element => "element",
        };
        self.events.tell(metadata_changed(name.as_str(), uuid, part, request.uri.as_deref()));
        reply(&self.registry(), &name, Vec::new())
    }

    fn save_metadata(&self, change: &MetadataChange) -> Result<(), VerbError> {
        if let Some(definition) = &change.definition {
            self.save_definition(definition)?;
        }
        if change.live.is_some() {
            self.save_live(&change.name, Phase::Active)?;
        }
        Ok(())
    }
}
