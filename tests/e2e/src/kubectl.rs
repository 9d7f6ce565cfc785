//! kubectl, run where the cluster is.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a command printed.
#[derive(Debug, Clone)]
pub struct Output {
    /// Whether it ended with 0.
    pub ok: bool,
    /// With what it ended, where it was not ended by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A kubectl with a kubeconfig, in a network namespace where one is named.
#[derive(Debug, Clone)]
pub struct Kubectl {
    /// The program.
    pub program: String,
    /// The kubeconfig.
    pub kubeconfig: PathBuf,
    /// The network namespace.
    pub namespace: Option<String>,
}

impl Kubectl {
    /// The command, ready to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = inside(self.namespace.as_deref(), &self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(arguments);
        // Whatever the developer's own environment says must not matter.
        command.env_remove("KUBECONFIG").env("HOME", self.kubeconfig.parent().unwrap_or(&self.kubeconfig));
        command
    }

    /// Runs kubectl and returns what it printed, whether it succeeded or not.
    pub fn try_run(&self, arguments: &[&str]) -> Output {
        run(self.command(arguments), None)
    }

    /// Runs kubectl; panics with what it printed where it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.try_run(arguments);
        assert!(output.ok, "kubectl {} failed:\n{}", arguments.join(" "), output.all());
        output.stdout
    }

    /// Runs kubectl with a text on standard input.
    pub fn try_run_with(&self, arguments: &[&str], input: &str) -> Output {
        run(self.command(arguments), Some(input))
    }

    /// `kubectl apply -f -`; panics where it fails.
    pub fn apply(&self, manifest: &str) -> String {
        let output = self.try_run_with(&["apply", "-f", "-"], manifest);
        assert!(output.ok, "kubectl apply failed:\n{}\n{manifest}", output.all());
        output.stdout
    }
}

/// A command inside a network namespace. Not `ip netns exec`, which hides the cgroups.
pub(crate) fn inside(namespace: Option<&str>, program: &str) -> Command {
    match namespace {
        None => Command::new(program),
        Some(namespace) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
            command
        }
    }
}

/// What a command printed, run to its end.
pub fn output_of(command: Command) -> Output {
    run(command, None)
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command, input: Option<&str>) -> Output {
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A program that ends early closes its input; its exit code says more than the write error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().expect("a started child can be waited for");
    Output {
        ok: output.status.success(),
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
