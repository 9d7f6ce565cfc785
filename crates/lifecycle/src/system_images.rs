//! The images of a cluster's own pods, made on the machine out of what is installed on it: Kedge's components (with the
//! programs that write packet rules), and etcd. No registry, no network.
//!
//! Invariant: an image holds its programs with every library that they load, and nothing that a person put on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use kedge_cri::{ImageImport, Runtime, discover_endpoint};
use kedge_oci::ImageBuilder;

use crate::images::ImageError;
use crate::init::PhaseError;

const NO_ETCD: &str = "none";
const BINARY: &str = "/usr/local/bin/kedge";
/// The names under which the binary is a component.
const NAMES: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"];
/// The programs that rules are written with.
const RULE_PROGRAMS: [&str; 2] = ["nft", "conntrack"];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The names of the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemImages {
    /// Kedge's components.
    pub kedge: String,
    /// etcd.
    pub etcd: String,
    /// The sandbox of pods, as the runtime asks for it.
    pub sandbox: Option<String>,
}

impl SystemImages {
    /// The names for this version of Kedge and the etcd of this machine.
    pub fn of_machine(sandbox: Option<String>) -> Self {
        let etcd = etcd_version().unwrap_or_else(|| NO_ETCD.to_owned());
        Self {
            kedge: format!("localhost/kedge:{}", kedge_meta::image_tag()),
            etcd: format!("localhost/etcd:v{etcd}"),
            sandbox,
        }
    }

    /// Whether this machine has an etcd to make an image of.
    pub fn has_etcd(&self) -> bool {
        !self.etcd.ends_with(NO_ETCD)
    }
}

/// The name under which a runtime asks for the sandbox's image, where it says.
pub async fn sandbox_of(runtime: &Runtime) -> Option<String> {
    let status = runtime.status(true).await.ok()?;
    let config: serde_json::Value = serde_json::from_str(status.info.get("config")?).ok()?;
    let text = |value: &serde_json::Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    text(&config["sandboxImage"]).or_else(|| text(&config["pinnedImages"]["sandbox"]))
}

/// The version of the machine's etcd.
fn etcd_version() -> Option<String> {
    let output = Command::new(find("etcd")?).arg("--version").env_clear().output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("etcd Version: "))?;
    Some(line.trim().to_owned())
}

/// The container runtime's socket as it was named, else one that answers.
pub async fn runtime_socket(named: Option<&str>) -> Option<String> {
    match named {
        Some(socket) if socket.contains("://") => Some(socket.to_owned()),
        Some(socket) => Some(format!("unix://{socket}")),
        None => discover_endpoint().await,
    }
}

/// Makes the images of this machine, for the runtime behind a socket.
pub async fn make_system_images(socket: Option<String>, with_etcd: bool) -> Result<(), PhaseError> {
    let socket = socket.ok_or_else(|| PhaseError::Missing("no container runtime answers".to_owned()))?;
    let runtime = Runtime::connect(&socket).await?;
    let images = SystemImages::of_machine(sandbox_of(&runtime).await);
    let path = PathBuf::from(socket.trim_start_matches("unix://"));
    let snapshotter = runtime.snapshotter().await?;
    Ok(ensure_system_images(&runtime, &path, snapshotter, &images, with_etcd).await?)
}

/// Makes sure that the runtime has the images; `with_etcd` only where the machine runs a member.
pub async fn ensure_system_images(
    runtime: &Runtime,
    socket: &Path,
    snapshotter: Option<String>,
    images: &SystemImages,
    with_etcd: bool,
) -> Result<(), ImageError> {
    let binary = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    if !kedge_oci::is_static_elf(&binary).unwrap_or(false) {
        return Err(ImageError::NotStatic { path: binary });
    }
    let sandbox = match &images.sandbox {
        Some(name) if !runtime.image_present(name).await.unwrap_or(false) => Some(name.as_str()),
        _ => None,
    };
    let mut wanted = vec![(images.kedge.clone(), kedge_image(&images.kedge, &binary, sandbox)?)];
    if with_etcd {
        wanted.push((images.etcd.clone(), etcd_image(&images.etcd)?));
    }
    // At once: one is hashed while the other is written.
    let imports = wanted.into_iter().map(|(name, image)| import(runtime, socket, snapshotter.clone(), name, image));
    futures::future::try_join_all(imports).await.map(|_| ())
}

