//! EDGE: what a space's kernel holds, as text, so that before and after can be compared.

use anyhow::{Result, bail};

use crate::space::Space;

/// What must be the same before and after: links, addresses, routes, rules, firewall tables, sysctls, processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    parts: Vec<(&'static str, String)>,
}

impl Snapshot {
    /// Looks at a space.
    pub fn take(space: &Space) -> Result<Self> {
        let mut parts = Vec::new();
        let mut part = |name, text: String| parts.push((name, text));
        part("links", names_only(&space.ip("-o link show")?));
        part("addresses", space.ip("-o -4 addr show")?);
        part("routes", space.ip("-4 route show table all")?);
        part("IPv6 addresses", space.ip("-o -6 addr show scope global")?);
        part("IPv6 routes", without_the_links(&space.ip("-6 route show table all")?));
        part("routing rules", space.ip("rule show")?);
        part("firewall", space.check("nft", &["list", "ruleset"])?);
        let switches = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.all.rp_filter"];
        part("sysctls", space.check("sysctl", &switches)?);
        let processes = space.processes()?;
        part("processes", processes.into_iter().map(|(pid, line)| format!("{pid} {line}\n")).collect());
        Ok(Snapshot { parts })
    }

    /// The same as if one process were not there.
    #[must_use]
    pub fn without_process(mut self, pid: u32) -> Self {
        for (name, text) in &mut self.parts {
            if *name == "processes" {
                *text = text.split_inclusive('\n').filter(|line| !line.starts_with(&format!("{pid} "))).collect();
            }
        }
        self
    }

    /// An error that shows all that is different now.
    pub fn same_as(&self, before: &Snapshot) -> Result<()> {
        let mut differences = String::new();
        for ((name, now), (_, then)) in self.parts.iter().zip(&before.parts) {
            if now != then {
                differences += &format!("{name} before:\n{then}{name} now:\n{now}");
            }
        }
        if !differences.is_empty() {
            bail!("the host is not as it was:\n{differences}");
        }
        Ok(())
    }
}

/// Without the routes that every link has: they come when it has found its own address to be free.
fn without_the_links(routes: &str) -> String {
    let on_the_link = |line: &&str| line.contains("fe80:") || line.contains("ff00::/8");
    routes.split_inclusive('\n').filter(|line| !on_the_link(line)).collect()
}

/// The names of links: their states and numbers may change.
fn names_only(links: &str) -> String {
    let mut names: Vec<&str> = links.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    names.sort_unstable();
    names.join("\n") + "\n"
}
