//! Programs of the machine that are asked: bounded in time and in what they may say, and ended if they go on.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// A program that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_millis(800);
/// What is read of its output.
const MOST_BYTES: u64 = 2 << 20;

/// What a program says, or why it does not.
pub(super) async fn output(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().map_err(|error| format!("{program}: {error}"))?;
    let Some(stdout) = child.stdout.take() else { return Err(format!("{program} has no output")) };
    let mut said = Vec::new();
    let mut bounded = stdout.take(MOST_BYTES);
    let read = tokio::time::timeout(PATIENCE, bounded.read_to_end(&mut said)).await;
    match read {
        Ok(Ok(_)) => Ok(said),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => Err(format!("{program} does not answer within {} ms", PATIENCE.as_millis())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_are_bounded() {
        assert_eq!(output("echo", &["x"]).await, Ok(b"x\n".to_vec()));
        assert!(output("no-such-program", &[]).await.is_err());
        assert!(output("sleep", &["60"]).await.is_err_and(|why| why.contains("does not answer")));
        let said = output("yes", &[]).await.expect("it is cut off");
        assert_eq!(said.len() as u64, MOST_BYTES);
    }
}
