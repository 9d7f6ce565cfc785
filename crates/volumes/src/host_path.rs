//! hostPath volumes: what has to be there, and what is made where it is not.
//!
//! Invariant: only `DirectoryOrCreate` and `FileOrCreate` change the host.

use std::fs::FileType;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Checks the type of a path, or makes it.
pub(crate) fn ensure(source: &HostPathVolumeSource) -> Result<(), String> {
    let wanted = source.type_.as_deref().unwrap_or_default();
    if wanted.is_empty() {
        // Not even looked at: that may hang.
        return Ok(());
    }
    let path = Path::new(&source.path);
    let fails = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", source.path));
    let kind = std::fs::metadata(path).ok().map(|metadata| metadata.file_type());
    let is = |test: fn(&FileType) -> bool| kind.as_ref().is_some_and(test);
    match wanted {
        "DirectoryOrCreate" if kind.is_none() => make_directory(path).map_err(|error| error.to_string()),
        "FileOrCreate" if kind.is_none() => make_file(path).map_err(|error| error.to_string()),
        "Directory" | "DirectoryOrCreate" if !is(FileType::is_dir) => fails("a directory"),
        "File" | "FileOrCreate" if !is(FileType::is_file) => fails("a file"),
        "Socket" if !is(FileType::is_socket) => fails("a socket file"),
        "CharDevice" if !is(FileType::is_char_device) => fails("a character device"),
        "BlockDevice" if !is(FileType::is_block_device) => fails("a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
}

/// The parent of a file is not made, as upstream does not make it.
fn make_file(path: &Path) -> io::Result<()> {
    std::fs::File::create_new(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "x").unwrap();
        let check = |name: &str, type_: &str, expected: Result<(), &str>| {
            let path = directory.path().join(name).to_string_lossy().into_owned();
            let got = ensure(&HostPathVolumeSource { path: path.clone(), type_: Some(type_.to_owned()) });
            let expected = expected.map_err(|what| format!("hostPath type check failed: {path} is not {what}"));
            assert_eq!(got, expected, "{name} {type_}");
        };
        check("none", "", Ok(()));
        check("none", "Directory", Err("a directory"));
        check("none", "Socket", Err("a socket file"));
        check("file", "File", Ok(()));
        check("file", "Directory", Err("a directory"));
        check("file", "DirectoryOrCreate", Err("a directory"));
        check("new/deep", "DirectoryOrCreate", Ok(()));
        check("new/deep", "Directory", Ok(()));
        check("new/file", "FileOrCreate", Ok(()));
        check("new/file", "File", Ok(()));
    }
}
