//! What a running cluster's components do, asked of the API server.

use std::path::Path;
use std::time::Duration;

use kedge_client::client_from_kubeconfig;
use kedge_lifecycle::{Layout, RunFile};
use kedge_meta::ComponentReport;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::join;

const PATIENCE: Duration = Duration::from_secs(5);

/// A running cluster.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The process and what it made.
    pub run: RunFile,
    /// Every component's report.
    pub components: Vec<ComponentReport>,
}

/// Asks the cluster of a data directory.
pub async fn status(data_dir: &Path) -> Result<Status, Error> {
    let layout = Layout::new(data_dir);
    let run = RunFile::read(&layout.run_file())?.filter(RunFile::is_running);
    let Some(run) = run else { return Err(Error::NotRunning { dir: data_dir.to_owned() }) };
    if run.joined.is_some() {
        return Ok(Status { components: join::read_reports(&layout.components())?, run });
    }
    let components = match tokio::time::timeout(PATIENCE, ask(&layout)).await {
        Ok(Ok(components)) => components,
        Ok(Err(source)) => return Err(Error::NoAnswer { pid: run.pid, source }),
        Err(_) => {
            let source = format!("no answer within {} s", PATIENCE.as_secs()).into();
            return Err(Error::NoAnswer { pid: run.pid, source });
        }
    };
    Ok(Status { run, components })
}

/// What the API server answers under `/kedge/v1/status`.
#[derive(Deserialize)]
struct Answer {
    components: Vec<ComponentReport>,
}

async fn ask(layout: &Layout) -> Result<Vec<ComponentReport>, Box<dyn std::error::Error + Send + Sync>> {
    let client = client_from_kubeconfig(&layout.kubeconfig()).await?;
    let request = http::Request::get("/kedge/v1/status").body(Vec::new())?;
    Ok(client.request::<Answer>(request).await?.components)
}
