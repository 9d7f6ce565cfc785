//! The `kedge` command: flags and output; the work is in the crates below.

fn main() {}
