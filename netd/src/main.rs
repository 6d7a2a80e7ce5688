//! The `netd` program.

fn main() {}
