//! The binary under test, and an image to run in pods.

use std::path::{Path, PathBuf};

use kedge_oci::ImageBuilder;

const APPLETS: [&str; 22] = [
    "cat", "cp", "echo", "env", "false", "grep", "hostname", "id", "ls", "mkdir", "nc", "nslookup", "ps", "rm", "sh",
    "sleep", "tar", "tail", "touch", "true", "wget", "seq",
];

/// The static release binary: `KEDGE_BINARY`, or the one that `cargo xtask build` left.
pub fn kedge_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("KEDGE_BINARY") {
        return Some(PathBuf::from(path));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let built = root.join("target").join(target).join("release").join("kedge");
    built.exists().then_some(built)
}

/// Writes the archive of an image with busybox under `name`.
pub fn busybox_image(name: &str, archive: &Path) {
    let mut image = ImageBuilder::new(name).expect("the name is one").file("/bin/busybox", "/bin/busybox", 0o755);
    for applet in APPLETS {
        image = image.symlink(&format!("/bin/{applet}"), "/bin/busybox");
    }
    image
        .bytes("/etc/passwd", b"root:x:0:0:root:/:/bin/sh\n".to_vec(), 0o644)
        .dir("/tmp", 0o1777)
        .env("PATH", "/bin")
        .cmd(["sh"])
        .write_to(archive)
        .expect("the image can be written");
}
