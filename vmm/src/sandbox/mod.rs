//! EDGE: what this process gives up before the guest runs: landlock, seccomp filters, no_new_privs.
//!
//! Everything is open by then. From there on no thread can open a file by its name, run a program, gain a privilege or
//! reach a network but by what it has. What a filter does not allow fails with EPERM. A thread takes a narrower role
//! when it starts; that cannot be taken back.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

pub(crate) use self::rules::Role;
use self::rules::{Allowed, Condition, allowed};

/// Why the sandbox could not be entered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("failed to make a seccomp filter: {0}: --no-sandbox runs the guest without")]
    Filter(seccompiler::BackendError),
    #[error(
        "failed to apply a seccomp filter: {0}: is CONFIG_SECCOMP_FILTER in the kernel? --no-sandbox runs the guest without"
    )]
    Apply(seccompiler::Error),
    #[error("failed to give up the file system (landlock): {0}: --no-sandbox runs the guest without")]
    Landlock(landlock::RulesetError),
}

/// The threads' filters, once this process has entered its sandbox.
static FILTERS: OnceLock<Vec<(Role, BpfProgram)>> = OnceLock::new();

/// Gives up, for this thread and all it will start, everything the guest does not need. `sockets` are socket files that
/// are removed at the end; they stay within reach of that, and nothing else does.
pub(crate) fn enter(sockets: &[&Path]) -> Result<(), SandboxError> {
    // All filters are made before the first is applied, and threads find theirs ready.
    let filters = Role::THREADS.into_iter().map(|role| Ok((role, filter(role)?)));
    let filters = filters.collect::<Result<Vec<_>, SandboxError>>()?;
    let own = filter(Role::Process)?;
    restrict_files(sockets)?;
    seccompiler::apply_filter(&own).map_err(SandboxError::Apply)?;
    // A process enters once.
    let _ = FILTERS.set(filters);
    Ok(())
}

/// Takes a role, if this process is in its sandbox. Who cannot must not go on.
pub(crate) fn take(role: Role) -> io::Result<()> {
    let filters = FILTERS.get().into_iter().flatten();
    match filters.into_iter().find(|(known, _)| *known == role) {
        Some((_, filter)) => seccompiler::apply_filter(filter).map_err(io::Error::other),
        None => Ok(()),
    }
}

fn filter(role: Role) -> Result<BpfProgram, SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for Allowed { number, conditions } in allowed(role) {
        let of_number = rules.entry(number).or_default();
        if !conditions.is_empty() {
            of_number.push(rule(&conditions).map_err(SandboxError::Filter)?);
        }
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refused, SeccompAction::Allow, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(SandboxError::Filter)
}

fn rule(conditions: &[Condition]) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = |Condition { argument, mask, value }: &Condition| {
        // The kernel takes 32 bits of ioctl requests and address families; the upper half is nobody's.
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(*mask & 0xffff_ffff), *value)
    };
    SeccompRule::new(conditions.iter().map(condition).collect::<Result<_, _>>()?)
}

/// Landlock, as far as the kernel has it. One without is told of: the filters forbid opening files all the same.
fn restrict_files(sockets: &[&Path]) -> Result<(), SandboxError> {
    let abi = ABI::V6;
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(|ruleset| ruleset.create())
        .map_err(SandboxError::Landlock)?;
    let mut ruleset = ruleset;
    for directory in sockets.iter().map(|path| directory_of(path)) {
        // A directory that cannot be opened is one in which nothing will be removed.
        let Ok(directory) = PathFd::new(&directory) else { continue };
        let rule = PathBeneath::new(directory, AccessFs::RemoveFile);
        ruleset = ruleset.add_rule(rule).map_err(SandboxError::Landlock)?;
    }
    let status = ruleset.restrict_self().map_err(SandboxError::Landlock)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::info!("this kernel has no landlock: seccomp filters alone keep the guest from files");
    }
    Ok(())
}

/// The directory a socket's file is in.
fn directory_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}
