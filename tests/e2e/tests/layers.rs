//! The edges between crates are those of `layers.txt`, and pure crates stay pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const PURE: [&str; 5] = ["meta", "schema", "kinds", "auth", "metrics"];
const NOT_IN_PURE: [&str; 6] = ["tokio", "hyper", "reqwest", "kube", "nix", "rtnetlink"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two levels below the root")
}

/// Normal dependencies of each Kedge crate, by short name.
fn actual() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"].as_array().expect("packages are a list");
    packages
        .iter()
        .filter_map(|package| Some((short(package["name"].as_str()?)?, package)))
        .map(|(name, package)| {
            let dependencies = package["dependencies"].as_array().expect("dependencies are a list");
            let normal = dependencies.iter().filter(|dependency| dependency["kind"].is_null());
            (name, normal.filter_map(|dependency| dependency["name"].as_str()).map(str::to_owned).collect())
        })
        .collect()
}

fn short(package: &str) -> Option<String> {
    match package {
        "kedge" => Some("kedge".to_owned()),
        "kedge-bench"
        | "kedge-control-plane"
        | "kedge-csi-driver"
        | "kedge-device-driver"
        | "kedge-e2e"
        | "kedge-etcd-server"
        | "kedge-fuzz"
        | "kedge-netns"
        | "kedge-skip" => None,
        other => other.strip_prefix("kedge-").map(str::to_owned),
    }
}

fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("layers.txt")).expect("layers.txt is there");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, edges) = line.split_once(':').expect("a line is `crate: edges`");
            (name.to_owned(), edges.split_whitespace().map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn edges_are_the_allowed_ones() {
    let (actual, allowed) = (actual(), allowed());
    let mut wrong = Vec::new();
    for (name, dependencies) in &actual {
        let Some(edges) = allowed.get(name) else {
            wrong.push(format!("{name} is not in layers.txt"));
            continue;
        };
        for dependency in dependencies.iter().filter_map(|dependency| short(dependency)) {
            if !edges.contains(&dependency) {
                wrong.push(format!("{name} depends on {dependency}, which layers.txt does not allow"));
            }
        }
        for edge in edges {
            if !dependencies.iter().any(|dependency| short(dependency).as_ref() == Some(edge)) {
                wrong.push(format!("layers.txt allows {name} -> {edge}, which nobody needs"));
            }
        }
    }
    for name in allowed.keys().filter(|name| !actual.contains_key(*name)) {
        wrong.push(format!("layers.txt names {name}, which is no crate"));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_edge_points_down() {
    let text = std::fs::read_to_string(root().join("layers.txt")).expect("layers.txt is there");
    let order: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split_once(':').map(|(name, _)| name))
        .collect();
    for (name, edges) in allowed() {
        let own = order.iter().position(|other| *other == name);
        for edge in edges {
            let below = order.iter().position(|other| *other == edge);
            assert!(below < own, "{name} -> {edge} points up: layers.txt lists the lower layers first");
        }
    }
}

#[test]
fn pure_crates_do_no_input_or_output() {
    let actual = actual();
    for name in PURE {
        for library in NOT_IN_PURE {
            assert!(!actual[name].contains(library), "{name} is pure and must not depend on {library}");
        }
    }
}
