//! Comparing two records of one session: values that are new in every run get a number, and what may differ is said.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::{
    Session, Step,
    differences::{Difference, Virsh},
};

/// The shapes of values that are new in every run: `H` is a hexadecimal digit, `D` a digit, `C` a letter or digit.
const SHAPES: [(&str, Kind); 5] = [
    ("HHHHHHHH-HHHH-HHHH-HHHH-HHHHHHHHHHHH", Kind::Uuid),
    ("HH:HH:HH:HH:HH:HH", Kind::Mac),
    ("DDDD-DD-DD DD:DD:DD.DDD+0000", Kind::Time),
    ("DDDD-DD-DD DD:DD:DD", Kind::Time),
    ("/tmp/virshCCCCCC.xml", Kind::Path),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Uuid,
    Mac,
    Time,
    Path,
}

/// Puts numbers in the place of UUIDs, MACs, times and temporary files, in the order in which they are first seen.
///
/// What the script itself says stays. The numbers are as wide as the values, so that tables stay tables.
#[derive(Debug)]
pub struct Names {
    script: String,
    uuids: Vec<String>,
    macs: Vec<String>,
}

impl Names {
    /// For a session whose steps say this ([`super::Session::script`]).
    pub fn new(script: String) -> Self {
        Names { script, uuids: Vec::new(), macs: Vec::new() }
    }

    /// One text with its values replaced.
    pub fn replace(&mut self, text: &str) -> String {
        let mut replaced = String::new();
        let mut rest = text;
        'text: while let Some(next) = rest.chars().next() {
            // A value begins where no longer word is under way.
            if !replaced.ends_with(part_of_word) {
                for (shape, kind) in SHAPES {
                    let Some(value) = rest.get(..shape.len()).filter(|value| is_of(shape, value)) else { continue };
                    if matches!(kind, Kind::Uuid | Kind::Mac) && rest[shape.len()..].starts_with(part_of_word) {
                        continue;
                    }
                    replaced += &self.name(kind, shape, value);
                    rest = &rest[shape.len()..];
                    continue 'text;
                }
            }
            replaced.push(next);
            rest = &rest[next.len_utf8()..];
        }
        replaced
    }

    fn name(&mut self, kind: Kind, shape: &str, value: &str) -> String {
        let known = match kind {
            Kind::Time => return shape.replace("DDDD-DD-DD DD:DD:DD", "YYYY-MM-DD HH:MM:SS").replace(".DDD", ".000"),
            Kind::Path => return shape.replace('C', "X"),
            _ if self.script.contains(value) || value == "00:00:00:00:00:00" => return value.to_owned(),
            Kind::Uuid => &mut self.uuids,
            Kind::Mac => &mut self.macs,
        };
        let number = known.iter().position(|seen| seen == value).unwrap_or_else(|| {
            known.push(value.to_owned());
            known.len() - 1
        }) + 1;
        match kind {
            Kind::Mac => format!("52:54:00:00:00:{number:02}"),
            _ => format!("00000000-0000-0000-0000-{number:012}"),
        }
    }
}

fn part_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == ':'
}

fn is_of(shape: &str, value: &str) -> bool {
    shape.bytes().zip(value.bytes()).all(|(shape, byte)| match shape {
        b'H' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        b'D' => byte.is_ascii_digit(),
        b'C' => byte.is_ascii_alphanumeric(),
        _ => shape == byte,
    })
}

/// Are two answers to one command the same but for these differences? Gives the numbers of those that were needed;
/// `None` if no set of them is enough.
pub fn same(command: &str, theirs: &[String], ours: &[String], allowed: &[Difference]) -> Option<BTreeSet<usize>> {
    let here: Vec<_> = allowed.iter().enumerate().filter(|(_, allowed)| command.contains(&allowed.command)).collect();
    fit(theirs, ours, &here)
}

fn fit(theirs: &[String], ours: &[String], allowed: &[(usize, &Difference)]) -> Option<BTreeSet<usize>> {
    if theirs.is_empty() && ours.is_empty() {
        return Some(BTreeSet::new());
    }
    if let ([first, theirs @ ..], [same, ours @ ..]) = (theirs, ours)
        && first == same
        && let Some(used) = fit(theirs, ours, allowed)
    {
        return Some(used);
    }
    allowed.iter().find_map(|(number, difference)| {
        let theirs = after(theirs, &difference.theirs)?;
        let ours = after(ours, &difference.ours)?;
        let mut used = fit(theirs, ours, allowed)?;
        used.insert(*number);
        Some(used)
    })
}

/// What follows these lines, if the lines begin with them.
fn after<'a>(lines: &'a [String], patterns: &[String]) -> Option<&'a [String]> {
    let (begin, rest) = lines.split_at_checked(patterns.len())?;
    begin.iter().zip(patterns).all(|(line, pattern)| matches(pattern, line)).then_some(rest)
}

/// What is between the lines that both begin and end with, and how many they begin with.
fn without_what_is_the_same<'a>(theirs: &'a [String], ours: &'a [String]) -> (usize, &'a [String], &'a [String]) {
    let begin = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let (theirs, ours) = (&theirs[begin..], &ours[begin..]);
    let end = theirs.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| a == b).count();
    (begin, &theirs[..theirs.len() - end], &ours[..ours.len() - end])
}

