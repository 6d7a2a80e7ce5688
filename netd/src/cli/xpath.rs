//! `--xpath` and `--wrap`: what of an XML document an XPath 1.0 expression names, written as virsh writes it. Pure.

use std::fmt::Write;

use sxd_document::{
    dom::{ChildOfElement, Element},
    parser,
};
use sxd_xpath::{Context, Factory, Value, nodeset::Node};

use super::failure::Failure;

/// The nodes, each on lines of its own; with `wrap` inside one `<nodes>`. Nothing found is an empty text.
pub(super) fn choose(xml: &str, expression: &str, wrap: bool) -> Result<String, Failure> {
    let incorrect = || Failure::new(format!("internal error: Incorrect xpath '{expression}'"));
    let package = parser::parse(xml).map_err(|error| Failure::new(format!("XML error: {error}")))?;
    let document = package.as_document();
    let why = |why: String| incorrect().because(format!("XPath error : {why}"));
    let xpath = Factory::new().build(expression).map_err(|error| why(error.to_string()))?;
    let xpath = xpath.ok_or_else(|| why("the expression is empty".into()))?;
    let mut context = Context::new();
    // The prefixes of the document mean in the expression what they mean there.
    if let Some(root) = document.root().children().iter().find_map(|child| child.element()) {
        for namespace in root.namespaces_in_scope() {
            context.set_namespace(namespace.prefix(), namespace.uri());
        }
    }
    let Value::Nodeset(nodes) = xpath.evaluate(&context, document.root()).map_err(|error| why(error.to_string()))?
    else {
        return Err(incorrect());
    };
    let nodes = nodes.document_order();
    let mut text = String::new();
    let depth = usize::from(wrap);
    for node in &nodes {
        write_node(&mut text, *node, depth);
    }
    Ok(match (wrap, nodes.is_empty()) {
        (false, _) => text,
        (true, true) => "<nodes/>\n".to_owned(),
        (true, false) => format!("<nodes>\n{text}</nodes>\n"),
    })
}

fn write_node(out: &mut String, node: Node<'_>, depth: usize) {
    let indent = "  ".repeat(depth);
    match node {
        Node::Root(root) => {
            root.children().iter().filter_map(|child| child.element()).for_each(|e| element(out, e, depth))
        }
        Node::Element(found) => element(out, found, depth),
        // libxml2 writes the blank that stands before an attribute.
        Node::Attribute(attribute) => {
            // writing to a String cannot fail, here and below
            let _ = writeln!(out, "{indent} {}=\"{}\"", attribute.name().local_part(), escaped(attribute.value()));
        }
        Node::Text(text) => drop(writeln!(out, "{indent}{}", escaped(text.text()))),
        Node::Comment(comment) => drop(writeln!(out, "{indent}<!--{}-->", comment.text())),
        Node::Namespace(_) | Node::ProcessingInstruction(_) => {}
    }
}

/// An element with all it has: children on lines of their own, unless there is text among them.
fn element(out: &mut String, element: Element<'_>, depth: usize) {
    let indent = "  ".repeat(depth);
    let name = named(element);
    let _ = write!(out, "{indent}<{name}");
    let of_parent = element.parent().and_then(|parent| parent.element());
    for namespace in element.namespaces_in_scope() {
        let known = of_parent.and_then(|parent| parent.namespace_uri_for_prefix(namespace.prefix()));
        if namespace.prefix() != "xml" && known != Some(namespace.uri()) {
            let _ = write!(out, " xmlns:{}=\"{}\"", namespace.prefix(), escaped(namespace.uri()));
        }
    }
    for attribute in element.attributes() {
        let _ = write!(out, " {}=\"{}\"", attribute.name().local_part(), escaped(attribute.value()));
    }
    let is_blank = |child: &ChildOfElement<'_>| child.text().is_some_and(|text| text.text().trim().is_empty());
    let children: Vec<_> = element.children().into_iter().filter(|child| !is_blank(child)).collect();
    if children.is_empty() {
        out.push_str("/>\n");
    } else if children.iter().any(|child| child.text().is_some()) {
        let text: String = children.iter().filter_map(|child| child.text()).map(|text| escaped(text.text())).collect();
        let _ = writeln!(out, ">{text}</{name}>");
    } else {
        out.push_str(">\n");
        for child in children {
            match child {
                ChildOfElement::Element(child) => self::element(out, child, depth + 1),
                ChildOfElement::Comment(comment) => drop(writeln!(out, "{indent}  <!--{}-->", comment.text())),
                ChildOfElement::Text(_) | ChildOfElement::ProcessingInstruction(_) => {}
            }
        }
        let _ = writeln!(out, "{indent}</{name}>");
    }
}

/// The name as it is written, with its prefix if it has one.
fn named(element: Element<'_>) -> String {
    let local = element.name().local_part();
    element.preferred_prefix().map_or_else(|| local.to_owned(), |prefix| format!("{prefix}:{local}"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "\
<network xmlns:netd='urn:netd:network:1'>
  <name>a &amp; b</name>
  <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp>
      <range start='192.168.122.2' end='192.168.122.254'/>
    </dhcp>
  </ip>
  <netd:guests talk='no'/>
</network>
";

    fn chosen(expression: &str, wrap: bool) -> String {
        choose(XML, expression, wrap).unwrap()
    }

    /// The expected texts of the first four are virsh 9.0's own.
    #[test]
    fn nodes_are_written_as_virsh_writes_them() {
        assert_eq!(chosen("//ip/@address", false), " address=\"192.168.122.1\"\n");
        let range = "<nodes>\n  <range start=\"192.168.122.2\" end=\"192.168.122.254\"/>\n</nodes>\n";
        assert_eq!(chosen("//range", true), range);
        assert_eq!((chosen("//nope", true), chosen("//nope", false)), ("<nodes/>\n".to_owned(), String::new()));
        assert_eq!(
            chosen("//ip|//bridge", false),
            "<bridge name=\"virbr0\" stp=\"on\" delay=\"0\"/>\n\
             <ip address=\"192.168.122.1\" netmask=\"255.255.255.0\">\n  <dhcp>\n    \
             <range start=\"192.168.122.2\" end=\"192.168.122.254\"/>\n  </dhcp>\n</ip>\n"
        );
        assert_eq!(chosen("//name/text()", false), "a &amp; b\n");
        assert_eq!(chosen("/network/name", false), "<name>a &amp; b</name>\n");
        let ours = "<netd:guests xmlns:netd=\"urn:netd:network:1\" talk=\"no\"/>\n";
        assert_eq!(chosen("//netd:guests", false), ours);
    }

    #[test]
    fn what_names_no_nodes_is_refused() {
        for expression in ["count(//ip)", "//[", "", "//unknown:ip", "'text'"] {
            let failure = choose(XML, expression, false).unwrap_err().to_string();
            assert!(
                failure.starts_with(&format!("error: internal error: Incorrect xpath '{expression}'\n")),
                "{failure}"
            );
        }
    }
}
