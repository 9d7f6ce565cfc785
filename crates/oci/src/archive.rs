//! The names of the images in an archive, as `docker save` and OCI layouts carry them.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

/// Larger index files are no index files.
const MAX_INDEX_BYTES: u64 = 4 << 20;

/// Why an archive's names can't be told.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It can't be read as a tar archive.
    #[error("it cannot be read as a tar archive")]
    Read(#[from] io::Error),
    /// Its index can't be read.
    #[error("its {file} cannot be read")]
    Index {
        /// Which file.
        file: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// It names no image.
    #[error("it names no image (neither manifest.json nor index.json does); save it with a tag")]
    Nameless,
}

#[derive(Deserialize)]
struct DockerManifest {
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Vec<OciDescriptor>,
}

#[derive(Deserialize)]
struct OciDescriptor {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The full names of the images in an archive.
pub fn archive_names(path: &Path) -> Result<Vec<String>, ArchiveError> {
    let mut names = Vec::new();
    for entry in tar::Archive::new(File::open(path)?).entries()? {
        let entry = entry?;
        let file = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        match file.as_str() {
            "manifest.json" => {
                let manifests: Vec<DockerManifest> = serde_json::from_reader(entry.take(MAX_INDEX_BYTES))
                    .map_err(|source| ArchiveError::Index { file: "manifest.json", source })?;
                names.extend(manifests.into_iter().flat_map(|manifest| manifest.repo_tags.unwrap_or_default()));
            }
            "index.json" => {
                let index: OciIndex = serde_json::from_reader(entry.take(MAX_INDEX_BYTES))
                    .map_err(|source| ArchiveError::Index { file: "index.json", source })?;
                let name = |descriptor: OciDescriptor| descriptor.annotations.get("io.containerd.image.name").cloned();
                names.extend(index.manifests.into_iter().filter_map(name));
            }
            _ => {}
        }
    }
    let mut names: Vec<String> =
        names.iter().map(|name| crate::normalize_reference(name).unwrap_or_else(|_| name.clone())).collect();
    names.sort();
    names.dedup();
    if names.is_empty() { Err(ArchiveError::Nameless) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(file: &str, content: &str) -> tempfile::NamedTempFile {
        let archive = tempfile::NamedTempFile::new().unwrap();
        let mut builder = tar::Builder::new(archive.reopen().unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, file, content.as_bytes()).unwrap();
        builder.finish().unwrap();
        archive
    }

    #[test]
    fn names_come_from_either_index() {
        let docker = archive("manifest.json", r#"[{"RepoTags": ["web:v1", "localhost/web:v2"]}]"#);
        assert_eq!(archive_names(docker.path()).unwrap(), ["docker.io/library/web:v1", "localhost/web:v2"]);
        let oci =
            archive("index.json", r#"{"manifests": [{"annotations": {"io.containerd.image.name": "localhost/a:1"}}]}"#);
        assert_eq!(archive_names(oci.path()).unwrap(), ["localhost/a:1"]);
        let nameless = archive("manifest.json", "[{}]");
        assert!(archive_names(nameless.path()).unwrap_err().to_string().contains("names no image"));
        let broken = archive("manifest.json", "{");
        assert!(archive_names(broken.path()).unwrap_err().to_string().contains("manifest.json"));
    }
}
