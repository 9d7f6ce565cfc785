//! Programs of the machine, run to their end.

use std::process::{Command, Stdio};

use crate::error::Error;

/// Where programs are, on the machine and on nodes.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs `ip` with words; its output.
pub(crate) fn ip(words: &str) -> Result<String, Error> {
    run("ip", &words.split_whitespace().collect::<Vec<_>>())
}

/// Runs a program; its output.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, Error> {
    let shown = || format!("{program} {}", arguments.join(" "));
    let path = format!("{}:{PATH}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).stdin(Stdio::null()).output();
    let output = output.map_err(|source| Error::Spawn { command: shown(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = if said.trim().is_empty() { output.status.to_string() } else { said.trim().to_owned() };
    Err(Error::Command { command: shown(), output: said })
}
