//! Where netd's answers to virsh may differ from libvirtd's, one by one, with the reason. `docs/libvirt.md` has the same
//! table; a test compares them. Another test fails when one of these is needed nowhere any more.

/// Which virsh: libvirtd's answers were recorded with Debian 12's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virsh {
    /// Any version.
    Any,
    /// 9.0.
    Debian12,
    /// 11.3.
    Debian13,
}

/// Lines that may take the place of others.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// What it is called.
    pub name: &'static str,
    /// Why we answer something else.
    pub why: &'static str,
    /// With which virsh.
    pub virsh: Virsh,
    /// In which sessions. Each must need it.
    pub sessions: &'static [&'static str],
    /// The command has this in it.
    pub command: &'static str,
    /// The lines of libvirtd's answer, as they are in the session's file. `*` stands for anything.
    pub theirs: &'static [&'static str],
    /// The lines of ours.
    pub ours: &'static [&'static str],
}

impl Difference {
    /// May it be used in this session?
    pub fn is_for(&self, session: &str, virsh: Virsh) -> bool {
        (self.virsh == Virsh::Any || self.virsh == virsh) && self.sessions.contains(&session)
    }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[];
