//! A second build of Kedge that differs from the one under test in its version only.
//!
//! The version of a binary is one stamp in it (`kedge-meta`), and a copy with another stamp is another build to everything
//! that looks: the command, the images that it makes of itself, the Nodes of its kubelets, `/version`.

use std::path::{Path, PathBuf};

use crate::binary::kedge_binary;

const LABEL: &str = "kedge-build-version:";
const ROOM: usize = 64;

/// Writes a copy of the binary under test that calls itself `version` into a directory.
///
/// # Panics
/// Where there is no binary, or it has no stamp, or more than one.
pub fn other_build(dir: &Path, version: &str) -> PathBuf {
    let mut content = std::fs::read(kedge_binary().expect("there is a binary")).expect("it can be read");
    let old = stamp(env!("CARGO_PKG_VERSION"));
    let places: Vec<usize> = find_all(&content, &old).collect();
    let [place] = places[..] else { panic!("the binary has {} stamps of its version", places.len()) };
    content[place..place + ROOM].copy_from_slice(&stamp(version));
    let path = dir.join("kedge");
    std::fs::write(&path, content).expect("a file can be written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("its mode can be set");
    path
}

fn stamp(version: &str) -> [u8; ROOM] {
    let mut stamp = [0; ROOM];
    let text = format!("{LABEL}{version}");
    stamp[..text.len()].copy_from_slice(text.as_bytes());
    stamp
}

fn find_all<'a>(content: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    memchr::memmem::find_iter(content, wanted)
}
