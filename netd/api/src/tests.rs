//! The interface file says what the types say.

use std::{collections::BTreeMap, fmt::Display};

use zlink::introspect::{ReplyError as _, Type};

use crate::{calls::Method, *};

/// One line, single spaces, none beside brackets and commas.
fn normal(text: &str) -> String {
    let without_comments: Vec<&str> = text.lines().filter_map(|line| line.split('#').next()).collect();
    let mut text = without_comments.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    for mark in ["(", ")", ",", ":", "->"] {
        text = text.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    text
}

/// The interface file with every named type written out where it is used: `"method X" → "(in)->(out)"`.
fn interface_file() -> BTreeMap<String, String> {
    let text = normal(INTERFACE_FILE);
    let mut rest = text.as_str();
    let mut types: Vec<(String, String)> = Vec::new();
    let mut members = BTreeMap::new();
    while let Some(start) = ["type ", "method ", "error "].iter().filter_map(|word| rest.find(word)).min() {
        rest = &rest[start..];
        let name_end = rest.find('(').expect("a bracket");
        let head = rest[..name_end].trim().to_owned();
        let (body, after) = bracketed(&rest[name_end..]);
        let mut body = body.to_owned();
        rest = after;
        if let Some(after) = rest.strip_prefix("->") {
            let (out, after) = bracketed(after);
            body = format!("{body}->{out}");
            rest = after;
        }
        for (name, expansion) in &types {
            for (before, after) in [("[]", ""), (":", ""), ("?", "")] {
                body = body.replace(&format!("{before}{name},"), &format!("{before}{expansion}{after},"));
                body = body.replace(&format!("{before}{name})"), &format!("{before}{expansion}{after})"));
            }
        }
        match head.strip_prefix("type ") {
            Some(name) => types.push((name.to_owned(), body)),
            None => drop(members.insert(head, body)),
        }
    }
    members
}

fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.split_at(at + 1);
        }
    }
    panic!("unbalanced brackets: {text}");
}

fn shape(parameters: impl Display) -> String {
    normal(&parameters.to_string())
}

fn types_of(method: Method) -> String {
    let (input, output) = match method {
        Method::ListNetworks => (calls::ListNetworks::TYPE, Networks::TYPE),
        Method::GetNetwork | Method::StartNetwork | Method::DestroyNetwork | Method::UndefineNetwork => {
            (calls::OneNetwork::TYPE, NetworkReply::TYPE)
        }
        Method::DefineNetwork | Method::CreateNetwork => (calls::NewNetwork::TYPE, NetworkReply::TYPE),
        Method::SetAutostart => (calls::SetAutostart::TYPE, NetworkReply::TYPE),
        Method::DumpXml => (calls::DumpXml::TYPE, Xml::TYPE),
        Method::GetMetadata => (calls::GetMetadata::TYPE, Metadata::TYPE),
        Method::SetMetadata => (calls::SetMetadata::TYPE, NetworkReply::TYPE),
        Method::ListLeases => (calls::ListLeases::TYPE, Leases::TYPE),
        Method::ListPorts => (calls::ListPorts::TYPE, Ports::TYPE),
        Method::ListNetworkPorts => (calls::OneNetwork::TYPE, NetworkPorts::TYPE),
        Method::CreateNetworkPort => (calls::CreateNetworkPort::TYPE, NetworkPortReply::TYPE),
        Method::GetPorts => (calls::GetPorts::TYPE, PortDetails::TYPE),
        Method::AddPort => (calls::AddPort::TYPE, PortReply::TYPE),
        Method::ListAddresses => (calls::ListAddresses::TYPE, Addresses::TYPE),
        Method::OpenCapture => (calls::OpenCapture::TYPE, Capture::TYPE),
        Method::ListForwards => (calls::ListForwards::TYPE, Forwards::TYPE),
        Method::AddForward => (calls::AddForward::TYPE, ForwardReply::TYPE),
        Method::DeleteForward => (calls::DeleteForward::TYPE, ForwardReply::TYPE),
        Method::ImportLeases => (calls::ImportLeases::TYPE, Imported::TYPE),
        Method::AdoptNetwork => (calls::AdoptNetwork::TYPE, NetworkReply::TYPE),
        Method::CreatePort => (calls::CreatePort::TYPE, PortReply::TYPE),
        Method::DeletePort => (calls::DeletePort::TYPE, PortReply::TYPE),
        Method::ApplyNetwork => (calls::ApplyNetwork::TYPE, ChangeReply::TYPE),
        Method::UpdateNetwork => (calls::UpdateNetwork::TYPE, ChangeReply::TYPE),
        Method::ConfirmChange => (calls::ConfirmChange::TYPE, NetworkReply::TYPE),
        Method::Explain => (calls::Explain::TYPE, Explanation::TYPE),
        Method::Monitor => (calls::Monitor::TYPE, Told::TYPE),
    };
    format!("{}->{}", shape(input), shape(output))
}

#[test]
fn the_interface_file_has_every_method_with_the_types_parameters() {
    let file = interface_file();
    for method in Method::ALL {
        assert_eq!(file.get(&format!("method {}", method.name())), Some(&types_of(method)), "{method:?}");
    }
    let methods = file.keys().filter(|head| head.starts_with("method ")).count();
    assert_eq!(methods, Method::ALL.len(), "a method in the file is not in the types");
}

#[test]
fn the_interface_file_has_the_error_of_the_types() {
    let file = interface_file();
    let errors: Vec<String> = Error::VARIANTS.iter().map(shape).collect();
    let in_file: Vec<String> = file
        .iter()
        .filter(|(head, _)| head.starts_with("error "))
        .map(|(head, body)| format!("{head}{body}"))
        .collect();
    assert_eq!(in_file, errors);
}
