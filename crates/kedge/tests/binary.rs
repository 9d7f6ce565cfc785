//! The binary itself, started.
//!
//! As long as there is a test here, cargo builds the binary along with the tests of the workspace, with shared libraries;
//! `tests/e2e/tests/clock.rs` lives on that.

use std::process::Command;

#[test]
fn it_says_its_version_and_refuses_what_it_does_not_know() {
    let run =
        |argument: &str| Command::new(env!("CARGO_BIN_EXE_kedge")).arg(argument).output().expect("the binary starts");
    let version = run("version");
    assert!(version.status.success());
    assert!(String::from_utf8_lossy(&version.stdout).contains(env!("CARGO_PKG_VERSION")), "{version:?}");
    let unknown = run("no-such-command");
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}
