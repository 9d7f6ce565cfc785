//! The images that Kedge makes out of its own binary: the sandbox ("pause") image and the demo's. No registry, no
//! network.

use std::path::{Path, PathBuf};

use kedge_cri::{ImageImport, Runtime};
use kedge_oci::ImageBuilder;

const BINARY: &str = "/usr/local/bin/kedge";

/// Why the images are not there.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The binary can't be an image.
    #[error("{} is not a static binary, so it cannot be the only file of an image\n  build it with `cargo xtask build`", path.display())]
    NotStatic {
        /// The binary.
        path: PathBuf,
    },
    /// The archive can't be written.
    #[error("cannot build the image {name}")]
    Build {
        /// The image's name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runtime refused it.
    #[error("cannot import the image {name} into the container runtime")]
    Import {
        /// The image's name.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The names of the images.
#[derive(Debug, Clone)]
pub struct Images {
    /// The sandbox image, as the runtime is configured to ask for it.
    pub sandbox: String,
    /// The demo's image.
    pub demo: String,
}

impl Images {
    /// The names for this version of Kedge. `sandbox` is the name that the runtime is configured with, if any.
    pub fn new(version: &str, sandbox: Option<String>) -> Self {
        Self {
            sandbox: sandbox.unwrap_or_else(|| format!("localhost/kedge-pause:v{version}")),
            demo: format!("localhost/kedge-demo:v{version}"),
        }
    }
}

/// Makes sure that the runtime has the images. The demo's image is always made anew from the running binary, the sandbox
/// image only where it is missing.
pub async fn ensure_images(
    runtime: &Runtime,
    socket: &Path,
    snapshotter: Option<String>,
    dir: &Path,
    images: &Images,
    with_demo: bool,
) -> Result<(), ImageError> {
    let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut wanted = Vec::new();
    if !present(runtime, &images.sandbox).await {
        wanted.push((images.sandbox.clone(), vec!["/pause".to_owned()]));
    }
    if with_demo {
        wanted.push((images.demo.clone(), vec![BINARY.to_owned(), "demo-app".to_owned()]));
    }
    if !wanted.is_empty() && !kedge_oci::is_static_elf(&binary).unwrap_or(false) {
        return Err(ImageError::NotStatic { path: binary });
    }
    for (name, entrypoint) in wanted {
        let archive = dir.join(format!("{}.tar", name.replace(['/', ':'], "_")));
        let names = build(&binary, &name, entrypoint, archive.clone()).await?;
        let import = ImageImport { names, snapshotter: snapshotter.clone() };
        let result = runtime.import_image(socket, &archive, &import).await;
        // The archive is as large as the binary, and the runtime has its own copy now.
        let _ = tokio::fs::remove_file(&archive).await;
        result.map_err(|error| ImageError::Import { name, source: Box::new(error) })?;
    }
    Ok(())
}

async fn present(runtime: &Runtime, name: &str) -> bool {
    runtime.image_present(name).await.unwrap_or(false)
}

async fn build(
    binary: &Path,
    name: &str,
    entrypoint: Vec<String>,
    archive: PathBuf,
) -> Result<Vec<String>, ImageError> {
    let (binary, owned_name) = (binary.to_owned(), name.to_owned());
    let built = tokio::task::spawn_blocking(move || write_archive(&binary, &owned_name, entrypoint, &archive)).await;
    let wrap = |source| ImageError::Build { name: name.to_owned(), source };
    match built {
        Ok(result) => result.map_err(wrap),
        Err(error) => Err(wrap(Box::new(error))),
    }
}

fn write_archive(
    binary: &Path,
    name: &str,
    entrypoint: Vec<String>,
    archive: &Path,
) -> Result<Vec<String>, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(parent) = archive.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let passwd = b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
    let group = b"root:x:0:\nnogroup:x:65534:\n";
    let digest = ImageBuilder::new(name)?
        .file(BINARY, binary, 0o755)
        .symlink("/pause", BINARY)
        .bytes("/etc/passwd", passwd.to_vec(), 0o644)
        .bytes("/etc/group", group.to_vec(), 0o644)
        .dir("/tmp", 0o1777)
        .entrypoint(entrypoint)
        .env("PATH", "/usr/local/bin")
        .user("65534:65534")
        .working_dir("/")
        .expose("8080/tcp")
        .write_to(archive)?;
    Ok(digest.names)
}
