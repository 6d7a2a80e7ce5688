//! What people and other programs keep in a network's XML: parameters and replies of the methods about it.

use serde::{Deserialize, Serialize};
use zlink::introspect;

/// Which of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum MetadataKind {
    /// `<title>`: one line.
    Title,
    /// `<description>`.
    Description,
    /// An element of another program, known by its name space.
    Element,
}

/// Parameters of `GetMetadata`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct GetMetadata {
    /// Name or UUID.
    pub network: String,
    /// What of it.
    pub kind: MetadataKind,
    /// The name space of an element.
    pub uri: Option<String>,
    /// Of the definition, not of the live network.
    pub inactive: bool,
}

/// Parameters of `SetMetadata`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
#[serde(deny_unknown_fields)]
pub struct SetMetadata {
    /// Name or UUID.
    pub network: String,
    /// What of it.
    pub kind: MetadataKind,
    /// The name space of an element.
    pub uri: Option<String>,
    /// The prefix that stands for the name space in the network's XML; needed to set an element.
    pub key: Option<String>,
    /// What it is to be: a text, or one element; gone if absent or empty.
    pub text: Option<String>,
    /// Where.
    pub forms: Forms,
}

/// Which forms of a network a change is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, introspect::Type)]
#[serde(rename_all = "snake_case")]
#[zlink(rename_all = "snake_case")]
pub enum Forms {
    /// The live network if it is active, else the definition.
    Current,
    /// The live network.
    Live,
    /// The definition.
    Config,
    /// Both.
    Both,
}

/// Reply of `GetMetadata`.
#[derive(Clone, Debug, Serialize, Deserialize, introspect::Type)]
pub struct Metadata {
    /// The text, or the element without its name space; nothing if there is none.
    pub text: Option<String>,
}
