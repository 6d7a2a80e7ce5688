//! From commands as `nft` reads them to a netlink transaction. Pure.
//!
//! `nft` asks the kernel for every chain and set before it does anything, so one network more costs the more the more
//! there are. What comes and goes with a network or a forward is therefore said to the kernel directly: chains, their
//! rules, elements. Tables, base chains and named sets are made by `nft`, once.
//!
//! It knows the words that those rules are made of and no others; where there is one it does not know it makes nothing
//! of any, and whoever asked has `nft` do it. For the words it knows it says just what `nft` says: the tests compare.

mod element;
mod rule;

pub(crate) use element::{Declaration, Type};
use serde_json::Value;

use crate::nfnetlink::{
    APPEND, Batch, CHAIN_NAME, CHAIN_TABLE, CREATE, DELETE_CHAIN, DELETE_RULE, NEW_CHAIN, NEW_RULE, RULE_CHAIN,
    RULE_TABLE, nested, string,
};

/// `NFPROTO_INET`.
const INET: u8 = 1;

/// The transaction that does these commands; `None` if one of them has a word that is not known here.
pub(crate) fn batch(commands: impl IntoIterator<Item = Value>) -> Option<Batch> {
    let mut batch = Batch::new(INET);
    let mut sets = 0;
    for command in commands {
        let (verb, object) = only(&command)?;
        let (kind, object) = only(object)?;
        let name = |key: &str| object.get(key).and_then(Value::as_str);
        (name("family")? == "inet" && name("table")? == crate::TABLE).then_some(())?;
        match (verb, kind) {
            // One of a hook has more to say.
            ("add", "chain") if object.get("hook").is_none() => {
                let chain = name("name")?;
                batch.tell(NEW_CHAIN, CREATE, |to| {
                    string(to, CHAIN_TABLE, crate::TABLE);
                    string(to, CHAIN_NAME, chain);
                });
            }
            ("delete", "chain") => {
                let chain = name("name")?;
                batch.tell(DELETE_CHAIN, 0, |to| {
                    string(to, CHAIN_TABLE, crate::TABLE);
                    string(to, CHAIN_NAME, chain);
                });
            }
            ("flush", "chain") => {
                let chain = name("name")?;
                batch.tell(DELETE_RULE, 0, |to| {
                    string(to, RULE_TABLE, crate::TABLE);
                    string(to, RULE_CHAIN, chain);
                });
            }
            ("add", "rule") => {
                let chain = name("chain")?;
                let rule = rule::compile(object.get("expr")?.as_array()?, &mut sets)?;
                for set in &rule.sets {
                    set.add(&mut batch);
                }
                batch.tell(NEW_RULE, CREATE | APPEND, |to| {
                    string(to, RULE_TABLE, crate::TABLE);
                    string(to, RULE_CHAIN, chain);
                    nested(to, rule::RULE_EXPRESSIONS, |to| to.extend(&rule.expressions));
                });
            }
            ("add" | "delete", "element") => {
                element::change(&mut batch, verb == "add", name("name")?, object.get("elem")?.as_array()?)?;
            }
            _ => return None,
        }
    }
    Some(batch)
}

/// The one entry of an object.
fn only(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

#[cfg(test)]
mod tests;
