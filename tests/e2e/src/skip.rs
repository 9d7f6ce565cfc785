//! Tests that can't run here.

use std::io::Write;

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says that the running test is skipped and why; panics in CI, where nothing may be.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(std::env::var_os("KEDGE_NO_SKIP").is_none(), "{test} would be skipped: {why}");
    eprintln!("skipped: {test}: {why}");
    if let Some(file) = std::env::var_os("KEDGE_SKIPPED_FILE") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(file);
        let _ = file.and_then(|mut file| writeln!(file, "{test}: {why}"));
    }
}
