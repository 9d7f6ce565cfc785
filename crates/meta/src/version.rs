//! Which Kubernetes this is, and which build of Kedge.
//!
//! The build's version is one stamp of fixed length in the binary, from where everything that shows a version has it: the
//! command, the kubelet's Node, `/version` of the API server, the tags of images. Invariant: the stamp is read at run time,
//! so that a copy of the binary whose stamp says something else is another build in every respect, which the tests of
//! upgrades live on.

use std::hint::black_box;
use std::sync::LazyLock;

/// The version of the Kubernetes API that is served.
pub const KUBERNETES_VERSION: &str = "v1.36.0";

const LABEL: &str = "kedge-build-version:";
const ROOM: usize = 64;

static STAMP: [u8; ROOM] = stamp(env!("CARGO_PKG_VERSION"));
static BUILD: LazyLock<String> = LazyLock::new(|| read(black_box(&STAMP)));
static FULL: LazyLock<String> = LazyLock::new(|| format!("{KUBERNETES_VERSION}+kedge-{}", build_version()));

/// The version of Kedge, such as `0.1.0`.
pub fn build_version() -> &'static str {
    &BUILD
}

/// Both versions in one, as upstream's tools read them: `v1.36.0+kedge-0.1.0`.
pub fn full_version() -> &'static str {
    &FULL
}

/// The full version as the tag of an image, where upstream writes `_` for `+`.
pub fn image_tag() -> String {
    full_version().replace('+', "_")
}

/// A label, the version, zeros.
const fn stamp(version: &str) -> [u8; ROOM] {
    let (label, version) = (LABEL.as_bytes(), version.as_bytes());
    let mut stamp = [0; ROOM];
    let mut at = 0;
    while at < label.len() {
        stamp[at] = label[at];
        at += 1;
    }
    let mut index = 0;
    while index < version.len() {
        stamp[at + index] = version[index];
        index += 1;
    }
    stamp
}

fn read(stamp: &[u8; ROOM]) -> String {
    let version = stamp[LABEL.len()..].iter().take_while(|byte| **byte != 0);
    version.map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_says_the_version() {
        assert_eq!(build_version(), env!("CARGO_PKG_VERSION"));
        assert_eq!(full_version(), format!("{KUBERNETES_VERSION}+kedge-{}", env!("CARGO_PKG_VERSION")));
        assert!(!image_tag().contains('+'));
        assert_eq!(read(&stamp("9.8.7-rc.1")), "9.8.7-rc.1");
    }
}
