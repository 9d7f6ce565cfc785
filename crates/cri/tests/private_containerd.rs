//! A private containerd with real containers: its start, adoption, death, and end.
//!
//! Needs root, containerd and a static busybox; without them each test says that it was skipped. The sandboxes use the
//! network of the host, so that no CNI configuration is needed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kedge_cri::{ImageImport, PrivateContainerd, PrivateContainerdConfig, Runtime, v1};
use kedge_oci::ImageBuilder;
use kedge_skip::skipped_without_containers;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IMAGE: &str = "localhost/kedge-test/busybox:v1";
type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn config(dir: &Path) -> PrivateContainerdConfig {
    let mut config = PrivateContainerdConfig::new(dir.join("containerd"));
    config.cni_conf_dir = dir.join("cni");
    config.sandbox_image = IMAGE.to_owned();
    config
}

async fn import(containerd: &PrivateContainerd, dir: &Path) -> TestResult {
    let archive = dir.join("image.tar");
    let image = ImageBuilder::new(IMAGE)?
        .tag("registry.k8s.io/pause:kedge-test")?
        .file("/bin/busybox", "/bin/busybox", 0o755)
        .symlink("/bin/sh", "/bin/busybox")
        .symlink("/bin/cat", "/bin/busybox")
        .dir("/tmp", 0o1777)
        .env("PATH", "/bin")
        .entrypoint(["/bin/busybox", "sleep", "100000"])
        .write_to(&archive)?;
    let import = ImageImport { names: image.names.clone(), snapshotter: Some(containerd.snapshotter().to_owned()) };
    let runtime = containerd.runtime();
    assert!(!runtime.image_present(IMAGE).await?);
    runtime.import_image(containerd.socket(), &archive, &import).await?;
    for name in &image.names {
        let spec = v1::ImageSpec { image: name.clone(), ..Default::default() };
        assert_eq!(runtime.image_status(spec).await?.map(|image| image.id), Some(image.config.clone()), "{name}");
    }
    Ok(())
}

