//! `cargo xtask codegen`: writes the facts of `crates/schema` from upstream's machine-readable OpenAPI documents and the
//! committed facts about protobuf messages, and the table of `crates/kinds` from upstream's discovery documents.
//!
//! Reads only documents; carries over names, types and merge rules, and no prose. The invariant: the committed tables are
//! exactly what this produces from the documents, which `run(true)` checks without writing.

mod kinds;
mod openapi;
mod protobuf;
mod render;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The environment variable that names the folder with upstream's documents.
const UPSTREAM: &str = "KEDGE_UPSTREAM";

/// Writes the generated tables, or with `check` only compares them with what is committed.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let upstream = upstream_folder(root);
    if !upstream.join("openapi").is_dir() {
        bail!(
            "upstream's OpenAPI documents are not at {}: set {UPSTREAM} to the folder that holds openapi/*.json",
            upstream.display()
        );
    }
    let packages = openapi::read(&upstream.join("openapi"))?;
    let messages = protobuf::read(&root.join("xtask/facts/protobuf.txt"))?;
    let files = render::render(&packages, &messages)?;
    let target = root.join("crates/schema/src/generated");
    if check {
        compare(&target, &files)?
    } else {
        write(&target, &files)?
    }
    kinds::run(&upstream, check)
}

fn upstream_folder(root: &Path) -> PathBuf {
    match std::env::var_os(UPSTREAM) {
        Some(path) => PathBuf::from(path),
        None => root.join("../shared/upstream"),
    }
}

fn write(target: &Path, files: &[(String, String)]) -> Result<()> {
    for stale in names_in(target)?.iter().filter(|name| !files.iter().any(|(file, _)| file == *name)) {
        fs::remove_file(target.join(stale)).with_context(|| format!("removing stale {stale}"))?;
    }
    for (name, text) in files {
        fs::write(target.join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

fn compare(target: &Path, files: &[(String, String)]) -> Result<()> {
    let mut drifted: Vec<String> =
        names_in(target)?.into_iter().filter(|name| !files.iter().any(|(file, _)| file == name)).collect();
    for (name, text) in files {
        if fs::read_to_string(target.join(name)).ok().as_ref() != Some(text) {
            drifted.push(name.clone());
        }
    }
    if drifted.is_empty() {
        return Ok(());
    }
    bail!("generated files differ from upstream's documents: {}; run `cargo xtask codegen`", drifted.join(", "))
}

fn names_in(target: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(target).with_context(|| format!("reading {}", target.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
