//! The static release binary.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::step::{cargo, loud, root};

/// Builds kedge as one static binary and returns its path.
pub fn release() -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    if !cfg!(target_os = "linux") {
        bail!("kedge runs on Linux; build it there");
    }
    // With an explicit target the flags leave build scripts and macros alone.
    loud(
        cargo()
            .args(["build", "--release", "--locked", "--package", "kedge", "--target", &target])
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    Ok(root().join("target").join(target).join("release").join("kedge"))
}
