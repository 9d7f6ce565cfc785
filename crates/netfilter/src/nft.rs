//! Runs the `nft` program: one transaction per call, on its standard input.
//!
//! Invariant: a transaction is applied as a whole or not at all (the kernel sees to that), and a call ends within
//! [`TIMEOUT`].

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use crate::listing::ElementCounter;
use crate::model::Family;
use crate::snapshot::{ParseSnapshotError, Snapshot};

const TIMEOUT: Duration = Duration::from_secs(30);
const SHOWN_OF_ERROR: usize = 600;

/// Why nft did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The program is not there.
    #[error("the program nft is not installed; install the Debian package nftables")]
    Missing,
    /// The process may not change packet rules.
    #[error("nft may not change packet rules: run as root, with CAP_NET_ADMIN")]
    NotPermitted,
    /// The kernel or nft refused the transaction; nothing of it was applied.
    #[error("nft refused the rules: {message}")]
    Refused {
        /// What nft said, shortened.
        message: String,
    },
    /// nft did not end in time.
    #[error("nft did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// nft could not be run or talked to.
    #[error("nft could not be run")]
    Io(#[from] io::Error),
    /// nft's listing was not understood.
    #[error("the rules could not be read back")]
    Listing(#[from] ParseSnapshotError),
    /// A set changed its definition, which only a new table can.
    #[error("the set {0} has another definition than before")]
    SetChanged(String),
}

impl NftError {
    /// One CamelCase word for a component's status.
    pub fn reason(&self) -> &'static str {
        match self {
            NftError::Missing => "NftMissing",
            NftError::NotPermitted => "NftNotPermitted",
            NftError::Refused { .. } | NftError::SetChanged(_) => "NftRefused",
            NftError::Timeout => "NftTimeout",
            NftError::Io(_) | NftError::Listing(_) => "NftFailed",
        }
    }
}

/// The `nft` program. It works on the network namespace of the thread that calls it.
#[derive(Debug, Clone)]
pub struct Nft {
    program: PathBuf,
}

impl Default for Nft {
    fn default() -> Self {
        Self { program: find_program("nft") }
    }
}

impl Nft {
    /// A certain program file, for where PATH is not to be trusted.
    pub fn at(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Applies one transaction.
    pub async fn run(&self, script: &str) -> Result<(), NftError> {
        tracing::trace!(script, "nft transaction");
        let output = self.call(&["-f", "-"], script).await?;
        if output.status.success() { Ok(()) } else { Err(refusal(&output)) }
    }

    /// Reads the shape of a table; `None` where there is no such table.
    pub async fn snapshot(&self, family: Family, table: &str) -> Result<Option<Snapshot>, NftError> {
        let output = self.call(&["--json", "--terse", "list", "table", family.as_str(), table], "").await?;
        if output.status.success() {
            return Ok(Some(Snapshot::parse(&String::from_utf8_lossy(&output.stdout))?));
        }
        if is_not_found(&output) { Ok(None) } else { Err(refusal(&output)) }
    }

    /// Counts the elements of each set and map of a table; nothing where there is no such table.
    pub async fn count_elements(&self, family: Family, table: &str) -> Result<BTreeMap<String, usize>, NftError> {
        let mut command = Command::new(&self.program);
        command.args(["list", "table", family.as_str(), table]).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let work = async {
            let mut counter = ElementCounter::default();
            while let Some(line) = lines.next_line().await? {
                counter.line(&line);
            }
            child.wait().await?;
            Ok::<_, NftError>(counter.finish())
        };
        tokio::time::timeout(TIMEOUT, work).await.map_err(|_| NftError::Timeout)?
    }

    /// Removes a table, where it exists; says whether it did.
    pub async fn delete_table(&self, family: Family, table: &str) -> Result<bool, NftError> {
        let output = self.call(&["delete", "table", family.as_str(), table], "").await?;
        match output.status.success() {
            true => Ok(true),
            false if is_not_found(&output) => Ok(false),
            false => Err(refusal(&output)),
        }
    }

    /// The JSON of all chains of all tables.
    pub async fn list_chains(&self) -> Result<String, NftError> {
        let output = self.call(&["--json", "list", "chains"], "").await?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(refusal(&output))
        }
    }

    async fn call(&self, arguments: &[&str], input: &str) -> Result<Output, NftError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NftError::Missing,
            _ => NftError::Io(error),
        })?;
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let feed = async move {
            // nft that ends before it has read everything says why on stderr; a broken pipe says nothing more.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let work = async { tokio::join!(feed, child.wait_with_output()).1 };
        Ok(tokio::time::timeout(TIMEOUT, work).await.map_err(|_| NftError::Timeout)??)
    }
}

/// The program on PATH, or in the places where Debian has it when PATH is a user's.
pub(crate) fn find_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    places.map(|place| place.join(name)).find(|file| file.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

fn is_not_found(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stderr).contains("No such file or directory")
}

fn refusal(output: &Output) -> NftError {
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("Operation not permitted") {
        return NftError::NotPermitted;
    }
    let mut message: String = message.trim().chars().take(SHOWN_OF_ERROR).collect();
    if message.is_empty() {
        message = format!("it ended with {}", output.status);
    }
    NftError::Refused { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_program_names_the_package() {
        let error = Nft::at("/nonexistent/nft").run("list tables").await.unwrap_err();
        assert_eq!(error.to_string(), "the program nft is not installed; install the Debian package nftables");
        assert_eq!(error.reason(), "NftMissing");
    }
}
