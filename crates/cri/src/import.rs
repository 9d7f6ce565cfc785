//! Import of an image archive, for which the CRI has no call.
//!
//! containerd's own tool `ctr` does it (it ships in the same package); nothing is pulled. Invariant: when an import
//! returned `Ok`, the CRI sees every one of the names.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::Command;
use tracing::warn;

use crate::error::CriError;
use crate::host;
use crate::runtime::Runtime;

/// The CRI hears of a new image by an event; this is how long it may take before we ask it again by hand.
const EVENT_GRACE: Duration = Duration::from_secs(2);
const SEEN_DEADLINE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);
/// An archive is a few megabytes on a slow disk.
const CTR_DEADLINE: Duration = Duration::from_secs(300);

/// What to import.
#[derive(Clone, Debug, Default)]
pub struct ImageImport {
    /// The full names in the archive, such as `registry.k8s.io/pause:3.10`, that the CRI must see in the end.
    pub names: Vec<String>,
    /// The snapshotter to unpack into; it must be the one the CRI plugin uses. `None`: the CRI unpacks at first use.
    pub snapshotter: Option<String>,
}

/// A failed import.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// `ctr` is not on PATH.
    #[error("`ctr` is not on PATH; install it with `apt-get install containerd`")]
    CtrMissing,
    /// `ctr` could not be run.
    #[error("could not run `ctr`")]
    Run(#[source] io::Error),
    /// `ctr` took longer than five minutes.
    #[error("`ctr images {verb}` took longer than {} s; is the disk stuck?", CTR_DEADLINE.as_secs())]
    Slow {
        /// Its subcommand.
        verb: &'static str,
    },
    /// `ctr` refused the archive.
    #[error("`ctr images {verb}` failed: {message}")]
    Ctr {
        /// Its subcommand.
        verb: &'static str,
        /// What it wrote to standard error.
        message: String,
    },
    /// The archive was imported, but the CRI does not show this name.
    #[error("the image {name} was imported, but the runtime does not show it; is the name in the archive another one?")]
    NotSeen {
        /// The name that is missing.
        name: String,
    },
    /// The runtime could not be asked.
    #[error("could not ask the runtime for the image")]
    Cri(#[from] CriError),
}

impl Runtime {
    /// Imports an OCI or Docker archive through the containerd at `socket`, and waits until this runtime shows every name.
    pub async fn import_image(&self, socket: &Path, archive: &Path, import: &ImageImport) -> Result<(), ImportError> {
        let mut arguments = match &import.snapshotter {
            Some(snapshotter) => vec!["--snapshotter", snapshotter.as_str()],
            None => vec!["--no-unpack"],
        };
        let archive = archive.to_string_lossy();
        arguments.push(&archive);
        ctr(socket, "import", &arguments).await?;
        for name in &import.names {
            self.wait_until_seen(socket, name).await?;
        }
        Ok(())
    }

    async fn wait_until_seen(&self, socket: &Path, name: &str) -> Result<(), ImportError> {
        let start = Instant::now();
        let mut labelled = false;
        while !self.image_present(name).await? {
            if start.elapsed() > SEEN_DEADLINE {
                return Err(ImportError::NotSeen { name: name.to_owned() });
            }
            if start.elapsed() > EVENT_GRACE && !labelled {
                labelled = true;
                // The change of a label is one more event; the label is the one the CRI gives its images itself.
                if let Err(error) = ctr(socket, "label", &[name, "io.cri-containerd.image=managed"]).await {
                    warn!(image = name, %error, "could not label the image");
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

async fn ctr(socket: &Path, verb: &'static str, arguments: &[&str]) -> Result<(), ImportError> {
    let program = host::find_program("ctr").ok_or(ImportError::CtrMissing)?;
    let run = Command::new(program)
        .arg("--address")
        .arg(socket)
        .args(["--namespace", "k8s.io", "images", verb])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match tokio::time::timeout(CTR_DEADLINE, run).await {
        Ok(output) => output.map_err(ImportError::Run)?,
        Err(_) => return Err(ImportError::Slow { verb }),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(ImportError::Ctr { verb, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}
