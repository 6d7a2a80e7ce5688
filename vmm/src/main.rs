//! The `vmm` program: all it does is in the library, where it can be tested.

use std::process::ExitCode;

fn main() -> ExitCode {
    vmm::cli::main()
}
