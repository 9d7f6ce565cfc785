//! Every target with its corpus and what is made of it in two seconds: no panic, no hang, bounded memory.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use kedge_fuzz::{TARGETS, run};

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let findings = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    // The same inputs in every run, as far as the time goes; `cargo xtask fuzz` has a new seed each time.
    let summary = run(target, &corpus, &findings, Duration::from_secs(2), 1).unwrap();
    let summary = summary.unwrap_or_else(|finding| panic!("{}: {}", finding.harm, finding.file.display()));
    assert!(summary.inputs > 0 && summary.outcomes > 1, "{summary:?}");
}

#[test]
fn json() {
    check("json");
}

#[test]
fn yaml() {
    check("yaml");
}

#[test]
fn protobuf() {
    check("protobuf");
}

#[test]
fn label_selector() {
    check("label-selector");
}

#[test]
fn field_selector() {
    check("field-selector");
}

#[test]
fn json_patch() {
    check("json-patch");
}

#[test]
fn merge_patch() {
    check("merge-patch");
}

#[test]
fn strategic_patch() {
    check("strategic-patch");
}

#[test]
fn apply() {
    check("apply");
}

#[test]
fn request() {
    check("request");
}

#[test]
fn websocket() {
    check("websocket");
}

#[test]
fn spdy() {
    check("spdy");
}

#[test]
fn every_target_has_a_test() {
    let tests = include_str!("targets.rs");
    for target in TARGETS {
        assert!(tests.contains(&format!("check(\"{}\")", target.name)), "{}", target.name);
    }
}
