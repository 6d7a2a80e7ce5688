//! The `netd` program.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "netd", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the daemon in the foreground
    Daemon {
        /// Where definitions are
        #[arg(long, default_value = "/etc/netd")]
        config_dir: PathBuf,
        /// Where leases are
        #[arg(long, default_value = "/var/lib/netd")]
        state_dir: PathBuf,
        /// Where the sockets are
        #[arg(long, default_value = "/run/netd")]
        runtime_dir: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let Verb::Daemon { config_dir, state_dir, runtime_dir } = Arguments::parse().verb;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .init();
    let options =
        netd::daemon::Options { config_dir, state_dir, runtime_dir, ..netd::daemon::Options::default() };
    Ok(netd::daemon::run(&options)?)
}
