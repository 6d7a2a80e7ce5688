//! `lab run -- COMMAND`: runs a command where KVM guests can run; `lab image`: builds the test guest's image.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use tests::{
    initramfs,
    lab::{self, Job, Outcome},
};

const USAGE: &str = "usage: lab run [--cpus N] [--memory SIZE] [--timeout SECONDS] [--out DIR] [--qemu ARGS] [--once] \
                     -- COMMAND…\n       lab image";

fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("run") => run(words),
        Some("image") => {
            let image = initramfs::guest_image()?;
            println!("kernel {}\ninitrd {}", image.kernel.display(), image.initrd.display());
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!(USAGE),
    }
}

fn run(mut words: impl Iterator<Item = OsString>) -> Result<ExitCode> {
    let mut job = Job::new([] as [&str; 0]);
    let mut once = false;
    while let Some(word) = words.next() {
        let option = word.to_str().unwrap_or_default().to_owned();
        if option == "--" {
            job.command = words.collect();
            break;
        }
        if option == "--once" {
            once = true;
            continue;
        }
        let value = words.next().with_context(|| format!("{option} needs a value\n{USAGE}"))?;
        let text = value.to_str().with_context(|| format!("{option}: the value is not UTF-8"))?;
        let number = || text.parse::<u32>().with_context(|| format!("{option} {text}: not a number"));
        match option.as_str() {
            "--cpus" => job.cpus = number()?,
            "--memory" => job.memory = text.to_owned(),
            "--timeout" => job.timeout = Duration::from_secs(number()?.into()),
            "--out" => job.writable.push(value.into()),
            "--qemu" => job.qemu.push(text.to_owned()),
            _ => bail!("unknown option {option}\n{USAGE}"),
        }
    }
    let mut print = |line: &str| println!("{line}");
    let outcome = if once { lab::start(&job, &mut print) } else { lab::run(&job, &mut print) }?;
    match outcome {
        Outcome::Exit(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))),
        failed => bail!("{failed}"),
    }
}
