//! A directory whose files change all at once: `..data` points at a directory with a time in its name, and users see
//! symbolic links into it.
//!
//! Invariant: a reader that goes through `..data` sees either the old or the new set of files, never a mixture.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Component, Path};

use jiff::Timestamp;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// One file of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileContent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
    /// Its owner, where it is not root.
    pub(crate) user: Option<u32>,
}

/// Files by relative path.
pub(crate) type Payload = BTreeMap<String, FileContent>;

/// Writes the payload; whether anything changed.
pub(crate) fn write(target: &Path, payload: &Payload) -> io::Result<bool> {
    for path in payload.keys() {
        validate(path)?;
    }
    let current = std::fs::read_link(target.join(DATA)).ok();
    if let Some(current) = &current
        && unchanged(&target.join(current), payload)
    {
        link_all(target, payload)?;
        return Ok(false);
    }
    let name = fresh_name(target);
    write_files(&target.join(&name), payload)?;
    let new_data = target.join(NEW_DATA);
    remove_if_there(&new_data)?;
    symlink(&name, &new_data)?;
    std::fs::rename(&new_data, target.join(DATA))?;
    link_all(target, payload)?;
    remove_stale_links(target, payload)?;
    if let Some(current) = current {
        std::fs::remove_dir_all(target.join(current)).or_else(ignore_absent)?;
    }
    Ok(true)
}

fn validate(path: &str) -> io::Result<()> {
    let parts = Path::new(path).components();
    let plain = parts.clone().count() > 0 && parts.clone().all(|part| matches!(part, Component::Normal(_)));
    if !plain || path.starts_with("..") || path.len() > 4096 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid path: {path:?}")));
    }
    Ok(())
}

fn unchanged(directory: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    let same = payload.iter().all(|(path, content)| {
        count += 1;
        std::fs::read(directory.join(path)).is_ok_and(|bytes| bytes == content.bytes)
    });
    same && count == count_files(directory)
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_files(&entry.path()),
            _ => 1,
        })
        .sum()
}

/// A name that sorts by time, as upstream's does: `..2026_01_02_03_04_05.123456789`.
fn fresh_name(target: &Path) -> String {
    let mut nanos = Timestamp::now().subsec_nanosecond();
    loop {
        let name = format!("..{}.{nanos:09}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"));
        if !target.join(&name).exists() {
            return name;
        }
        nanos += 1;
    }
}

fn write_files(directory: &Path, payload: &Payload) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    for (path, content) in payload {
        let file = directory.join(path);
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&file, &content.bytes)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(content.mode))?;
        if let Some(user) = content.user {
            chown(&file, Some(user), None)?;
        }
    }
    Ok(())
}

/// What a user sees: a link for each first part of a path.
fn link_all(target: &Path, payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        let first = path.split('/').next().unwrap_or_default();
        let link = target.join(first);
        if link.symlink_metadata().is_err() {
            symlink(Path::new(DATA).join(first), link)?;
        }
    }
    Ok(())
}

fn remove_stale_links(target: &Path, payload: &Payload) -> io::Result<()> {
    for entry in std::fs::read_dir(target)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let wanted = payload.keys().any(|path| path.split('/').next() == Some(&name));
        if !name.starts_with("..") && !wanted && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).or_else(ignore_absent)
}

fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let content = |text: &str| FileContent { bytes: text.into(), mode: 0o640, user: None };
        files.iter().map(|(path, text)| ((*path).to_owned(), content(text))).collect()
    }

    fn visible(directory: &Path) -> String {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        names.join(" ")
    }

    #[test]
    fn files_change_all_at_once_and_stale_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path();
        assert!(write(target, &payload(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert_eq!(visible(target), "a sub");
        let before = std::fs::read_link(target.join(DATA)).unwrap();
        assert!(!write(target, &payload(&[("a", "1"), ("sub/b", "2")])).unwrap());
        assert_eq!(std::fs::read_link(target.join(DATA)).unwrap(), before);
        assert!(write(target, &payload(&[("a", "3"), ("c", "4")])).unwrap());
        assert_eq!(visible(target), "a c");
        assert_eq!(std::fs::read_to_string(target.join("a")).unwrap(), "3");
        assert!(!target.join(before).exists(), "the old files are gone");
        assert_eq!(std::fs::metadata(target.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn a_removed_file_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &payload(&[("a", "1"), ("b", "2")])).unwrap();
        assert!(write(directory.path(), &payload(&[("a", "1")])).unwrap());
        assert_eq!(visible(directory.path()), "a");
        assert!(write(directory.path(), &Payload::new()).unwrap());
        assert_eq!(visible(directory.path()), "");
    }

    #[test]
    fn paths_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        for path in ["../x", "/etc/x", "..x", "", "a/../../b"] {
            assert!(write(directory.path(), &payload(&[(path, "x")])).is_err(), "{path}");
        }
    }
}