/// Compares what was played with what was recorded; an error shows every answer that is not the same, and the
/// differences that nobody needed.
pub fn sessions(name: &str, virsh: Virsh, recorded: &Session, played: &Session, allowed: &[Difference]) -> Result<()> {
    let here: Vec<Difference> = allowed.iter().filter(|difference| difference.is_for(name, virsh)).cloned().collect();
    let mut unused: BTreeSet<usize> = (0..here.len()).filter(|number| !here[*number].sometimes).collect();
    let (mut report, mut wrong) = (String::new(), 0);
    let mut listens = "";
    for (theirs, ours) in recorded.steps.iter().zip(&played.steps) {
        let (command, theirs, ours) = match (theirs, ours) {
            (Step::Run { command, said: theirs }, Step::Run { said: ours, .. }) => (command.as_str(), theirs, ours),
            (Step::Heard(theirs), Step::Heard(ours)) => (listens, theirs, ours),
            (Step::Listen { command, .. }, _) => {
                listens = command;
                continue;
            }
            _ => continue,
        };
        match same(command, theirs, ours, &here) {
            Some(used) => unused.retain(|number| !used.contains(number)),
            None => {
                wrong += 1;
                let (same, theirs, ours) = without_what_is_the_same(theirs, ours);
                let lines = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
                let after = if same > 0 { format!(" (after {same} lines that are the same)") } else { String::new() };
                report += &format!("$ {command}{after}\n  libvirtd:\n{}  netd:\n{}", lines(theirs), lines(ours));
            }
        }
    }
    ensure!(wrong == 0, "session {name}, {virsh:?}: {wrong} answers are not libvirtd's:\n{report}");
    let unused: Vec<&Difference> = unused.into_iter().map(|number| &here[number]).collect();
    ensure!(unused.is_empty(), "session {name}, {virsh:?}: nobody needs these differences any more: {unused:#?}");
    Ok(())
}

/// Does a line look like this? `*` stands for anything.
pub fn matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == line,
        Some((begin, more)) => line.strip_prefix(begin).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(more, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virsh::differences;

    fn allowed() -> Vec<Difference> {
        differences::parse(
            "= element\n@ s $ net-dumpxml\n- |   <old/>\n+ |   <new x='*'/>\n+ |   <more/>\n\n\
             = missing\nvirsh 11\n@ s $ \n+ ! warning\n",
        )
        .unwrap()
    }

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn new_values_are_numbered_and_those_of_the_script_stay() {
        let mut names = Names::new("mac 52:54:00:11:22:33".into());
        let text = "a 336ee2c1-2d45-41c2-9d95-73c66931c639 52:54:00:11:22:33 52:54:00:aa:bb:cc\n\
                    2026-11-20 08:47:14 /tmp/virshA1b2C3.xml 336ee2c1-2d45-41c2-9d95-73c66931c639 ff:52:54:00:aa:bb:cc";
        assert_eq!(
            names.replace(text),
            "a 00000000-0000-0000-0000-000000000001 52:54:00:11:22:33 52:54:00:00:00:01\n\
             YYYY-MM-DD HH:MM:SS /tmp/virshXXXXXX.xml 00000000-0000-0000-0000-000000000001 ff:52:54:00:aa:bb:cc"
        );
        assert_eq!(names.replace("52:54:00:aa:bb:cd"), "52:54:00:00:00:02");
    }

    #[test]
    fn only_what_is_allowed_may_differ() {
        let same = |command, theirs, ours| same(command, &lines(theirs), &lines(ours), &allowed());
        let theirs = "| <n>\n|   <old/>\n| </n>";
        let ours = "| <n>\n|   <new x='5'/>\n|   <more/>\n| </n>";
        assert_eq!(same("x", theirs, theirs), Some(BTreeSet::new()));
        assert_eq!(same("virsh net-dumpxml a", theirs, ours), Some(BTreeSet::from([0])));
        assert_eq!(same("virsh net-info a", theirs, ours), None);
        assert_eq!(same("virsh net-dumpxml a", theirs, "| <n>\n| </n>"), None);
        assert_eq!(same("x", "? 1", "! warning\n? 1"), Some(BTreeSet::from([1])));
    }

    #[test]
    fn a_session_fails_by_one_wrong_answer_and_by_a_difference_that_is_not_needed() {
        let session = |said: &str| Session::parse(&format!("$ virsh net-dumpxml a\n{said}\n")).unwrap();
        let compare = |virsh, name, ours: &str| {
            sessions(name, virsh, &session("|   <old/>"), &session(ours), &allowed()).map_err(|error| error.to_string())
        };
        let new = "|   <new x='1'/>\n|   <more/>";
        assert_eq!(compare(Virsh::Debian12, "s", new), Ok(()));
        assert!(compare(Virsh::Debian12, "t", new).unwrap_err().contains("1 answers are not libvirtd's"));
        assert!(compare(Virsh::Debian12, "s", "|   <old/>").unwrap_err().contains("name: \"element\""));
        assert!(compare(Virsh::Debian13, "s", new).unwrap_err().contains("name: \"missing\""));
        assert_eq!(compare(Virsh::Debian12, "t", "|   <old/>"), Ok(()));
    }
}
