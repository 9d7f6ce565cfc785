//! The lists in `docs/conformance` say what of upstream's conformance tests is covered here, and by which test.
//!
//! Not a run of those tests. Invariant: every listed name is upstream's, every test of a list's folders is listed, and
//! every test that is said to cover one exists. Upstream's own list is not part of the repository: `KEDGE_UPSTREAM` names
//! the folder that has it, or it lies in `../shared/upstream`; where it is absent, that comparison is skipped and says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

const UPSTREAMS_LIST: &str = "conformance-v1.36.yaml";
/// What may stand between a test's attribute and its function.
const ATTRIBUTE_LINES: usize = 4;

/// One file of `docs/conformance`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The folders of upstream whose tests it lists.
    folders: Vec<String>,
    test: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    state: State,
    /// The tests of ours, as `docs/status.md` names them.
    #[serde(default)]
    by: Vec<String>,
    /// What is missing.
    #[serde(default)]
    note: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Covered,
    Partial,
    Missing,
}

/// One test of upstream's list; its other fields are not looked at.
#[derive(Deserialize)]
struct Upstream {
    codename: String,
    file: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate lies two levels below the root")
}

fn lists() -> Vec<(String, List)> {
    let folder = std::fs::read_dir(root().join("docs/conformance")).expect("the folder is there");
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.expect("it can be read").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let list = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), list)
    };
    files.into_iter().map(read).collect()
}

fn upstreams() -> Option<Vec<Upstream>> {
    let folder = std::env::var_os("KEDGE_UPSTREAM").map_or_else(|| root().join("../shared/upstream"), PathBuf::from);
    let file = folder.join(UPSTREAMS_LIST);
    let Ok(text) = std::fs::read_to_string(&file) else {
        let test = std::thread::current().name().unwrap_or("a comparison with upstream").to_owned();
        kedge_skip::skip(&test, &format!("upstream's list is not at {} (set KEDGE_UPSTREAM)", file.display()));
        return None;
    };
    Some(serde_yaml::from_str(&text).expect("upstream's list is YAML"))
}

#[test]
fn lists_have_exactly_upstreams_names() {
    let Some(upstreams) = upstreams() else { return };
    let mut wrong = Vec::new();
    for (file, list) in lists() {
        let in_folders = |test: &&Upstream| {
            let folder = test.file.rsplit_once('/').map_or("", |(folder, _)| folder);
            list.folders.iter().any(|listed| listed == folder)
        };
        let wanted: BTreeSet<&str> = upstreams.iter().filter(in_folders).map(|test| test.codename.as_str()).collect();
        let mut listed = BTreeSet::new();
        for entry in &list.test {
            if !listed.insert(entry.name.as_str()) {
                wrong.push(format!("{file}: listed twice: {}", entry.name));
            }
        }
        wrong.extend(listed.difference(&wanted).map(|name| format!("{file}: not upstream's: {name}")));
        wrong.extend(wanted.difference(&listed).map(|name| format!("{file}: not listed: {name}")));
        assert!(!wanted.is_empty(), "{file}: {:?} are no folders of upstream's list", list.folders);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_covers_a_test_exists() {
    let mut tests_by_crate = BTreeMap::new();
    let mut wrong = Vec::new();
    for (file, list) in lists() {
        for entry in &list.test {
            let problem = match entry.state {
                State::Covered if entry.by.is_empty() => "covered by nothing",
                State::Partial if entry.by.is_empty() || entry.note.is_empty() => "partial, without a test or a note",
                State::Missing if !entry.by.is_empty() => "missing, and covered by something",
                State::Missing if entry.note.is_empty() => "missing, without a note",
                _ => "",
            };
            if !problem.is_empty() {
                wrong.push(format!("{file}: {problem}: {}", entry.name));
            }
            for by in &entry.by {
                if !exists(by, &mut tests_by_crate) {
                    wrong.push(format!("{file}: there is no test {by:?} for {}", entry.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a test that is named as `crate: module::test` exists; `tests_by_crate` remembers what was looked for.
fn exists(by: &str, tests_by_crate: &mut BTreeMap<String, BTreeSet<String>>) -> bool {
    let Some((name, test)) = by.split_once(": ") else { return false };
    let tests = tests_by_crate.entry(name.to_owned()).or_insert_with(|| tests_of(name));
    tests.iter().any(|known| known == test || known.ends_with(&format!("::{test}")))
}

/// The tests of a crate, each with the file or folder it lies in and, for tests in files of their own, that of the suite.
fn tests_of(name: &str) -> BTreeSet<String> {
    let (first, second) = (root().join("crates").join(name), root().join("tests").join(name));
    let base = if first.is_dir() { first } else { second };
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(&base.join(folder), &mut tests);
    }
    tests
}

fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("sources can be read");
            let stem =
                |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            for test in tests_in(&text) {
                tests.insert(format!("{}::{test}", stem(&path)));
                tests.insert(format!("{}::{test}", stem(folder)));
            }
        }
    }
}

/// The names of the functions below a test's attribute.
fn tests_in(source: &str) -> Vec<&str> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let is_test = |line: &&&str| line.starts_with("#[") && line.trim_end_matches(']').contains("test");
    let attributes = lines.iter().enumerate().filter(|(_, line)| is_test(line)).map(|(index, _)| index);
    let functions = attributes.filter_map(|index| {
        let below = lines.iter().skip(index + 1).take(ATTRIBUTE_LINES);
        below.filter_map(|line| line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn "))).next()
    });
    functions.filter_map(|rest| rest.split(['(', '<']).next()).collect()
}

#[test]
fn tests_are_found_below_their_attributes() {
    let source = "#[test]\n#[ignore]\nfn one() {}\nfn no_test() {}\n  #[tokio::test(start_paused = true)]\n  async fn two() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n";
    assert_eq!(tests_in(source), ["one", "two"]);
}
