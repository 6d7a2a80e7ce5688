//! EDGE: runs `nft -j -f -`, once per transaction, in the caller's network namespace.
//!
//! One call is one transaction: the kernel takes all of it or none. Nothing is read back. The `nftables` crate's own
//! runner is not used because it does not capture what `nft` says on stderr, which is all there is to tell a missing
//! kernel module from a missing privilege.

use std::{io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    forwards::Forward,
    intent::{Mode, Network},
    ruleset::{self, Transaction},
};

/// Where `nft` may be; a daemon's PATH often lacks the `sbin` directories.
pub(crate) const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// A transaction takes tens of milliseconds; one that takes this long will never end.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a change of the ruleset was not made. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that `nft` would not take for the name of an interface.
    #[error(
        "'{0}' cannot be used in nftables rules: an interface name there is 1 to 15 of letters, digits, '.', '_' and '-'"
    )]
    Interface(String),
    /// There is no `nft` program.
    #[error("cannot find the nft program, which makes the NAT and firewall rules: install the package nftables")]
    NoNft,
    /// `nft` may not change the ruleset.
    #[error("nft may not change the firewall: {stderr}; run netd as root or give it CAP_NET_ADMIN")]
    Permission {
        /// What it said.
        stderr: String,
    },
    /// The kernel lacks a part of nftables.
    #[error(
        "the kernel lacks a part of nftables that netd needs: {stderr}; load nf_tables, nft_chain_nat, nft_masq, \
         nft_ct, nft_fib_inet and nft_reject_inet with modprobe (after a kernel upgrade: reboot first)"
    )]
    Kernel {
        /// What `nft` said.
        stderr: String,
    },
    /// `nft` could not be run.
    #[error("cannot run {program}: {cause}")]
    Run {
        /// The program.
        program: String,
        /// Why.
        cause: io::Error,
    },
    /// `nft` did not end.
    #[error("nft did not finish within {} s and was killed", DEADLINE.as_secs())]
    Timeout,
    /// `nft` refused for another reason.
    #[error("nft refused the rules: {stderr}")]
    Refused {
        /// What it said.
        stderr: String,
    },
}

/// Makes the whole table anew with these networks and forwards and no others, without a gap: for healing and for a
/// restart.
pub async fn replace(networks: &[Network], forwards: &[Forward]) -> Result<(), Error> {
    networks.iter().try_for_each(check)?;
    forwards.iter().try_for_each(|forward| check_name(&forward.bridge))?;
    run(&ruleset::replace(networks, forwards)).await
}

/// Takes the whole table away. Fine if it was not there.
pub async fn delete_table() -> Result<(), Error> {
    run(&ruleset::delete_table()).await
}

/// Asks the kernel whether it would take this network's rules, and changes nothing: `nft` sends the transaction and
/// then breaks it off.
pub async fn rehearse(network: &Network) -> Result<(), Error> {
    check(network)?;
    run_any(&PROGRAMS, &["--check", "-j", "-f", "-"], &ruleset::add(network)).await
}

/// Names reach `nft` as expressions, where `*`, `@` and others mean something.
pub(crate) fn check(network: &Network) -> Result<(), Error> {
    let dev = match &network.mode {
        Mode::Nat { dev, .. } | Mode::Route { dev } => dev.as_ref(),
        Mode::Open | Mode::Isolated => None,
    };
    [Some(&network.bridge), dev].into_iter().flatten().try_for_each(|name| check_name(name))
}

/// Whether it is a name that means nothing but itself to `nft`.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !(1..=15).contains(&name.len()) || !name.chars().all(plain) {
        return Err(Error::Interface(name.to_owned()));
    }
    Ok(())
}

/// A transaction in `nft`'s own language.
pub(crate) async fn run_text(text: &[u8]) -> Result<(), Error> {
    feed_any(&PROGRAMS, &["-f", "-"], text).await
}

pub(crate) async fn run(transaction: &Transaction<'_>) -> Result<(), Error> {
    run_any(&PROGRAMS, &["-j", "-f", "-"], transaction).await
}

/// By the first of the programs that exists.
async fn run_any(programs: &[&str], arguments: &[&str], transaction: &Transaction<'_>) -> Result<(), Error> {
    let json = serde_json::to_vec(transaction)
        .map_err(|cause| Error::Run { program: "nft".to_owned(), cause: cause.into() })?;
    feed_any(programs, arguments, &json).await
}

async fn feed_any(programs: &[&str], arguments: &[&str], input: &[u8]) -> Result<(), Error> {
    for program in programs {
        match tokio::time::timeout(DEADLINE, run_program(program, arguments, input)).await {
            Ok(Err(Error::Run { cause, .. })) if cause.kind() == io::ErrorKind::NotFound => {}
            Ok(result) => return result,
            Err(_) => return Err(Error::Timeout),
        }
    }
    Err(Error::NoNft)
}

async fn run_program(program: &str, arguments: &[&str], input: &[u8]) -> Result<(), Error> {
    let failed = |cause| Error::Run { program: program.to_owned(), cause };
    let mut child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        match stdin {
            // A broken pipe is an nft that gave up early; it says why on stderr.
            Some(mut stdin) => stdin.write_all(input).await.or_else(|e| match e.kind() {
                io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(e),
            }),
            None => Ok(()),
        }
    };
    let (fed, output) = tokio::join!(feed, child.wait_with_output());
    fed.map_err(failed)?;
    let output = output.map_err(failed)?;
    tracing::debug!(bytes = input.len(), status = %output.status, "nft transaction");
    if output.status.success() {
        return Ok(());
    }
    Err(classify(&String::from_utf8_lossy(&output.stderr), output.status.to_string()))
}

/// The kernel answers with an errno, which `nft` prints in words.
fn classify(stderr: &str, status: String) -> Error {
    let said: Vec<&str> = stderr.lines().map(str::trim).filter(|line| line.contains("rror:")).collect();
    let stderr = match said.first() {
        Some(first) => first.trim_start_matches("internal:0:0-0: ").trim_start_matches("Error: ").to_owned(),
        None if stderr.trim().is_empty() => status,
        None => stderr.trim().to_owned(),
    };
    let says = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if says(&["Operation not permitted", "Permission denied"]) {
        Error::Permission { stderr }
    } else if says(&["No such file or directory", "not supported"]) {
        // Every object a transaction of ours names is made in it, so what does not exist is a chain or expression type.
        Error::Kernel { stderr }
    } else {
        Error::Refused { stderr }
    }
}

#[cfg(test)]
mod tests;
