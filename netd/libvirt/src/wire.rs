//! Objects as they travel: by name and UUID.

use uuid::Uuid;

use crate::{
    error::RemoteError,
    xdr::{Reader, Writer, XdrError},
};

/// A network. In calls only the UUID counts: the name may be one it had once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NetworkRef<'a> {
    pub(crate) name: &'a str,
    pub(crate) uuid: Uuid,
}

impl<'a> NetworkRef<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, XdrError> {
        Ok(NetworkRef { name: reader.string()?, uuid: reader.uuid()? })
    }

    /// As netd has it.
    pub(crate) fn of(network: &'a netd_api::Network) -> Result<Self, RemoteError> {
        let uuid = network.uuid.parse().map_err(|_| RemoteError::rpc("netd names a network without a UUID"))?;
        Ok(NetworkRef { name: &network.name, uuid })
    }

    pub(crate) fn write(self, writer: &mut Writer) {
        writer.string(self.name).uuid(self.uuid);
    }
}
