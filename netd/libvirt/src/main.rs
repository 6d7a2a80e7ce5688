//! The `netd-libvirtd` program: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    netd_libvirtd::main()
}
