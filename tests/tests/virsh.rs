//! Debian's own virsh, 9.0 and 11.3, against netd: the answers are those that libvirtd 9.0 gave to virsh 9.0, and where they
//! are not, a named difference says why. No libvirt daemon runs here; `make goldens` recorded them.

use std::fs;

use anyhow::{Context, Result};
use tests::{
    front_door::FrontDoor,
    paths, trixie,
    virsh::{
        compare,
        differences::Virsh,
        play::{self, Terminal},
    },
};

fn plays(name: &str, virsh: Virsh) -> Result<()> {
    let mut door = FrontDoor::new(&format!("{name}-{virsh:?}").replace('/', "-").to_lowercase())?;
    let recorded = play::read(name)?;
    let mut terminal = Terminal::new(door.host())?;
    if virsh == Virsh::Debian13 {
        terminal = terminal.with_programs(trixie::programs(door.host())?);
    }
    let played = terminal.play(&recorded)?;
    drop(terminal);
    if let Ok(directory) = std::env::var("NETD_PLAYED") {
        // For people who look at what is different.
        fs::write(format!("{directory}/{}-{virsh:?}.session", name.replace('/', "-")), played.text())?;
    }
    compare::sessions(name, virsh, &recorded, &played, &play::differences()?)?;
    door.finish()
}

macro_rules! sessions {
    ($($session:ident)*) => {
        const SESSIONS: &[&str] = &[$(stringify!($session)),*];

        mod debian12 {
            use super::*;
            $(#[test]
            fn $session() -> Result<()> {
                plays(stringify!($session), Virsh::Debian12)
            })*
        }

        mod debian13 {
            use super::*;
            $(#[test]
            fn $session() -> Result<()> {
                plays(stringify!($session), Virsh::Debian13)
            })*
        }
    };
}

sessions! { basics dumps edits events host leases lists lives nobody ports tutorials updates wrong }

/// Verbs that virsh 9.0 does not have. Recorded beside libvirtd 11.3, by hand: `make goldens` has the machine's 9.0.
#[test]
fn networks_are_described_and_other_programs_keep_what_they_know_of_them() -> Result<()> {
    plays("debian13/described", Virsh::Debian13)
}

#[test]
fn every_session_is_played() -> Result<()> {
    assert_eq!(play::names()?, SESSIONS);
    Ok(())
}

/// The page has a table of two columns, the names and the reasons, below the heading "Differences".
#[test]
fn every_difference_is_in_the_documentation_and_nothing_else() -> Result<()> {
    let page = fs::read_to_string(paths::repository().join("docs/libvirt.md"))?;
    let section = page.split("\n## Differences\n").nth(1).context("docs/libvirt.md has a section 'Differences'")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut written: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut wanted: Vec<String> = play::differences()?
        .into_iter()
        .map(|difference| format!("| {} | {} |", difference.name, difference.why))
        .collect();
    wanted.sort();
    wanted.dedup();
    written.sort_unstable();
    assert_eq!(written, wanted);
    Ok(())
}