fn sandbox_config() -> v1::PodSandboxConfig {
    let namespaces = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "pod".to_owned(),
            uid: "uid".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        linux: Some(v1::LinuxPodSandboxConfig {
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn run_container(runtime: &Runtime) -> TestResult<(String, String)> {
    let sandbox = runtime.run_pod_sandbox(sandbox_config(), "").await?;
    let container = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let container = runtime.create_container(&sandbox, container, sandbox_config()).await?;
    runtime.start_container(&container).await?;
    Ok((sandbox, container))
}

async fn started_at(runtime: &Runtime, container: &str) -> TestResult<i64> {
    let status = runtime.container_status(container, false).await?.status.ok_or("no status")?;
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
    Ok(status.started_at)
}

async fn until_gone(pid: u32) -> TestResult {
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "pid {pid} is still there");
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Removes every sandbox and the containerd, also when the test failed before.
async fn clean_up(dir: &Path) -> TestResult {
    let data_dir = dir.join("containerd");
    let Some(mut containerd) = PrivateContainerd::find(&data_dir).await else { return Ok(()) };
    containerd.ensure_running().await?;
    let runtime = containerd.runtime();
    for sandbox in runtime.list_pod_sandboxes(None).await? {
        runtime.stop_pod_sandbox(&sandbox.id).await?;
        runtime.remove_pod_sandbox(&sandbox.id).await?;
    }
    containerd.stop().await?;
    assert!(PrivateContainerd::find(&data_dir).await.is_none());
    PrivateContainerd::remove_files(&data_dir)?;
    assert!(!data_dir.exists());
    Ok(())
}

#[tokio::test]
async fn containers_outlive_containerd_and_its_starter() -> TestResult {
    if skipped_without_containers("containers_outlive_containerd_and_its_starter") {
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("kedge-cri-").tempdir()?;
    let path = dir.path().to_owned();
    // A task of its own, so that a failed assertion does not pass the cleaning up by.
    let result = tokio::spawn(async move { outlive(&path).await }).await;
    clean_up(dir.path()).await?;
    result?
}

async fn outlive(dir: &Path) -> TestResult {
    let containerd = PrivateContainerd::start(config(dir)).await?;
    assert!(!containerd.adopted());
    import(&containerd, dir).await?;
    let runtime = containerd.runtime();
    let (_, container) = run_container(&runtime).await?;
    let start = started_at(&runtime, &container).await?;

    let echo = ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned).to_vec();
    let answer = runtime.exec_sync(&container, echo, Some(Duration::from_secs(10))).await?;
    assert_eq!((answer.exit_code, &answer.stdout[..], &answer.stderr[..]), (3, &b"out\n"[..], &b"err\n"[..]));
    let missing = runtime.container_status("nothing", false).await.expect_err("there is no such container");
    assert!(
        missing.is_not_found() && missing.to_string().starts_with("rpc error: code = NotFound desc = "),
        "{missing}"
    );

    let pid = containerd.pid();
    drop(containerd);
    let mut adopted = PrivateContainerd::start(config(dir)).await?;
    assert!(adopted.adopted());
    assert_eq!(adopted.pid(), pid);
    assert!(!adopted.ensure_running().await?, "it runs");

    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL)?;
    until_gone(pid).await?;
    assert!(adopted.ensure_running().await?, "it died and was started");
    assert_ne!(adopted.pid(), pid);
    assert_eq!(started_at(&runtime, &container).await?, start, "the same client, the same container");

    let mut changed = config(dir);
    changed.sandbox_image = "registry.k8s.io/pause:kedge-test".to_owned();
    let restarted = PrivateContainerd::start(changed).await?;
    assert!(!restarted.adopted(), "another configuration needs a restart");
    assert_eq!(started_at(&restarted.runtime(), &container).await?, start);
    Ok(())
}

#[tokio::test]
async fn images_are_viewed_and_containers_signalled() -> TestResult {
    if skipped_without_containers("images_are_viewed_and_containers_signalled") {
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("kedge-cri-").tempdir()?;
    let path = dir.path().to_owned();
    let result = tokio::spawn(async move { view_and_signal(&path).await }).await;
    clean_up(dir.path()).await?;
    result?
}

async fn view_and_signal(dir: &Path) -> TestResult {
    const LABEL: &str = "example.org/view-of";
    let containerd = PrivateContainerd::start(config(dir)).await?;
    import(&containerd, dir).await?;
    let runtime = containerd.runtime();
    let snapshotter = runtime.snapshotter().await?.ok_or("the configuration names a snapshotter")?;
    assert_eq!(snapshotter, containerd.snapshotter());
    let image = v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() };
    let chain = runtime.image_chain(image).await?.ok_or("the image has layers")?;
    let mounts = runtime.view(&snapshotter, "view-1", &chain, (LABEL, "one")).await?;
    assert_eq!(runtime.view(&snapshotter, "view-1", &chain, (LABEL, "one")).await?, mounts, "it is there already");
    let source = Path::new(&mounts[0].source);
    assert!(mounts[0].kind == "bind" && source.join("bin/busybox").exists(), "one layer is its own view: {mounts:?}");
    assert_eq!(runtime.views(&snapshotter, LABEL).await?, [("view-1".to_owned(), "one".to_owned())]);
    // The image goes, its content stays.
    runtime.remove_image(v1::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }).await?;
    assert!(source.join("bin/busybox").exists());
    runtime.remove_view(&snapshotter, "view-1").await?;
    runtime.remove_view(&snapshotter, "view-1").await?;
    assert!(runtime.views(&snapshotter, LABEL).await?.is_empty());
    let missing = runtime.view(&snapshotter, "view-2", "sha256:none", (LABEL, "two")).await;
    assert!(missing.is_err_and(|error| error.is_not_found()));

    import(&containerd, dir).await?;
    let (_, container) = run_container(&runtime).await?;
    assert!(!runtime.wait_task(&container, Duration::from_millis(10)).await?, "it runs");
    runtime.signal_task(&container, 9).await?;
    assert!(runtime.wait_task(&container, Duration::from_secs(20)).await?);
    Ok(())
}

#[tokio::test]
async fn it_is_a_session_of_its_own() -> TestResult {
    if skipped_without_containers("it_is_a_session_of_its_own") {
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("kedge-cri-").tempdir()?;
    // A path that no socket can have, to see the short one used.
    let long: PathBuf = dir.path().join("d".repeat(100));
    fs::create_dir(&long)?;
    let containerd = PrivateContainerd::start(config(&long)).await?;
    let pid = containerd.pid();
    let session = nix::unistd::getsid(Some(Pid::from_raw(i32::try_from(pid)?)))?;
    let socket_dir = containerd.socket().parent().map(Path::to_owned).ok_or("no parent")?;
    clean_up(&long).await?;
    assert_eq!(session.as_raw(), i32::try_from(pid)?);
    assert!(socket_dir.starts_with("/run") && !socket_dir.exists(), "{}", socket_dir.display());
    Ok(())
}

#[tokio::test]
async fn a_start_that_fails_tells_why() -> TestResult {
    if skipped_without_containers("a_start_that_fails_tells_why") {
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("kedge-cri-").tempdir()?;
    let data_dir = dir.path().join("containerd");
    fs::create_dir_all(&data_dir)?;
    // containerd cannot listen where a directory is that is not empty.
    fs::create_dir_all(data_dir.join("containerd.sock").join("x"))?;
    let error = PrivateContainerd::start(config(dir.path())).await.expect_err("the socket's place is taken");
    let text = error.to_string();
    assert!(text.contains("ended during its start") && text.contains(": is a directory; see "), "{text}");
    Ok(())
}

#[test]
fn version_of_the_installed_containerd_is_known() -> TestResult {
    if skipped_without_containers("version_of_the_installed_containerd_is_known") {
        return Ok(());
    }
    // The configuration must be one that the installed version reads without a complaint about its shape.
    let dir = tempfile::tempdir()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let containerd = PrivateContainerd::start(config(dir.path())).await?;
        let file = dir.path().join("containerd/config.toml");
        let dump = Command::new("containerd").arg("--config").arg(&file).args(["config", "dump"]).output()?;
        let dump = String::from_utf8_lossy(&dump.stdout).into_owned();
        let log = fs::read_to_string(containerd.log_path())?;
        clean_up(dir.path()).await?;
        assert!(dump.contains(IMAGE) && dump.contains("restrict_oom_score_adj"), "{dump}");
        assert!(!log.contains("unknown key"), "{log}");
        Ok(())
    })
}
