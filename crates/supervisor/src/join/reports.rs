//! What the components of a node that joined report, in a file beside the run file, for `kedge status`.
//!
//! Invariant: the file is whole at any time, and no older than the period while the process lives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kedge_meta::{ComponentReport, StatusBoard};
use tokio_util::sync::CancellationToken;

use crate::control_plane::Ended;
use crate::error::Error;

const PERIOD: Duration = Duration::from_secs(2);

/// Writes the reports whenever they changed, until `shutdown`.
pub(super) async fn keep(path: PathBuf, board: StatusBoard, shutdown: CancellationToken) -> Ended {
    let mut written = None;
    loop {
        let reports = board.reports();
        if written.as_ref() != Some(&reports) {
            match write(&path, &reports) {
                Ok(()) => written = Some(reports),
                Err(error) => tracing::warn!(%error, path = %path.display(), "cannot write what components report"),
            }
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return ("status", Ok(()));
        }
    }
}

fn write(path: &Path, reports: &[ComponentReport]) -> std::io::Result<()> {
    let text = serde_json::to_vec(reports)?;
    let temporary = path.with_extension("json.tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path)
}

/// The reports that were written last.
pub(crate) fn read_reports(path: &Path) -> Result<Vec<ComponentReport>, Error> {
    let wrap = |source| Error::Reports { path: path.to_owned(), source };
    let text = std::fs::read(path).map_err(wrap)?;
    serde_json::from_slice(&text).map_err(|error| wrap(error.into()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kedge_meta::SystemClock;

    use super::*;

    #[test]
    fn reports_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("components.json");
        let board = StatusBoard::new(Arc::new(SystemClock));
        board.component("kedge-bgp").degraded("BGPPeersNotEstablished", "0 of 1 BGP peers are established");
        write(&path, &board.reports()).unwrap();
        let read = read_reports(&path).unwrap();
        assert_eq!(read[0].reason, "BGPPeersNotEstablished");
        assert!(read_reports(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
