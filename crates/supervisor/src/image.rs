//! Images from archives into the cluster's container runtime.

use std::path::{Path, PathBuf};

use kedge_cri::{ImageImport, Runtime};
use kedge_lifecycle::{Layout, RunFile};

use crate::error::Error;

/// Loads an archive and returns the names of its images.
pub async fn load_image(data_dir: &Path, archive: &Path) -> Result<Vec<String>, Error> {
    let run = RunFile::read(&Layout::new(data_dir).run_file())?;
    let endpoint = run.and_then(|run| run.runtime_endpoint);
    let Some(endpoint) = endpoint else { return Err(Error::NotRunning { dir: data_dir.to_owned() }) };
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::LoadImage { archive: archive.to_owned(), source };
    let names = kedge_oci::archive_names(archive).map_err(|error| failed(Box::new(error)))?;
    let runtime = Runtime::connect(&endpoint).await?;
    let import = ImageImport { names: names.clone(), snapshotter: None };
    runtime.import_image(&socket(&endpoint), archive, &import).await.map_err(|error| failed(Box::new(error)))?;
    Ok(names)
}

/// The path in a `unix://` endpoint.
pub(crate) fn socket(endpoint: &str) -> PathBuf {
    PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}
