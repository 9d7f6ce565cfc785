//! The static release binary.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::step::{cargo, loud, root};

/// Builds kedge as one static binary and returns its path.
pub fn release() -> Result<PathBuf> {
    if !cfg!(target_os = "linux") {
        bail!("kedge runs on Linux; build it there");
    }
    loud(as_released(cargo().args(["build", "--locked", "--package", "kedge"])))?;
    Ok(root().join("target").join(target()).join("release").join("kedge"))
}

/// Makes a cargo command build in release mode and statically.
pub fn as_released(command: &mut Command) -> &mut Command {
    // With an explicit target the flags leave build scripts and macros alone.
    command.args(["--release", "--target", &target()]).env("RUSTFLAGS", "-C target-feature=+crt-static")
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
