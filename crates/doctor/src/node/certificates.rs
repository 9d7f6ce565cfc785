//! Certificates in files. Keys are never read.

use std::path::Path;

use kedge_bundle::certificate_fact;
use kedge_diagnosis::{Evidence, Fact, Item};

use crate::node::unseen;

const DEPTH: u32 = 2;

pub(super) fn read(directory: &Path, item: &impl Fn(String, Fact) -> Item, evidence: &mut Evidence) {
    below(directory, DEPTH, item, evidence);
}

fn below(directory: &Path, depth: u32, item: &impl Fn(String, Fact) -> Item, evidence: &mut Evidence) {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return evidence.unseen.push(unseen(directory.display().to_string(), error)),
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() && depth > 0 {
            below(&path, depth - 1, item, evidence);
            continue;
        }
        // The kubelet keeps its certificates in files that hold the key as well; only the link to the present one counts.
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !(name.ends_with(".crt") || name.ends_with("-current.pem")) {
            continue;
        }
        let shown = path.display().to_string();
        let pem = std::fs::read_to_string(&path).map_err(|error| error.to_string());
        match pem.and_then(|pem| certificate_fact(&pem, &shown)) {
            Ok(fact) => evidence.items.push(item(format!("openssl x509 -noout -dates -in {shown}"), fact)),
            Err(why) => evidence.unseen.push(unseen(shown, why)),
        }
    }
}
