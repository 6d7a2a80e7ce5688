//! EDGE: programs that know more than we do, run for the doctor to look, never to change: nft, iptables-save, vmm probe.

use std::{
    ffi::OsStr,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use ipnet::{Ipv4Net, Ipv6Net};
use tokio::process::Command;

use super::{
    super::facts::{Nft, Rules, Seen, Unseen, Vcpu},
    host::read,
};

/// Directories that a user's PATH often lacks.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A ruleset of some megabytes takes seconds to print; a probe of a slow KVM takes some, too.
const PATIENCE: Duration = Duration::from_secs(20);

/// A network whose rules have all there is in ours, and which no host has.
fn sample() -> nat::Network {
    nat::Network {
        bridge: "netd-doctor".to_owned(),
        mode: nat::Mode::Nat { dev: None, addresses: None, ports: (1024, 65535), ipv6: true },
        subnets: vec![
            Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24).into(),
            Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 64).into(),
        ],
        dns_redirect: Some(nat::DnsRedirect { addresses: vec![Ipv4Addr::new(192, 0, 2, 1).into()], port: 5353 }),
        policy: nat::Policy::default(),
    }
}

/// Has the kernel look at rules like ours, without taking them.
pub(super) async fn nft_takes_our_rules() -> Nft {
    match nat::rehearse(&sample()).await {
        Ok(()) => Nft::Works,
        Err(nat::Error::NoNft) => Nft::Absent,
        Err(nat::Error::Permission { .. }) => Nft::Forbidden,
        Err(other) => Nft::Refused(other.to_string()),
    }
}

/// Every table's rules, as the programs that know them print them.
pub(crate) async fn rules() -> Rules {
    let nft = match run("nft", &["-j", "list", "ruleset"]).await {
        Ok(Some(text)) => Ok(text),
        Ok(None) => Err(Unseen::Failed("there is no nft program".to_owned())),
        Err(unseen) => Err(unseen),
    };
    let iptables_nft = match &nft {
        Ok(text) if text.contains("\"xt\"") => run("iptables-nft-save", &[]).await.ok().flatten(),
        _ => None,
    };
    // Reading the names makes no table; listing one that is not there would.
    let names = match read("/proc/net/ip_tables_names") {
        Err(Unseen::Failed(_)) => Ok(String::new()),
        names => names,
    };
    let legacy = match &names {
        Ok(names) if names.trim().is_empty() => Ok(None),
        Ok(_) => run("iptables-legacy-save", &[]).await,
        Err(unseen) => Err(unseen.clone()),
    };
    let legacy_tables = names.unwrap_or_default().lines().map(str::to_owned).collect();
    Rules { nft, iptables_nft, legacy, legacy_tables }
}

/// The tables the kernel has for legacy iptables, of both families.
pub(crate) fn legacy_tables() -> Vec<String> {
    let names = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"].map(|path| read(path).unwrap_or_default());
    let mut names: Vec<String> = names.iter().flat_map(|text| text.lines()).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// What the rules of legacy iptables have counted, of both families, as far as there are programs to read them.
pub(crate) async fn legacy_counters() -> Vec<(&'static str, String)> {
    let mut read_by = Vec::new();
    for (program, save) in [("iptables-legacy", "iptables-legacy-save"), ("ip6tables-legacy", "ip6tables-legacy-save")]
    {
        if let Ok(Some(text)) = run(save, &["-c"]).await {
            read_by.push((program, text));
        }
    }
    read_by
}

/// What a program prints; `None` if there is no such program.
async fn run(program: &str, arguments: &[&str]) -> Seen<Option<String>> {
    let Some(output) = output(program, arguments).await? else { return Ok(None) };
    if output.status.success() {
        return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let first = stderr.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    let forbidden = ["not permitted", "Permission denied", "must be root"].iter().any(|words| stderr.contains(words));
    Err(if forbidden { Unseen::Forbidden } else { Unseen::Failed(format!("{program}: {first} ({})", output.status)) })
}

async fn output(program: &str, arguments: &[&str]) -> Seen<Option<Output>> {
    let places = SBIN.iter().map(|directory| PathBuf::from(directory).join(program));
    for place in std::iter::once(PathBuf::from(program)).chain(places) {
        match tokio::time::timeout(PATIENCE, start(place.as_os_str(), arguments)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(Ok(output)) => return Ok(Some(output)),
            Ok(Err(error)) => return Err(Unseen::Failed(format!("{program}: {error}"))),
            Err(_) => return Err(Unseen::Failed(format!("{program} did not end within {} s", PATIENCE.as_secs()))),
        }
    }
    Ok(None)
}

async fn start(program: &OsStr, arguments: &[&str]) -> io::Result<Output> {
    Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true).output().await
}

/// Runs `vmm probe`: the one beside this program, else the one on PATH.
pub(super) async fn vmm_probe() -> Vcpu {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("vmm")).filter(|vmm| vmm.exists());
    let program = beside.unwrap_or_else(|| PathBuf::from("vmm"));
    match tokio::time::timeout(PATIENCE, start(program.as_os_str(), &["probe"])).await {
        Ok(Ok(output)) if output.status.success() => Vcpu::Runs,
        Ok(Ok(output)) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let line = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("vmm probe ended without a word");
            Vcpu::DoesNot(line.trim().trim_start_matches("error: ").to_owned())
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Vcpu::NoVmm,
        Ok(Err(error)) => Vcpu::DoesNot(format!("{} cannot be run: {error}", program.display())),
        Err(_) => Vcpu::DoesNot(format!("vmm probe did not end within {} s", PATIENCE.as_secs())),
    }
}
