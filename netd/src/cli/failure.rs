//! A verb that failed: virsh's first line for it, then the cause. Pure.

use std::{fmt, io, path::Path};

use netd_api::{ClientError, ErrorKind};

/// What goes to stderr, line by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    lines: Vec<String>,
    hint: Option<String>,
    note: Option<String>,
}

/// Whom the verb was about: what could not be found is named in the first line.
#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    /// All networks, or a text that names its own.
    Nothing,
    /// A network by name or UUID.
    Network(&'a str),
    /// A guest by name.
    Guest(&'a str),
}

impl Failure {
    /// One line.
    pub(super) fn new(line: impl Into<String>) -> Self {
        Failure { lines: vec![line.into()], hint: None, note: None }
    }

    /// A file that could not be read.
    pub(super) fn file(path: &Path, cause: &io::Error) -> Self {
        Failure::new(format!("Failed to open file '{}': {}", path.display(), without_number(cause)))
    }

    /// The same with another line behind it.
    #[must_use]
    pub(super) fn because(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// The same with the next move.
    #[must_use]
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with something the user should know besides.
    #[must_use]
    pub(super) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The daemon could not be asked, or refused. `failed` is virsh's first line, empty where virsh has none.
    pub(super) fn client(failed: impl Into<String>, about: About<'_>, error: &ClientError) -> Self {
        let not_found = match (error, about) {
            (ClientError::Refused(refused), About::Network(name)) if refused.kind() == ErrorKind::NoNetwork => {
                Some(format!("failed to get network '{name}'"))
            }
            (ClientError::Refused(refused), About::Guest(name)) if refused.kind() == ErrorKind::NoGuest => {
                Some(format!("failed to get domain '{name}'"))
            }
            _ => None,
        };
        let mut lines = vec![not_found.unwrap_or_else(|| failed.into())];
        lines.retain(|line| !line.is_empty());
        match error {
            ClientError::Connect { path, cause } => Self::connect(path, cause),
            ClientError::Refused(refused) => {
                lines.push(refused.to_string());
                Failure { lines, hint: refused.hint().map(str::to_owned), note: None }
            }
            ClientError::Transport(_) => {
                lines.push(error.to_string());
                let hint = "the daemon's log says more: journalctl -u netd";
                Failure { lines, hint: Some(hint.to_owned()), note: None }
            }
        }
    }

    fn connect(path: &Path, cause: &zlink::Error) -> Self {
        let (why, hint) = match cause {
            zlink::Error::Io(error) => (
                without_number(error),
                match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        Some("netd is not running here: systemctl start netd, or netd daemon")
                    }
                    io::ErrorKind::PermissionDenied => Some("run this as root or as a member of the group netd"),
                    _ => None,
                },
            ),
            other => (other.to_string(), None),
        };
        Failure {
            lines: vec![
                "failed to connect to netd".to_owned(),
                format!("Failed to connect socket to '{}': {why}", path.display()),
            ],
            hint: hint.map(str::to_owned),
            note: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "error: {line}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "hint: {hint}")?;
        }
        match &self.note {
            Some(note) => writeln!(f, "note: {note}"),
            None => Ok(()),
        }
    }
}

/// The words of a system error, without Rust's "(os error 2)".
pub(super) fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
