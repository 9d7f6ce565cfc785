//! Single facts of this machine: files, settings of the kernel, file systems.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use kedge_diagnosis::{FileFact, FileKind, FileSystemFact};

/// What lies at a path; links are followed.
pub(crate) fn file(path: &str) -> FileFact {
    let kind = match std::fs::metadata(path) {
        Err(_) => FileKind::Missing,
        Ok(found) if found.is_dir() => match std::fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => FileKind::EmptyDirectory,
            _ => FileKind::Directory,
        },
        Ok(found) if found.is_file() && found.len() == 0 => FileKind::EmptyFile,
        Ok(found) if found.is_file() => FileKind::File,
        Ok(_) => FileKind::Other,
    };
    FileFact { path: path.to_owned(), kind }
}

/// A setting of the kernel by its name in sysctl's notation.
pub(crate) fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    std::fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}

/// The file systems of those paths that exist, each once.
pub(crate) fn file_systems(paths: &[PathBuf]) -> Vec<FileSystemFact> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for path in paths {
        let Ok(stat) = nix::sys::statvfs::statvfs(path) else { continue };
        if !seen.insert(stat.filesystem_id()) {
            continue;
        }
        let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
        found.push(FileSystemFact {
            path: path.display().to_string(),
            size: bytes(stat.blocks()),
            available: bytes(stat.blocks_available()),
            inodes: stat.files(),
            inodes_free: stat.files_free(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("empty"), "").expect("it is written");
        std::fs::write(at("full"), "x").expect("it is written");
        std::fs::create_dir(at("hollow")).expect("it is made");
        let kind = |name: &str| file(&at(name).to_string_lossy()).kind;
        assert_eq!(
            ["empty", "full", "hollow", "", "none"].map(kind),
            [FileKind::EmptyFile, FileKind::File, FileKind::EmptyDirectory, FileKind::Directory, FileKind::Missing]
        );
    }

    #[test]
    fn the_same_file_system_counts_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let paths = [directory.path().to_owned(), directory.path().join("."), "/none".into()];
        let found = file_systems(&paths);
        assert!(found.len() == 1 && found[0].size >= found[0].available, "{found:?}");
    }
}
