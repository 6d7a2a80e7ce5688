//! The `netd` program: see `netd::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    netd::cli::main()
}
