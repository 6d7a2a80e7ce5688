//! Where netd's answers to virsh may differ from libvirtd's, one by one, with the reason: `tests/golden/virsh/differences`.
//! `docs/libvirt.md` has the same names and reasons; a test compares them.

use anyhow::{Context, Result, bail};

/// Which virsh: libvirtd's answers were recorded with Debian 12's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virsh {
    /// 9.0.
    Debian12,
    /// 11.3.
    Debian13,
}

/// Lines that may take the place of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What it is called.
    pub name: String,
    /// Why we answer something else.
    pub why: String,
    /// Only Debian 13's virsh is answered so.
    pub only_debian13: bool,
    /// It is seen in some runs and not in others.
    pub sometimes: bool,
    /// In which sessions.
    pub sessions: Vec<String>,
    /// The command has this in it.
    pub command: String,
    /// The lines of libvirtd's answer, as they are in the session's file. `*` stands for anything.
    pub theirs: Vec<String>,
    /// The lines of ours.
    pub ours: Vec<String>,
}

impl Difference {
    /// May it be used in this session?
    pub fn is_for(&self, session: &str, virsh: Virsh) -> bool {
        (virsh == Virsh::Debian13 || !self.only_debian13) && self.sessions.iter().any(|name| name == session)
    }
}

/// Reads the file.
pub fn parse(text: &str) -> Result<Vec<Difference>> {
    let mut differences: Vec<Difference> = Vec::new();
    let mut about = Difference::default();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("line {}: {line}", number + 1);
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" => {}
            "=" => about = Difference { name: rest.to_owned(), ..Difference::default() },
            ":" => about.why = rest.to_owned(),
            "virsh" if rest == "11" => about.only_debian13 = true,
            "sometimes" => about.sometimes = true,
            "@" => {
                let (sessions, command) = rest.split_once(" $ ").with_context(wrong)?;
                let sessions = sessions.split(' ').map(str::to_owned).collect();
                differences.push(Difference { sessions, command: command.to_owned(), ..about.clone() });
            }
            "-" => differences.last_mut().with_context(wrong)?.theirs.push(rest.to_owned()),
            "+" => differences.last_mut().with_context(wrong)?.ours.push(rest.to_owned()),
            _ => bail!(wrong()),
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_read() {
        let text = "# x\n= stp\n: it is off\n@ a b $ net-dumpxml\n- |   on\n+ |   off\n@ c $ \n+ ! x\n\n= new\n: it is\nvirsh 11\nsometimes\n@ a $ y\n- |\n";
        let read = parse(text).unwrap();
        let first = &read[0];
        assert_eq!((&*first.name, &*first.why, &*first.command), ("stp", "it is off", "net-dumpxml"));
        assert_eq!((&first.theirs[..], &first.ours[..]), (&["|   on".to_owned()][..], &["|   off".to_owned()][..]));
        assert_eq!((&*read[1].name, &*read[1].sessions[0], read[1].ours.len()), ("stp", "c", 1));
        assert!(read[2].only_debian13 && read[2].sometimes && read[2].theirs == ["|"]);
        assert!(read[2].is_for("a", Virsh::Debian13) && !read[2].is_for("a", Virsh::Debian12));
        assert!(first.is_for("b", Virsh::Debian12) && !first.is_for("c", Virsh::Debian12));
        for bad in ["- x", "@ a", "what", "virsh 12"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
