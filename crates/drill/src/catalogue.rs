//! The scenarios: those of the binary, and users' own in files.
//!
//! Invariant: an id names one scenario; users' own may not take one of the binary's.

use std::path::Path;

use crate::error::Error;
use crate::scenario::Scenario;
use crate::scenarios::BUILTIN;
use crate::together;

/// Those of the binary, in the order of their ids.
pub fn builtin() -> Result<Vec<Scenario>, Error> {
    let mut scenarios = Vec::new();
    for text in BUILTIN {
        scenarios.extend(documents(text)?);
    }
    scenarios.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(scenarios)
}

/// Those of a file, or of every `.yaml` file of a directory.
pub fn read_scenarios(path: &Path) -> Result<Vec<Scenario>, Error> {
    let wrap = |source| Error::File { action: "read", path: path.to_owned(), source };
    if !path.is_dir() {
        return documents(&std::fs::read_to_string(path).map_err(wrap)?);
    }
    let entries = std::fs::read_dir(path).map_err(wrap)?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut scenarios = Vec::new();
    for file in files {
        scenarios.extend(read_scenarios(&file)?);
    }
    Ok(scenarios)
}

/// Those of the binary, and those of a user's file or directory.
pub fn load(own: Option<&Path>) -> Result<Vec<Scenario>, Error> {
    let mut scenarios = builtin()?;
    for scenario in own.map(read_scenarios).transpose()?.into_iter().flatten() {
        if scenarios.iter().any(|known| known.id == scenario.id) {
            let why = "another scenario has this id".to_owned();
            return Err(Error::Scenario { id: scenario.id, why });
        }
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

/// The one of an id; of several with `+` between them, the one in which all are done at once.
pub fn find(scenarios: &[Scenario], ids: &str) -> Result<Scenario, Error> {
    together::find(scenarios, ids)
}

/// A file may hold several documents.
fn documents(text: &str) -> Result<Vec<Scenario>, Error> {
    let parts =
        text.split("\n---\n").filter(|part| part.lines().any(|line| !line.starts_with('#') && !line.is_empty()));
    parts.map(Scenario::read).collect()
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;
