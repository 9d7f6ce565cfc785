//! The file tree of an image and its writing as one layer.
//!
//! It is not a general archiver: regular files, directories and symbolic links, all owned by root. Invariant: the bytes
//! depend only on the paths, modes and contents: entries are sorted, times are zero.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

/// What is at a path.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Directory {
        mode: u32,
    },
    /// The contents are copied from a file of this machine when the layer is written.
    File {
        source: PathBuf,
        mode: u32,
    },
    Bytes {
        contents: Vec<u8>,
        mode: u32,
    },
    Symlink {
        target: PathBuf,
    },
}

/// A tree by path without the leading slash. A parent sorts before what is in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Puts an entry at a path, and directories above it where there are none.
    pub(crate) fn insert(&mut self, path: &Path, entry: Entry) {
        let path = path.strip_prefix("/").unwrap_or(path);
        for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory { mode: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the layer, uncompressed. The error names the file that failed.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<(), (PathBuf, io::Error)> {
        let mut archive = tar::Builder::new(out);
        for (path, entry) in &self.entries {
            append(&mut archive, path, entry).map_err(|error| match entry {
                Entry::File { source, .. } => (source.clone(), error),
                _ => (path.clone(), error),
            })?;
        }
        archive.finish().map_err(|error| (PathBuf::from("the layer"), error))
    }
}

fn append(archive: &mut tar::Builder<&mut impl Write>, path: &Path, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Directory { mode } => {
            // The closing slash is how every archiver writes a directory.
            let path = path.join("");
            archive.append_data(&mut header(EntryType::Directory, *mode, 0), path, io::empty())
        }
        Entry::Bytes { contents, mode } => {
            let mut header = header(EntryType::Regular, *mode, contents.len() as u64);
            archive.append_data(&mut header, path, contents.as_slice())
        }
        Entry::Symlink { target } => archive.append_link(&mut header(EntryType::Symlink, 0o777, 0), path, target),
        Entry::File { source, mode } => {
            let file = File::open(source)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
            }
            let contents = Exactly { file, left: metadata.len() };
            archive.append_data(&mut header(EntryType::Regular, *mode, metadata.len()), path, contents)
        }
    }
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// A file that must have the size that its header told: one that grows is cut there, one that shrinks is an error, or
/// every later entry would be misread.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let limit = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if limit == 0 {
            return Ok(0);
        }
        let read = self.file.read(&mut buffer[..limit])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was read"));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
