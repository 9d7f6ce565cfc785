//! The checks that need no machine: format, lints, generated code, licences.

use anyhow::Result;

use crate::codegen;
use crate::step::{cargo, has_program, quiet, root, step};

/// Runs them all.
pub fn run() -> Result<()> {
    step("rustfmt", || quiet(cargo().args(["fmt", "--all", "--check"])))?;
    step("clippy", || {
        quiet(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
    })?;
    if root().join("../shared/upstream").exists() || std::env::var_os("KEDGE_UPSTREAM").is_some() {
        step("generated code is up to date", || codegen::run(true))?;
    } else {
        println!("  skipped: generated code (upstream's descriptions are not beside the repository)");
    }
    if has_program("cargo-deny") {
        step("licences and sources", || {
            quiet(cargo().args(["deny", "--offline", "check", "licenses", "bans", "sources"]))
        })?;
    } else {
        println!("  skipped: licences and sources (cargo-deny is not installed: `cargo install --locked cargo-deny`)");
    }
    Ok(())
}
