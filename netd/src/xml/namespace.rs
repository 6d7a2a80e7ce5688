//! A metadata element as `net-metadata` shows and takes it: without its name space, which the user names beside it.

use roxmltree::{Document, Node};

use super::{
    element::{Element, document},
    error::{Error, Problem},
};
use crate::model::Metadata;

/// One element, every name in it without a name space now in that of `uri`, which `key` stands for.
///
/// # Errors
/// Not one element, one that has name spaces already, or a `key` that is no prefix.
pub fn with_namespace(text: &str, uri: &str, key: &str) -> Result<Metadata, Error> {
    let text = text.trim();
    let document = document(text)?;
    let root = document.root_element();
    let problem = |problem| Element::of(root).error(problem);
    let is_prefix = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        // XML 1.0 §2.3 keeps those for itself
        && !key.to_ascii_lowercase().starts_with("xml");
    if !is_prefix {
        return Err(problem(Problem::Value {
            what: "the key".to_owned(),
            value: crate::model::printable(key),
            expected: "a prefix of letters and digits, such as app",
        }));
    }
    if root.range() != (0..text.len()) {
        return Err(problem(Problem::Together("there can be only one element")));
    }
    if let Some(other) = root.descendants().find(|node| node.is_element() && node.tag_name().namespace().is_some()) {
        return Err(Element::of(other).error(Problem::Together("the element has a name space of its own already")));
    }
    let mut changed = text.to_owned();
    let mut inserts: Vec<(usize, String)> = names(root).into_iter().map(|at| (at, format!("{key}:"))).collect();
    let declared = format!(" xmlns:{key}='{}'", super::write::Escaped(uri));
    inserts.push((1 + root.tag_name().name().len(), declared));
    // from the back, so that offsets stay true
    inserts.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, piece) in inserts {
        changed.insert_str(at, &piece);
    }
    Ok(Metadata { namespace: uri.to_owned(), text: changed })
}

/// The element without the prefix of its name space and its declaration, if it has them on its outermost tag.
pub fn without_namespace(metadata: &Metadata) -> String {
    let text = metadata.text.as_str();
    let Ok(document) = Document::parse(text) else { return text.to_owned() };
    let root = document.root_element();
    let mut changed = text.to_owned();
    let mut cuts: Vec<std::ops::Range<usize>> = Vec::new();
    let tag = text.find('>').map_or(text, |end| &text[..end]);
    let name_end = tag.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(tag.len());
    let prefix = tag[1..name_end].split_once(':').map(|(prefix, _)| format!("{prefix}:"));
    let declaration = match &prefix {
        Some(prefix) => format!("xmlns:{}", prefix.trim_end_matches(':')),
        None => "xmlns".to_owned(),
    };
    if let Some(prefix) = &prefix {
        let ours = |at: &usize| text[*at..].starts_with(prefix.as_str());
        cuts.extend(names(root).into_iter().filter(ours).map(|at| at..at + prefix.len()));
        // an attribute with the prefix needs the declaration
        let used = |node: Node<'_, '_>| {
            node.attributes().any(|a| text.get(a.range_qname()).is_some_and(|name| name.starts_with(prefix.as_str())))
        };
        if root.descendants().any(used) {
            return text.to_owned();
        }
    }
    cuts.extend(declaration_at(text, name_end, &declaration));
    cuts.sort_by_key(|cut| std::cmp::Reverse(cut.start));
    for cut in cuts {
        changed.replace_range(cut, "");
    }
    changed
}

/// Where the declaration is in a start tag, with the white space before it.
fn declaration_at(text: &str, mut at: usize, declaration: &str) -> Option<std::ops::Range<usize>> {
    loop {
        let blank = text[at..].len() - text[at..].trim_start().len();
        let rest = &text[at + blank..];
        let (name, value) = rest.split_once('=').filter(|_| !rest.starts_with(['>', '/']))?;
        let opened = value.trim_start();
        let quote = opened.chars().next()?;
        let closed = 1 + opened[1..].find(quote)? + 1;
        let end = at + blank + name.len() + 1 + (value.len() - opened.len()) + closed;
        if name.trim_end() == declaration {
            return Some(at..end);
        }
        at = end;
    }
}

/// Where each name of a start or end tag begins.
fn names(root: Node<'_, '_>) -> Vec<usize> {
    let text = root.document().input_text();
    let mut places = Vec::new();
    for element in root.descendants().filter(Node::is_element) {
        let range = element.range();
        places.push(range.start + 1);
        if !text[range.clone()].ends_with("/>")
            && let Some(end) = text[range.clone()].rfind("</")
        {
            places.push(range.start + end + 2);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_gets_its_name_space_and_loses_it_again() {
        for plain in ["<a/>", "<a b='c'/>", "<a><b x='>'/>text<c>d</c ></a>", "<a\n b=\"'/>\"><!-- <x> --></a>"] {
            let metadata = with_namespace(plain, "http://x.example/?a&b='", "app").unwrap();
            let text = format!("<network><name>n</name><metadata>{}</metadata></network>", metadata.text);
            assert_eq!(crate::xml::parse(&text).unwrap().metadata.as_slice(), std::slice::from_ref(&metadata));
            assert_eq!(without_namespace(&metadata), plain);
        }
        let whole = with_namespace("<a><b/></a>", "u", "k").unwrap();
        assert_eq!(whole.text, "<k:a xmlns:k='u'><k:b/></k:a>");
    }

    #[test]
    fn what_is_kept_otherwise_is_shown_as_it_is_where_it_has_to_be() {
        let shown = |text: &str| without_namespace(&Metadata { namespace: "u".into(), text: text.into() });
        assert_eq!(shown("<a xmlns='u' b='c'><d/></a>"), "<a b='c'><d/></a>");
        assert_eq!(shown("<k:a xmlns:k='u' k:b='c'/>"), "<k:a xmlns:k='u' k:b='c'/>");
        assert_eq!(shown("<k:a xmlns:o='o' xmlns:k='u'><o:b/></k:a>"), "<a xmlns:o='o'><o:b/></a>");
    }

    #[test]
    fn what_is_no_element_or_no_prefix_is_refused() {
        for (text, key, expected) in [
            ("text", "k", "XML error: line 1: unknown token"),
            ("<a/><b/>", "k", "XML error: line 1: <a>: unknown token"),
            ("<a>", "k", "XML error: line 1: <a>: the text ends in the middle of an element"),
            ("<a/><!-- b -->", "k", "XML error: line 1: <a>: there can be only one element"),
            ("<a xmlns='x'/>", "k", "XML error: line 1: <a>: the element has a name space of its own already"),
            (
                "<a/>",
                "",
                "XML error: line 1: <a>: the key is '', which is not a prefix of letters and digits, such as app",
            ),
            (
                "<a/>",
                "xmlns",
                "XML error: line 1: <a>: the key is 'xmlns', which is not a prefix of letters and digits, such as app",
            ),
        ] {
            assert_eq!(with_namespace(text, "u", key).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