async fn import(
    runtime: &Runtime,
    socket: &Path,
    snapshotter: Option<String>,
    name: String,
    image: ImageBuilder,
) -> Result<(), ImageError> {
    let wrap = |source| ImageError::Build { name: name.clone(), source };
    let dir = tempfile::tempdir().map_err(|error| wrap(Box::new(error)))?;
    let archive = dir.path().join("image.tar");
    let path = archive.clone();
    let built = tokio::task::spawn_blocking(move || image.write_to(&path)).await;
    let digest = built.map_err(|error| wrap(Box::new(error)))?.map_err(|error| wrap(Box::new(error)))?;
    let import = ImageImport { names: digest.names, snapshotter };
    let imported = runtime.import_image(socket, &archive, &import).await;
    imported.map_err(|error| ImageError::Import { name, source: Box::new(error) })
}

/// Kedge's components, and under the name `sandbox` the same files as the sandbox of pods.
fn kedge_image(name: &str, binary: &Path, sandbox: Option<&str>) -> Result<ImageBuilder, ImageError> {
    let mut image = base(name)?.file(BINARY, binary, 0o755).symlink("/pause", BINARY);
    for name in NAMES {
        image = image.symlink(format!("/usr/local/bin/{name}"), BINARY);
    }
    for program in RULE_PROGRAMS {
        image = with_program(image, name, program, &format!("/usr/sbin/{program}"))?;
    }
    let image = image.entrypoint([BINARY]);
    match sandbox {
        Some(sandbox) => image.variant(sandbox, &["/pause"], "65534:65534").map_err(|error| unbuilt(sandbox, error)),
        None => Ok(image),
    }
}

fn unbuilt(name: &str, error: impl std::error::Error + Send + Sync + 'static) -> ImageError {
    ImageError::Build { name: name.to_owned(), source: Box::new(error) }
}

fn etcd_image(name: &str) -> Result<ImageBuilder, ImageError> {
    let image = with_program(base(name)?, name, "etcd", "/usr/local/bin/etcd")?;
    let image = match find("etcdctl") {
        Some(_) => with_program(image, name, "etcdctl", "/usr/local/bin/etcdctl")?,
        None => image,
    };
    Ok(image.entrypoint(["/usr/local/bin/etcd"]))
}

fn base(name: &str) -> Result<ImageBuilder, ImageError> {
    let image = ImageBuilder::new(name).map_err(|error| unbuilt(name, error))?;
    Ok(image
        .bytes("/etc/passwd", b"root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:\n".to_vec(), 0o644)
        .bytes("/etc/group", b"root:x:0:\nnogroup:x:65534:\n".to_vec(), 0o644)
        .bytes("/etc/nsswitch.conf", b"hosts: files dns\n".to_vec(), 0o644)
        .dir("/tmp", 0o1777)
        .dir("/root", 0o700)
        .env("PATH", PATH)
        .working_dir("/"))
}

/// Puts a program of the machine and the libraries that it loads into an image.
fn with_program(mut image: ImageBuilder, name: &str, program: &str, at: &str) -> Result<ImageBuilder, ImageError> {
    let wrap = |why: String| ImageError::Build { name: name.to_owned(), source: why.into() };
    let source =
        find(program).ok_or_else(|| wrap(format!("the program {program} is not installed on this machine")))?;
    for library in libraries(&source).map_err(|error| wrap(format!("the libraries of {program}: {error}")))? {
        let real = std::fs::canonicalize(&library).map_err(|error| wrap(format!("{}: {error}", library.display())))?;
        image = image.file(&library, real, 0o755);
    }
    let real = std::fs::canonicalize(&source).unwrap_or(source);
    Ok(image.file(at, real, 0o755))
}

/// The libraries of a program, the loader among them; none for one that is linked statically. The loader itself lists
/// them, as `ldd` asks it to, and the program does not run.
fn libraries(program: &Path) -> std::io::Result<Vec<PathBuf>> {
    if kedge_oci::is_static_elf(program).unwrap_or(false) {
        return Ok(Vec::new());
    }
    let output = Command::new(program).env_clear().env("LD_TRACE_LOADED_OBJECTS", "1").output()?;
    Ok(parse_libraries(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_libraries(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    text.lines().filter_map(path).collect()
}

fn find(program: &str) -> Option<PathBuf> {
    PATH.split(':').map(|dir| Path::new(dir).join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_off_the_loaders_list() {
        let text = "\tlinux-vdso.so.1 (0x00007fbec44cb000)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x1)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_libraries(text), expected);
    }
}
