//! The binary under test, and an image to run in pods.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use kedge_oci::ImageBuilder;

// Without `wget`: a static one cannot resolve names (glibc loads its resolver at run time), so curl is in the image.
const APPLETS: [&str; 29] = [
    "cat", "cp", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "httpd", "id", "kill", "ls", "mkdir",
    "nc", "nslookup", "ps", "rm", "seq", "sh", "sleep", "stat", "tail", "tar", "test", "touch", "true", "wc",
];
const CURL: &str = "/usr/bin/curl";
/// Every Debian has it; what it speaks UDP with needs no modules.
const PERL: &str = "/usr/bin/perl";

/// The static binary: `KEDGE_BINARY`, or the one that `cargo xtask build` left.
pub fn kedge_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KEDGE_BINARY") {
        return Some(PathBuf::from(path));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = root.join("target").join(target).join("release").join("kedge");
    built.exists().then_some(built)
}

/// A binary that uses the system's libraries, for tests that put one of their own before them: `KEDGE_DYNAMIC_BINARY`, or
/// the one beside the tests, which is built with them as `crates/kedge` has a test that runs it.
pub fn dynamic_kedge_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KEDGE_DYNAMIC_BINARY") {
        return Some(PathBuf::from(path));
    }
    let tests = std::env::current_exe().ok()?;
    let built = tests.parent()?.parent()?.join("kedge");
    built.exists().then_some(built)
}

/// Writes the archive of an image with busybox, curl and perl under `name`.
pub fn busybox_image(name: &str, archive: &Path) {
    let mut image = ImageBuilder::new(name).expect("the name is one").file("/bin/busybox", "/bin/busybox", 0o755);
    for applet in APPLETS {
        image = image.symlink(format!("/bin/{applet}"), "/bin/busybox");
    }
    image = image.file("/bin/curl", CURL, 0o755).file("/bin/perl", PERL, 0o755);
    for library in libraries(CURL).into_iter().chain(libraries(PERL)).collect::<BTreeSet<_>>() {
        let source = std::fs::canonicalize(&library).expect("a library that is listed is there");
        image = image.file(&library, source, 0o755);
    }
    image
        .bytes("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n".to_vec(), 0o644)
        .dir("/tmp", 0o1777)
        .env("PATH", "/bin")
        .cmd(["sh"])
        .write_to(archive)
        .expect("the image can be written");
}

/// The libraries of a program, the loader among them, as `ldd` lists them.
fn libraries(program: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    text.lines().filter_map(path).collect()
}
