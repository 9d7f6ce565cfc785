//! `cargo xtask up`: from a fresh machine to a running cluster with the demo on it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::step;
use crate::{build, machine, packages};

/// Checks, installs, builds and becomes `kedge up --demo`.
pub fn run(flags: &[String]) -> Result<()> {
    println!("Kedge: one command, one cluster");
    step("check the machine", || machine::check_for_node(secure_port(flags)?))?;
    packages::ensure(&[packages::NODE, packages::BUILD])?;
    let binary = build::release()?;
    let error = Command::new(&binary).args(["up", "--demo"]).args(flags).exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}

fn secure_port(flags: &[String]) -> Result<u16> {
    let inline = flags.iter().find_map(|flag| flag.strip_prefix("--secure-port="));
    let separate = flags.iter().position(|flag| flag == "--secure-port").and_then(|at| flags.get(at + 1));
    match inline.or(separate.map(String::as_str)) {
        None => Ok(6443),
        Some(text) => match text.parse() {
            Ok(port) => Ok(port),
            Err(_) => bail!("--secure-port {text:?} is no port: give a number from 1 to 65535"),
        },
    }
}
