//! The files of a bundle, one after the other: of a directory, of an archive, of a single file.
//!
//! An archive is unpacked on a thread of its own. Invariant: files come in the order of their paths where a directory is read, in the archive's where one is; links are
//! not followed, so that an archive cannot point out of itself.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::ahead::Ahead;

/// What does something with each file: its path within the bundle, and its content.
pub(crate) type Visit<'a> = dyn FnMut(&str, &mut dyn BufRead) + 'a;

const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Where the magic word of an archive stands.
const TAR_MAGIC: std::ops::Range<usize> = 257..262;
const BUFFER: usize = 256 * 1024;

/// Calls `visit` with each file.
pub(crate) fn each_file(path: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    if path.is_dir() {
        return below(path, path, visit);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut file = BufReader::with_capacity(BUFFER, File::open(path)?);
    let is_packed = file.fill_buf()?.starts_with(&GZIP);
    if is_packed {
        return archive_or_file(Ahead::spawn(MultiGzDecoder::new(file))?, name.trim_end_matches(".gz"), visit);
    }
    archive_or_file(file, &name, visit)
}

fn archive_or_file(mut file: impl BufRead, name: &str, visit: &mut Visit<'_>) -> io::Result<()> {
    let start = file.fill_buf()?;
    if start.get(TAR_MAGIC).is_none_or(|magic| magic != b"ustar") {
        visit(name, &mut file);
        return Ok(());
    }
    for entry in tar::Archive::new(file).entries()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?.to_string_lossy().into_owned();
        packed_or_plain(entry, &path, visit)?;
    }
    Ok(())
}

fn below(root: &Path, directory: &Path, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Ok(found) = path.symlink_metadata() else { continue };
        if found.is_dir() {
            below(root, &path, visit)?;
        } else if found.is_file() {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            packed_or_plain(File::open(&path)?, &name, visit)?;
        }
    }
    Ok(())
}

fn packed_or_plain(file: impl Read, name: &str, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut file = BufReader::with_capacity(BUFFER, file);
    let is_packed = file.fill_buf()?.starts_with(&GZIP);
    if is_packed {
        visit(name.trim_end_matches(".gz"), &mut BufReader::with_capacity(BUFFER, MultiGzDecoder::new(file)));
    } else {
        visit(name, &mut file);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn seen(path: &Path) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        let mut visit = |name: &str, content: &mut dyn BufRead| {
            let mut text = String::new();
            content.read_to_string(&mut text).expect("it is text");
            seen.push((name.to_owned(), text));
        };
        each_file(path, &mut visit).expect("it is read");
        seen
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(bytes).expect("it is packed");
        packer.finish().expect("it is packed")
    }

    #[test]
    fn directories_archives_and_files_give_the_same() {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = directory.path().join("tree");
        std::fs::create_dir_all(tree.join("b")).expect("it is made");
        std::fs::write(tree.join("a.log"), "one").expect("it is written");
        std::fs::write(tree.join("b/c.log.gz"), packed(b"two")).expect("it is written");
        std::os::unix::fs::symlink("/etc/passwd", tree.join("link")).expect("it is made");
        let wanted = [("a.log".to_owned(), "one".to_owned()), ("b/c.log".to_owned(), "two".to_owned())];
        assert_eq!(seen(&tree), wanted);

        let mut archive = tar::Builder::new(Vec::new());
        archive.append_path_with_name(tree.join("a.log"), "a.log").expect("it is added");
        archive.append_path_with_name(tree.join("b/c.log.gz"), "b/c.log.gz").expect("it is added");
        let bytes = archive.into_inner().expect("it is whole");
        for (name, bytes) in [("x.tar", bytes.clone()), ("x.tgz", packed(&bytes))] {
            let path = directory.path().join(name);
            std::fs::write(&path, bytes).expect("it is written");
            assert_eq!(seen(&path), wanted, "{name}");
        }
        assert_eq!(seen(&tree.join("a.log")), [("a.log".to_owned(), "one".to_owned())]);
    }
}
