//! `cargo xtask deb`: the Debian package, from the release binary and the files in `packaging/debian`.
//!
//! Invariant: the same commit gives the same bytes, as long as compiler and `dpkg-deb` are the same.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::build;
use crate::step::{has_program, quiet, root, step};

/// Where files of `packaging/debian` go.
const FILES: &[(&str, &str)] = &[
    ("kedge.default", "etc/default/kedge"),
    ("kedge.service", "usr/lib/systemd/system/kedge.service"),
    ("kubelet.default", "etc/default/kubelet"),
    ("kubelet.init", "etc/init.d/kubelet"),
    ("kubelet.service", "usr/lib/systemd/system/kubelet.service"),
];

/// The scripts of the package and its list of configuration files.
const SCRIPTS: &[(&str, u32)] = &[("conffiles", 0o644), ("postinst", 0o755), ("postrm", 0o755), ("prerm", 0o755)];

/// Where shells look for completions, and whose.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/kedge"),
    ("fish", "usr/share/fish/vendor_completions.d/kedge.fish"),
    ("zsh", "usr/share/zsh/vendor-completions/_kedge"),
];

/// Builds the package and returns its path.
pub fn run() -> Result<PathBuf> {
    println!("Kedge: Debian package");
    if !has_program("dpkg-deb") {
        bail!("dpkg-deb is missing; build the package on Debian, or install the package `dpkg`");
    }
    let binary = build::release()?;
    let directory = root().join("target").join("deb");
    step("put the package together", || package(&binary, &directory))
}

/// Makes a package out of a binary, in a directory whose contents go.
fn package(binary: &Path, directory: &Path) -> Result<PathBuf> {
    let tree = directory.join("tree");
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot empty {}", directory.display()))?;
    }
    lay_out(binary, &tree)?;
    let (version, architecture) = (version()?, architecture()?);
    control(&tree, &version, &architecture)?;
    let file = directory.join(format!("kedge_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&file);
    quiet(build.env("SOURCE_DATE_EPOCH", commit_time()))?;
    Ok(file)
}

fn lay_out(binary: &Path, tree: &Path) -> Result<()> {
    put(tree, "usr/bin/kedge", &fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?, 0o755)?;
    symlink("kedge", tree.join("usr/bin/kubelet"))?;
    for (source, target) in FILES {
        let mode = if target.starts_with("etc/init.d/") { 0o755 } else { 0o644 };
        put(tree, target, &template(source)?, mode)?;
    }
    put(tree, "usr/share/doc/kedge/copyright", &fs::read(root().join("LICENSE"))?, 0o644)?;
    for (shell, target) in COMPLETIONS {
        let script = Command::new(binary).args(["completion", shell]).output()?;
        put(tree, target, &script.stdout, 0o644)?;
    }
    let pages = tree.join("usr/share/man/man1");
    quiet(Command::new(binary).arg("man").arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        // Without the name and the time of the file, which would differ from build to build.
        quiet(Command::new("gzip").args(["--best", "--no-name"]).arg(page?.path()))?;
    }
    Ok(())
}

fn control(tree: &Path, version: &str, architecture: &str) -> Result<()> {
    let kib = kib_below(tree)?;
    let text = String::from_utf8(template("control")?)?
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@KIB@", &kib.to_string());
    put(tree, "DEBIAN/control", text.as_bytes(), 0o644)?;
    SCRIPTS.iter().try_for_each(|(name, mode)| put(tree, &format!("DEBIAN/{name}"), &template(name)?, *mode))
}

fn template(name: &str) -> Result<Vec<u8>> {
    let path = root().join("packaging").join("debian").join(name);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn put(tree: &Path, target: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let path = tree.join(target);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(fs::set_permissions(&path, fs::Permissions::from_mode(mode))?)
}

/// The size of all files, in KiB, as dpkg shows it before an installation.
fn kib_below(directory: &Path) -> Result<u64> {
    let mut kib = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        kib += match kind.is_dir() {
            true => kib_below(&entry.path())?,
            false => entry.metadata()?.len().div_ceil(1024),
        };
    }
    Ok(kib)
}

fn version() -> Result<String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = "));
    Ok(line.context("the workspace has a version")?.trim_matches('"').to_owned())
}

fn architecture() -> Result<String> {
    let output = Command::new("dpkg").arg("--print-architecture").output().context("dpkg is missing")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// When the commit was made, in seconds since 1970: files of the package bear no later time.
fn commit_time() -> String {
    let output = Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()).output();
    output.ok().and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stands for the binary: prints its arguments, and writes a page where it is told to.
    const PRETENDER: &str = "#!/bin/sh\nif [ $1 = man ]; then mkdir -p $2; echo page > $2/kedge.1; else echo $@; fi\n";

    #[test]
    fn a_package_has_binary_units_completions_and_manual() {
        if !has_program("dpkg-deb") {
            kedge_skip::skip("a_package_has_binary_units_completions_and_manual", "dpkg-deb is missing");
            return;
        }
        let scratch = tempfile::tempdir().expect("a directory");
        let binary = scratch.path().join("kedge");
        fs::write(&binary, PRETENDER).expect("it is written");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("it may be run");
        let first = package(&binary, &scratch.path().join("deb")).expect("a package");
        let bytes = fs::read(&first).expect("it is there");
        let shown = |words: &[&str]| {
            let output = Command::new("dpkg-deb").args(words).arg(&first).output().expect("it runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let contents = shown(&["--contents"]);
        for path in [
            "./usr/bin/kedge",
            "./usr/bin/kubelet -> kedge",
            "kedge.service",
            "./etc/init.d/kubelet",
            "man1/kedge.1.gz",
            "/_kedge",
        ] {
            assert!(contents.contains(path), "{path} in\n{contents}");
        }
        assert!(contents.lines().all(|line| line.contains("root/root")), "{contents}");
        let fields = shown(&["--info"]);
        assert!(fields.contains("Package: kedge") && !fields.contains("@VERSION@"), "{fields}");
        let again = package(&binary, &scratch.path().join("deb")).expect("a package");
        assert!(bytes == fs::read(again).expect("it is there"), "two packages of one commit differ");
    }
}
