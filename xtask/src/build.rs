//! The static binary: as it is released, and as tests run it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step::{cargo, loud, root};

/// The profile of what is released.
const RELEASE: &str = "release";
/// The profile of what tests run.
const QUICK: &str = "quick";

/// Builds kedge as one static binary, as it is released, and returns its path.
pub fn release() -> Result<PathBuf> {
    binary(RELEASE)
}

/// Builds the static binary that tests run, without optimisation and with checks of overflow, and returns its path.
pub fn quick() -> Result<PathBuf> {
    binary(QUICK)
}

fn binary(profile: &str) -> Result<PathBuf> {
    if !cfg!(target_os = "linux") {
        bail!("kedge runs on Linux; build it there");
    }
    println!("  build kedge ({profile}, static)");
    loud(statically(cargo().args(["build", "--locked", "--package", "kedge"]), profile))?;
    Ok(root().join("target").join(target()).join(profile).join("kedge"))
}

/// Makes a cargo command build in release mode and statically.
pub fn as_released(command: &mut Command) -> &mut Command {
    statically(command, RELEASE)
}

fn statically<'a>(command: &'a mut Command, profile: &str) -> &'a mut Command {
    // With an explicit target the flags leave build scripts and macros alone.
    command.args(["--profile", profile, "--target", &target()]).env("RUSTFLAGS", "-C target-feature=+crt-static")
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
