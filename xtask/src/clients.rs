//! Clients that other people wrote, for the test that has them all talk to Kedge: an old kubectl out of Debian's package, the
//! Python client, the JavaScript client. Versions are fixed.
//!
//! Invariant: what is in `target/clients` is whole, or made anew.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::step::{quiet, root, step};

const PYTHON: &str = "kubernetes==37.0.2";
const JAVASCRIPT: &str = "@kubernetes/client-node@1.4.0";

/// The folder with the clients; what is missing in it is fetched.
pub fn ensure() -> Result<PathBuf> {
    let folder = root().join("target").join("clients");
    std::fs::create_dir_all(&folder)?;
    if !["kubectl", PYTHON, "javascript"].iter().all(|name| mark(&folder, name).exists()) {
        step("fetch clients of the API", || all(&folder))?;
    }
    Ok(folder)
}

fn all(folder: &Path) -> Result<()> {
    std::thread::scope(|scope| {
        let parts = [
            scope.spawn(|| once(folder, "kubectl", old_kubectl)),
            scope.spawn(|| once(folder, PYTHON, python)),
            scope.spawn(|| once(folder, "javascript", javascript)),
        ];
        parts.into_iter().try_for_each(|part| match part.join() {
            Ok(result) => result,
            Err(_) => bail!("fetching a client panicked"),
        })
    })
}

fn mark(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.whole"))
}

/// Fetches one, unless it is there; a registry that did not answer is asked once more.
fn once(folder: &Path, name: &str, fetch: fn(&Path) -> Result<()>) -> Result<()> {
    let mark = mark(folder, name);
    if mark.exists() {
        return Ok(());
    }
    fetch(folder).or_else(|_| fetch(folder)).with_context(|| format!("the client {name} cannot be had"))?;
    std::fs::write(mark, "")?;
    Ok(())
}

fn old_kubectl(folder: &Path) -> Result<()> {
    let place = folder.join("debian");
    if place.exists() {
        std::fs::remove_dir_all(&place)?;
    }
    std::fs::create_dir_all(&place)?;
    let apt = |words: &[&str]| quiet(Command::new("apt-get").args(words).current_dir(&place));
    let download = || apt(&["download", "kubernetes-client"]);
    download().or_else(|_| apt(&["update"]).and_then(|()| download()))?;
    let package = std::fs::read_dir(&place)?.next().context("apt-get downloaded nothing")??.path();
    quiet(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&place))
}

fn python(folder: &Path) -> Result<()> {
    let place = folder.join("python");
    quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    quiet(Command::new(place.join("bin/pip")).args(["install", "--no-compile", PYTHON]))
}

fn javascript(folder: &Path) -> Result<()> {
    let place = folder.join("javascript");
    std::fs::create_dir_all(&place)?;
    std::fs::write(place.join("package.json"), "{\"private\": true}\n")?;
    quiet(Command::new("npm").args(["install", "--ignore-scripts", "--no-save", JAVASCRIPT]).current_dir(&place))
}
