//! `cargo xtask test` and `cargo xtask bench`.

use std::process::Command;

use anyhow::{Result, bail};

use crate::step::{cargo, has_program, loud, quiet, root, step};
use crate::{build, check, clients, machine, packages};

/// Installs what is missing, runs the checks, builds the binary under test and runs every test. With `--release` the
/// binary under test is the released one.
pub fn test(flags: &[String]) -> Result<()> {
    let has = |wanted: &str| flags.iter().any(|flag| flag == wanted);
    let in_ci = has("--ci");
    let filters: Vec<&String> = flags.iter().filter(|flag| !["--ci", "--release"].contains(&flag.as_str())).collect();
    println!("Kedge: tests");
    if machine::is_root() {
        packages::ensure(&[packages::NODE, packages::BUILD, packages::TEST])?;
    } else if in_ci {
        bail!("CI runs as root: tests with real containers would be skipped otherwise");
    } else {
        println!("  skipped: installation of packages (not root); tests that need root name themselves as skipped");
    }
    ensure_nextest()?;
    if filters.is_empty() {
        check::run()?;
    }
    let binary = if has("--release") { build::release()? } else { build::quick()? };
    let mut nextest = cargo();
    nextest.args(["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]);
    if in_ci {
        // Nobody debugs there, and panics say where they were all the same. Not built as the static binary is, although it
        // would be one build then: tests of clocks need a binary into which a library can be loaded.
        nextest.args(["--profile", "ci"]).env("KEDGE_NO_SKIP", "1").env("CARGO_PROFILE_DEV_DEBUG", "false");
    }
    let skipped = root().join("target").join("skipped-tests.txt");
    let _ = std::fs::remove_file(&skipped);
    match clients::ensure() {
        Ok(folder) => drop(nextest.env("KEDGE_CLIENTS", folder)),
        Err(error) if in_ci => return Err(error),
        Err(error) => println!("  skipped: {error:#}; the tests that need them name themselves"),
    }
    nextest.args(filters).env("KEDGE_BINARY", &binary).env("KEDGE_SKIPPED_FILE", &skipped);
    let result = loud(&mut nextest);
    // nextest shows nothing of tests that pass, so what was skipped is named here.
    for line in std::fs::read_to_string(&skipped).unwrap_or_default().lines() {
        println!("  skipped: {line}");
    }
    result
}

/// Measures the release binary.
pub fn bench(names: &[String]) -> Result<()> {
    println!("Kedge: benchmarks");
    let binary = build::release()?;
    // Built as the binary is, so that what both depend on is built once.
    loud(
        build::as_released(cargo().args(["run", "--quiet", "--locked", "--package", "kedge-bench"]))
            .arg("--")
            .args(names)
            .env("KEDGE_BINARY", &binary),
    )
}

/// Hostile input, for longer than the tests take. Optimized, as far more of it is tried then.
pub fn fuzz(words: &[String]) -> Result<()> {
    loud(cargo().args(["run", "--quiet", "--locked", "--release", "--package", "kedge-fuzz", "--"]).args(words))
}

fn ensure_nextest() -> Result<()> {
    if has_program("cargo-nextest")
        || Command::new("cargo").args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success())
    {
        return Ok(());
    }
    step("install cargo-nextest", || quiet(cargo().args(["install", "--locked", "cargo-nextest"])))
}
