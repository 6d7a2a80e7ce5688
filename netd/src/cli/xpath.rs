//! `--xpath` and `--wrap`: what of an XML document an XPath 1.0 expression names, written as virsh writes it. Pure.
//!
//! `sxd-xpath` finds the nodes. It keeps no order of attributes, so what is written comes from a second tree, by place.

use std::fmt::Write;

use roxmltree::{Document, Node as Written};
use sxd_document::{dom::Element, parser};
use sxd_xpath::{Context, Factory, Value, nodeset::Node};

use super::failure::Failure;

/// Longer expressions are refused: the library goes one deeper for every bracket.
const LONGEST: usize = 1000;

/// The nodes, each on lines of its own; with `wrap` inside one `<nodes>`. Nothing found is an empty text.
pub(super) fn choose(xml: &str, expression: &str, wrap: bool) -> Result<String, Failure> {
    let incorrect = || Failure::new(format!("internal error: Incorrect xpath '{expression}'"));
    let why = |why: String| incorrect().because(format!("XPath error : {why}"));
    let broken = |error: String| Failure::new(format!("XML error: {error}"));
    let written = Document::parse(xml).map_err(|error| broken(error.to_string()))?;
    let package = parser::parse(xml).map_err(|error| broken(error.to_string()))?;
    let document = package.as_document();
    let mut context = Context::new();
    // The prefixes of the document mean in the expression what they mean there.
    let mut prefixes = Vec::new();
    for namespace in written.root_element().namespaces() {
        if let Some(prefix) = namespace.name() {
            context.set_namespace(prefix, namespace.uri());
            prefixes.push(prefix);
        }
    }
    if expression.len() > LONGEST {
        return Err(why(format!("the expression is longer than {LONGEST} bytes")));
    }
    if let Some(prefix) = prefixes_of(expression).into_iter().find(|prefix| !prefixes.contains(&prefix.as_str())) {
        return Err(why(format!("Undefined namespace prefix '{prefix}'")));
    }
    let xpath = Factory::new().build(expression).map_err(|error| why(error.to_string()))?;
    let xpath = xpath.ok_or_else(|| why("the expression is empty".into()))?;
    let Value::Nodeset(nodes) = xpath.evaluate(&context, document.root()).map_err(|error| why(error.to_string()))?
    else {
        return Err(incorrect());
    };
    let nodes = nodes.document_order();
    let mut text = String::new();
    let depth = usize::from(wrap);
    let mut before = None;
    for node in &nodes {
        // The library takes a text with an entity in it for several.
        let goes_on = node.text().is_some() && node.parent() == before;
        if goes_on && text.ends_with('\n') {
            text.pop();
        }
        write_node(&mut text, *node, &written, if goes_on { 0 } else { depth });
        before = node.text().and_then(|_| node.parent());
    }
    Ok(match (wrap, nodes.is_empty()) {
        (false, _) => text,
        (true, true) => "<nodes/>\n".to_owned(),
        (true, false) => format!("<nodes>\n{text}</nodes>\n"),
    })
}

/// The prefixes in an expression: names before a single colon, outside of quotes. The library panics over one that it
/// does not know.
fn prefixes_of(expression: &str) -> Vec<String> {
    let (mut prefixes, mut name, mut quote) = (Vec::new(), String::new(), None);
    let mut rest = expression.chars().peekable();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (Some(end), _) if c == end => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, ':') if rest.peek() == Some(&':') => {
                rest.next();
                name.clear();
            }
            (None, ':') => prefixes.push(std::mem::take(&mut name)),
            (None, _) if c.is_alphanumeric() || matches!(c, '_' | '-' | '.') => name.push(c),
            (None, _) => name.clear(),
        }
    }
    prefixes
}

