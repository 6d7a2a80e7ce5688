//! EDGE: manual pages, one for the program and one for each verb, written to a directory; from the same definitions as
//! the help.

use std::{fs, io, path::Path};

use clap::CommandFactory;

use super::args::Cli;

/// Writes `netd.1`, `netd-net-start.1` and so on.
pub(super) fn write(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let command =
        Cli::command().disable_help_subcommand(true).mut_subcommand("port", |port| port.disable_help_subcommand(true));
    clap_mangen::generate_to(command, directory)
}
