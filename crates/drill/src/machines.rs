//! Commands on machines: on this one, or on the test hosts of `kedge cluster`.
//!
//! Invariant: no command runs longer than a bound, and none is a text put together from a scenario's values: those are
//! arguments of a fixed script (scenario's own commands apart, which are shell by what they are).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;

/// Where `kedge` lies on a test host.
const NODE_PROGRAM: &str = "/run/kedge/kedge";
/// In seconds; the doctor takes up to two minutes to see that what it mended is well.
const PATIENCE: &str = "180";

/// The machines of a cluster.
#[derive(Debug, Clone)]
pub(crate) enum Machines {
    /// This one alone, under this name.
    Here {
        /// Its name.
        name: String,
    },
    /// Test hosts.
    TestHosts {
        /// The directory of all clusters.
        clusters: PathBuf,
    },
}

/// What a command said.
#[derive(Debug, Clone)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) stdout: Vec<u8>,
    pub(crate) said: String,
}

impl Ran {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim().to_owned()
    }
}

impl Machines {
    /// The path of kedge on a machine.
    pub(crate) fn kedge(&self) -> Result<String, Error> {
        match self {
            Self::Here { .. } => Ok(own_program()?.display().to_string()),
            Self::TestHosts { .. } => Ok(NODE_PROGRAM.to_owned()),
        }
    }

    /// Runs a script with arguments, and tells how it ended.
    pub(crate) fn try_run(
        &self,
        machine: &str,
        script: &str,
        arguments: &[&str],
        input: Option<&[u8]>,
    ) -> Result<Ran, Error> {
        let mut command = match self {
            Self::Here { name } if name == machine => Command::new("timeout"),
            Self::Here { name } => {
                return Err(Error::Refused(format!("{machine} is not this machine, which is {name}")));
            }
            Self::TestHosts { clusters } => {
                let mut command = Command::new(own_program()?);
                command.args(["cluster", "exec", "--clusters-dir"]).arg(clusters).args([machine, "--", "timeout"]);
                command
            }
        };
        command.args(["-k", "5", PATIENCE, "sh", "-c", script, "sh"]).args(arguments);
        run(command, machine, script, input)
    }

    /// The output of a script with arguments; where it fails, that is an error.
    pub(crate) fn run(&self, machine: &str, script: &str, arguments: &[&str]) -> Result<Ran, Error> {
        self.run_with(machine, script, arguments, None)
    }

    /// The same with something on its standard input.
    pub(crate) fn run_with(
        &self,
        machine: &str,
        script: &str,
        arguments: &[&str],
        input: Option<&[u8]>,
    ) -> Result<Ran, Error> {
        let ran = self.try_run(machine, script, arguments, input)?;
        if ran.ok {
            return Ok(ran);
        }
        Err(Error::Command { machine: machine.to_owned(), command: short(script, arguments), why: ran.said })
    }

    /// The content of a file; `None` where there is none.
    pub(crate) fn read(&self, machine: &str, path: &str) -> Result<Option<Vec<u8>>, Error> {
        let there = self.try_run(machine, "test -f \"$1\"", &[path], None)?;
        if !there.ok {
            return Ok(None);
        }
        Ok(Some(self.run(machine, "cat \"$1\"", &[path])?.stdout))
    }

    /// Writes a file, whole or not at all: beside it under a hidden name, and then in its place.
    pub(crate) fn write(&self, machine: &str, path: &str, content: &[u8]) -> Result<(), Error> {
        const SCRIPT: &str = "set -e; d=$(dirname \"$1\"); mkdir -p \"$d\"; t=\"$d/.$(basename \"$1\").kedge-drill\"; \
            rm -f \"$t\"; [ -e \"$1\" ] && cp -p \"$1\" \"$t\"; cat > \"$t\"; sync \"$t\"; mv -f \"$t\" \"$1\"";
        self.run_with(machine, SCRIPT, &[path], Some(content)).map(|_| ())
    }
}

/// Runs a program of this machine, kubectl for one, with the way to the API in its environment, and to kedge as `KEDGE`.
pub(crate) fn run_here(
    program: &str,
    arguments: &[&str],
    kubeconfig: &Path,
    machines: &Machines,
) -> Result<Ran, Error> {
    let mut command = Command::new("timeout");
    command.args(["-k", "5", PATIENCE, program]).args(arguments).env("KUBECONFIG", kubeconfig);
    command.env("KEDGE", own_program()?);
    if let Machines::TestHosts { clusters } = machines {
        command.env("KEDGE_CLUSTERS_DIR", clusters);
    }
    run(command, "this machine", program, None)
}

pub(crate) fn own_program() -> Result<PathBuf, Error> {
    let wrap = |source| Error::File { action: "find", path: "/proc/self/exe".into(), source };
    std::env::current_exe().map_err(wrap)
}

fn run(mut command: Command, machine: &str, shown: &str, input: Option<&[u8]>) -> Result<Ran, Error> {
    let failed = |error: std::io::Error| Error::Command {
        machine: machine.to_owned(),
        command: short(shown, &[]),
        why: error.to_string(),
    };
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(input), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(input).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    let said = [text(&output.stdout), text(&output.stderr)].join("\n");
    Ok(Ran { ok: output.status.success(), stdout: output.stdout, said: said.trim().to_owned() })
}

/// Of a long script, its beginning.
fn short(script: &str, arguments: &[&str]) -> String {
    let words: Vec<&str> = std::iter::once(script).chain(arguments.iter().copied()).collect();
    let text = words.join(" ");
    text.chars().take(160).collect()
}