fn write_node(out: &mut String, node: Node<'_>, written: &Document<'_>, depth: usize) {
    let indent = "  ".repeat(depth);
    match node {
        Node::Root(_) => element(out, written.root_element(), depth),
        Node::Element(found) => {
            if let Some(found) = same(found, written) {
                element(out, found, depth);
            }
        }
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

/// The same element in the other tree: reached by the same way from the root.
fn same<'a>(found: Element<'_>, written: &'a Document<'a>) -> Option<Written<'a, 'a>> {
    let mut way = Vec::new();
    let mut at = found;
    while let Some(parent) = at.parent().and_then(|parent| parent.element()) {
        way.push(parent.children().iter().filter_map(|child| child.element()).position(|child| child == at)?);
        at = parent;
    }
    way.iter().rev().try_fold(written.root_element(), |at, place| at.children().filter(Written::is_element).nth(*place))
}

/// An element with all it has: children on lines of their own, unless there is text among them.
fn element(out: &mut String, element: Written<'_, '_>, depth: usize) {
    let indent = "  ".repeat(depth);
    let name = named(element);
    let _ = write!(out, "{indent}<{name}");
    let known = |uri: &str| element.parent().is_some_and(|parent| parent.namespaces().any(|known| known.uri() == uri));
    // As libxml2 does: what is declared further up is not said again.
    for namespace in element.namespaces().filter(|namespace| !known(namespace.uri())) {
        if let Some(prefix) = namespace.name() {
            let _ = write!(out, " xmlns:{prefix}=\"{}\"", escaped(namespace.uri()));
        }
    }
    for attribute in element.attributes() {
        let _ = write!(out, " {}=\"{}\"", attribute.name(), escaped(attribute.value()));
    }
    let is_blank = |child: &Written<'_, '_>| child.is_text() && child.text().unwrap_or_default().trim().is_empty();
    let children: Vec<_> = element.children().filter(|child| !is_blank(child)).collect();
    if children.is_empty() {
        out.push_str("/>\n");
    } else if children.iter().any(Written::is_text) {
        let text: String = children.iter().filter_map(Written::text).map(escaped).collect();
        let _ = writeln!(out, ">{text}</{name}>");
    } else {
        out.push_str(">\n");
        for child in children {
            if child.is_element() {
                self::element(out, child, depth + 1);
            } else if child.is_comment() {
                let _ = writeln!(out, "{indent}  <!--{}-->", child.text().unwrap_or_default());
            }
        }
        let _ = writeln!(out, "{indent}</{name}>");
    }
}

/// The name as it is written, with its prefix if it has one.
fn named<'a>(element: Written<'a, '_>) -> &'a str {
    let text = element.document().input_text();
    let tag = text.get(element.range()).unwrap_or_default().trim_start_matches('<');
    let end = tag.find(|c: char| c.is_whitespace() || c == '/' || c == '>').unwrap_or(tag.len());
    &tag[..end]
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
        assert_eq!(chosen("//netd:guests", false), "<netd:guests talk=\"no\"/>\n");
        assert!(chosen("/", false).starts_with("<network xmlns:netd=\"urn:netd:network:1\">\n  <name>"));
    }

    #[test]
    fn what_names_no_nodes_is_refused() {
        let long = "(".repeat(5000);
        for expression in ["count(//ip)", "//[", "", "//unknown:ip", "'text'", "$x", "nope()", "//ip/unknown:*", &long]
        {
            let failure = choose(XML, expression, false).unwrap_err().to_string();
            assert!(
                failure.starts_with(&format!("error: internal error: Incorrect xpath '{expression}'\n")),
                "{failure}"
            );
        }
    }

    #[test]
    fn prefixes_are_found_and_axes_and_quotes_are_none() {
        let none: [&str; 0] = [];
        assert_eq!(prefixes_of("//a:b[@c='d:e']/child::f | netd:g"), ["a", "netd"]);
        assert_eq!(prefixes_of("descendant-or-self::node()/ip[1]"), none);
        assert_eq!(prefixes_of(":"), [""]);
    }
}
