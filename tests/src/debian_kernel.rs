//! EDGE: where tests run that need what a distribution's kernel has and some others have not: here if this machine's
//! kernel has all of it, else in the lab, whose kernel must.

use std::sync::OnceLock;

use anyhow::{Result, bail, ensure};

use crate::{in_lab::here_or_in_lab, lab, space::Space};

/// What it takes, with commands that succeed where it is there.
const FEATURES: [(&str, &[&str]); 2] = [
    ("VLAN filtering on bridges (CONFIG_BRIDGE_VLAN_FILTERING)", &["ip link add br0 type bridge vlan_filtering 1"]),
    (
        "policers (CONFIG_NET_CLS_U32, CONFIG_NET_ACT_POLICE)",
        &[
            "ip link add br0 type bridge",
            "tc qdisc add dev br0 ingress",
            "tc filter add dev br0 parent ffff: protocol all u32 match u32 0 0 police rate 1mbit burst 10k drop",
        ],
    ),
];

/// Runs a test's body on a kernel that has all of it; the closure must stand in the test function itself.
pub fn on_debian_kernel<F: FnOnce() -> Result<()>>(body: F) -> Result<()> {
    let missing = match missing() {
        Ok(missing) => missing.as_slice(),
        Err(error) => bail!("{error:#}"),
    };
    if lab::inside() {
        ensure!(missing.is_empty(), "the lab's kernel must have everything, and has no {}", missing.join(" and no "));
    }
    let why_not = format!("this kernel has no {}", missing.join(" and no "));
    here_or_in_lab(&why_not, || Ok(missing.is_empty()), || Ok(()), body)
}

/// What of it this machine's kernel has not.
fn missing() -> &'static Result<Vec<&'static str>> {
    static ANSWER: OnceLock<Result<Vec<&'static str>>> = OnceLock::new();
    ANSWER.get_or_init(|| {
        let mut missing = Vec::new();
        for (feature, commands) in FEATURES {
            let scratch = Space::new("features")?;
            for command in commands {
                let output = scratch.run("sh", &["-c", command])?;
                if !output.status.success() {
                    missing.push(feature);
                    break;
                }
            }
        }
        Ok(missing)
    })
}
