//! Tests that can't run here: they say so by name, are listed at the end of `cargo xtask test`, and fail where nothing
//! may be skipped (`KEDGE_NO_SKIP`, as in CI).
//!
//! Used by the tests of every crate, so that no suite is skipped in silence.

use std::io::Write;
use std::path::Path;

const CONTAINER_FILES: [&str; 2] = ["/usr/bin/containerd", "/bin/busybox"];

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that a test is skipped and why; panics where nothing may be.
pub fn skip(test: &str, why: &str) {
    assert!(std::env::var_os("KEDGE_NO_SKIP").is_none(), "{test} would be skipped: {why}");
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = std::env::var_os("KEDGE_SKIPPED_FILE") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        // The message above is there in any case.
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}

/// Skips a test without root; true where it is skipped.
pub fn skipped_without_root(test: &str) -> bool {
    let skipped = !is_root();
    if skipped {
        skip(test, "it needs root");
    }
    skipped
}

/// Skips a test that needs real containers (root, containerd, a static busybox); true where it is skipped.
pub fn skipped_without_containers(test: &str) -> bool {
    if skipped_without_root(test) {
        return true;
    }
    let missing = CONTAINER_FILES.into_iter().find(|file| !Path::new(file).exists());
    if let Some(file) = missing {
        skip(test, &format!("{file} is missing"));
    }
    missing.is_some()
}
