//! `<metadata>`: what other programs keep in a network's XML.

/// One element of another program, in a name space of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The URI of the name space; unique in the network.
    pub namespace: String,
    /// The element as it was written, with the name spaces it uses declared in it.
    pub text: String,
}
