//! EDGE: where tests with real guests run: here if this machine's KVM can, else in the lab.

use std::{process::Command, sync::OnceLock};

use anyhow::{Context, Result, bail};

use crate::{in_lab::here_or_in_lab, initramfs, paths};

/// Runs a test's body where guests can run; the closure must stand in the test function itself.
pub fn on_kvm<F: FnOnce() -> Result<()>>(body: F) -> Result<()> {
    let prepare = || initramfs::guest_image().map(drop);
    here_or_in_lab("KVM cannot run guests here", kvm_runs_guests, prepare, body)
}

/// Asks `vmm probe`, which runs a vCPU: a `/dev/kvm` that opens may still run no stock kernel.
pub fn kvm_runs_guests() -> Result<bool> {
    static ANSWER: OnceLock<Result<bool>> = OnceLock::new();
    let answer = ANSWER.get_or_init(|| {
        let output = Command::new(paths::program("vmm")?).arg("probe").output().context("cannot run `vmm probe`")?;
        Ok(output.status.success())
    });
    match answer {
        Ok(answer) => Ok(*answer),
        Err(error) => bail!("{error:#}"),
    }
}
