//! Sessions of virsh: what was typed and what it said, as text files; recorded beside libvirtd and compared beside netd.
//!
//! ```text
//! # a comment
//! @file net.xml            a file in the session's directory; its lines follow
//! < <network>…
//! $ virsh net-define net.xml
//! | what went to standard output
//! ! what went to standard error
//! ? 1                      the status, unless it is 0
//! @guest vm1 52:54:00:aa:bb:cc virbr0
//! @listen net.xml virsh net-event …    runs from here on; `virsh net-define net.xml` is repeated until it says so
//! @heard                               ends it; what it said follows
//! ```

pub mod compare;
pub mod differences;
pub mod play;

use anyhow::{Context, Result, bail};

/// How a program ended and what it printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// The exit status; 128 and the signal's number for one that a signal ended.
    pub status: i32,
}

impl Said {
    /// Its lines as they are in a session's file.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (mark, text) in [('|', &self.out), ('!', &self.err)] {
            lines.extend(text.lines().map(|line| format!("{mark} {line}").trim_end().to_owned()));
            if !text.is_empty() && !text.ends_with('\n') {
                lines.push(format!("{mark}\\ no end of line"));
            }
        }
        if self.status != 0 {
            lines.push(format!("? {}", self.status));
        }
        lines
    }
}

/// One step of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A comment or an empty line.
    Comment(String),
    /// A file that is written.
    File {
        /// Its name.
        name: String,
        /// What is in it.
        text: String,
    },
    /// A shell command line, and the lines it was answered with.
    Run {
        /// What is run.
        command: String,
        /// What was recorded.
        said: Vec<String>,
    },
    /// A machine that is plugged into a bridge and asks for a lease.
    Guest {
        /// The name it tells the DHCP server.
        name: String,
        /// Its MAC.
        mac: String,
        /// The bridge.
        bridge: String,
    },
    /// A command that runs until `Heard`.
    Listen {
        /// The definition whose repetition tells whether it listens.
        probe: String,
        /// What is run.
        command: String,
    },
    /// The end of the command that listens, and what it said.
    Heard(Vec<String>),
}

/// A session as it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// In their order.
    pub steps: Vec<Step>,
}

impl Session {
    /// Reads a session's file.
    pub fn parse(text: &str) -> Result<Self> {
        let mut steps: Vec<Step> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            match mark {
                "" | "#" => steps.push(Step::Comment(line.to_owned())),
                "@file" => steps.push(Step::File { name: rest.to_owned(), text: String::new() }),
                "<" => match steps.last_mut() {
                    Some(Step::File { text, .. }) => *text += &format!("{rest}\n"),
                    _ => bail!("line {number}: no file is written here"),
                },
                "$" => steps.push(Step::Run { command: rest.to_owned(), said: Vec::new() }),
                "@guest" => {
                    let words: Vec<&str> = rest.split(' ').collect();
                    let [name, mac, bridge] = words[..] else { bail!("line {number}: @guest NAME MAC BRIDGE") };
                    let [name, mac, bridge] = [name, mac, bridge].map(str::to_owned);
                    steps.push(Step::Guest { name, mac, bridge });
                }
                "@listen" => {
                    let (probe, command) =
                        rest.split_once(' ').with_context(|| format!("line {number}: @listen FILE COMMAND"))?;
                    steps.push(Step::Listen { probe: probe.to_owned(), command: command.to_owned() });
                }
                "@heard" => steps.push(Step::Heard(Vec::new())),
                "|" | "!" | "?" | "|\\" | "!\\" => match steps.last_mut() {
                    Some(Step::Run { said, .. } | Step::Heard(said)) => said.push(line.to_owned()),
                    _ => bail!("line {number}: nobody was asked"),
                },
                _ => bail!("line {number}: a line begins with one of # @ < $ | ! ?"),
            }
        }
        Ok(Session { steps })
    }

    /// The text of a session's file.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = Vec::new();
        for step in &self.steps {
            match step {
                Step::Comment(text) => lines.push(text.clone()),
                Step::File { name, text } => {
                    lines.push(format!("@file {name}"));
                    lines.extend(text.lines().map(|line| format!("< {line}").trim_end().to_owned()));
                }
                Step::Run { command, said } => {
                    lines.push(format!("$ {command}"));
                    lines.extend(said.iter().cloned());
                }
                Step::Guest { name, mac, bridge } => lines.push(format!("@guest {name} {mac} {bridge}")),
                Step::Listen { probe, command } => lines.push(format!("@listen {probe} {command}")),
                Step::Heard(said) => {
                    lines.push("@heard".to_owned());
                    lines.extend(said.iter().cloned());
                }
            }
        }
        lines.join("\n") + "\n"
    }

    /// What people wrote of it: values in it are the same in every run.
    pub fn script(&self) -> String {
        let written = |step: &Step| match step {
            Step::File { text, .. } => Some(text.clone()),
            Step::Run { command, .. } | Step::Listen { command, .. } => Some(command.clone()),
            Step::Guest { mac, .. } => Some(mac.clone()),
            Step::Comment(_) | Step::Heard(_) => None,
        };
        self.steps.iter().filter_map(written).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let text = "# one\n@file a.xml\n< <a>\n<\n<  </a>\n$ virsh net-list\n|  Name\n|\n! error: x\n? 1\n\n@listen a.xml virsh net-event\n@heard\n| 1\n@guest vm 52:54:00:00:00:01 virbr0\n";
        let session = Session::parse(text).unwrap();
        assert_eq!(session.text(), text);
        assert!(session.script().contains("52:54:00:00:00:01") && !session.script().contains("error: x"));
        for bad in ["| said", "< x", "@guest a b", "@listen x", "virsh list"] {
            assert!(Session::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_said_is_kept_line_by_line_and_a_missing_end_of_line_shows() {
        let said = Said { out: "a\n\nb".into(), err: "error: c\n".into(), status: 1 };
        assert_eq!(said.lines(), ["| a", "|", "| b", "|\\ no end of line", "! error: c", "? 1"]);
        assert!(Said::default().lines().is_empty());
    }
}
