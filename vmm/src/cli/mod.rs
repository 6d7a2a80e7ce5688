//! The words of the command line: what they are called, what help says about them, and what the exit code means.
//!
//! EDGE: reads the arguments and the environment, prints. Everything that is done is done elsewhere.

mod verb;
mod words;

use std::{
    io::{IsTerminal, stdout},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};

use self::words::{Arguments, Command};
use crate::{control::End, probe, run};

/// The whole program: parse, do, print, exit code.
///
/// 0: the guest powered off or was told to quit, or this host can run guests. 1: an error, said on standard error. 2: words that make no
/// sense. 128 + N: stopped by signal N before the guest had finished.
pub fn main() -> ExitCode {
    let Arguments { verbose, command } = Arguments::parse();
    log_to_stderr(verbose);
    let done = match command {
        Command::Run(words) => match words.understand() {
            Ok((config, netd)) => run::run(&config, &netd).map(exit_code).map_err(anyhow::Error::from),
            Err(error) => return complain(&error, ExitCode::from(WRONG_WORDS)),
        },
        Command::Control { socket, verb } => verb::carry_out(&socket, verb),
        Command::Probe => probe::probe().map(say).map_err(anyhow::Error::from),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "vmm", &mut stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => std::fs::create_dir_all(&directory)
            .and_then(|()| clap_mangen::generate_to(Arguments::command().disable_help_subcommand(true), &directory))
            .map(|()| ExitCode::SUCCESS)
            .map_err(|cause| anyhow::anyhow!("cannot write manual pages to {}: {cause}", directory.display())),
    };
    done.unwrap_or_else(|error| complain(&error, ExitCode::FAILURE))
}

/// Words that make no sense: clap's exit code too.
const WRONG_WORDS: u8 = 2;

fn complain(error: &dyn std::fmt::Display, code: ExitCode) -> ExitCode {
    eprintln!("error: {error}");
    code
}

fn exit_code(end: End) -> ExitCode {
    match end {
        End::PoweredOff | End::Quit => ExitCode::SUCCESS,
        End::Killed(signal) => ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
    }
}

fn say(verdict: probe::Verdict) -> ExitCode {
    println!("{verdict}");
    if verdict == probe::Verdict::Good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn log_to_stderr(verbose: bool) {
    let level = if verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_max_level(level)
        .without_time()
        .with_target(false)
        .init();
}
