//! A kubelet as a process of its own, with a containerd that nobody supervises, on the host of a control plane.
//!
//! Invariant: what it started (kubelet, containerd, shims, containers) is gone when it is dropped.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use kedge_cri::{CriError, ImageImport, PrivateContainerd, PrivateContainerdConfig, Runtime, v1};
use kedge_oci::ImageBuilder;
use kedge_pki::{
    CertificateAuthority, KubeconfigCluster, KubeconfigEntry, KubeconfigUser, LeafRequest, merge_kubeconfig,
    write_kubeconfig,
};
use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::binary::busybox_image;
use crate::host::{CALM, Host};
use crate::kubectl::Output;

const PAUSE: &str = "localhost/pause:test";
const CNI: &str = r#"{"cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {"type": "bridge", "bridge": "e2e0", "isGateway": true, "ipMasq": false, "ipam": {"type": "host-local",
   "dataDir": "DIR", "ranges": [[{"subnet": "10.250.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

/// A container, as the runtime tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The pod's name.
    pub pod: String,
    /// How often it was started before.
    pub attempt: u32,
    /// Whether it runs.
    pub running: bool,
}

/// A node's agent and its runtime.
pub struct NodeAgent {
    dir: PathBuf,
    namespace: String,
    address: String,
    pki: PathBuf,
    containerd: u32,
    kubelet: Option<Child>,
    /// With which it gets its certificates, where they are not given to it.
    token: Option<String>,
}

impl NodeAgent {
    /// Starts containerd with an image under the name `image`, and the kubelet, as node `node-1` of the host's cluster.
    pub fn start(host: &Host, image: &str) -> Self {
        Self::start_as(host, image, None)
    }

    /// The same for a node that has nothing but a bootstrap token.
    pub fn bootstrap(host: &Host, image: &str, token: &str) -> Self {
        Self::start_as(host, image, Some(token.to_owned()))
    }

    fn start_as(host: &Host, image: &str, token: Option<String>) -> Self {
        let dir = host.file("node");
        for part in ["cni", "manifests"] {
            std::fs::create_dir_all(dir.join(part)).expect("a directory can be made");
        }
        let ipam = dir.join("ipam");
        let cni = CNI.replace("DIR", ipam.to_str().expect("paths of tests are text"));
        std::fs::write(dir.join("cni/10-e2e.conflist"), cni).expect("a file can be written");
        let mut agent = Self {
            namespace: host.namespace().expect("a node needs a namespace").to_owned(),
            address: host.address().to_owned(),
            pki: host.data_dir().join("pki"),
            containerd: 0,
            kubelet: None,
            token,
            dir,
        };
        agent.write_kubeconfig(host);
        agent.start_containerd();
        agent.import(image);
        agent.start_kubelet(host);
        agent
    }

    /// Starts the kubelet (again).
    pub fn start_kubelet(&mut self, host: &Host) {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let pki = |name: &str| self.pki.join(name).display().to_string();
        let configuration = format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nstaticPodPath: {}\npodLogsDir: {}\n\
             authentication: {{x509: {{clientCAFile: {}}}}}\nmaxPods: 110\n\
             rotateCertificates: {asks}\nserverTLSBootstrap: {asks}\n{CALM}",
            path("manifests"),
            path("logs/pods"),
            pki("ca.crt"),
            asks = self.token.is_some(),
        );
        std::fs::write(self.dir.join("config.yaml"), configuration).expect("a file can be written");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("the log can be written");
        let mut command = host.command("kubelet");
        command
            .arg(format!("--kubeconfig={}", path("kubelet.conf")))
            .arg(format!("--config={}", path("config.yaml")))
            .arg(format!("--container-runtime-endpoint={}", self.endpoint()))
            .arg(format!("--root-dir={}", path("kubelet")))
            .args(self.certificate_flags())
            .args(["--hostname-override=node-1", "-v=2", &format!("--node-ip={}", self.address)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.kubelet = Some(command.spawn().expect("the kubelet can be started"));
    }

    fn certificate_flags(&self) -> [String; 2] {
        let pki = |name: &str| self.pki.join(name).display().to_string();
        match &self.token {
            None => [
                format!("--tls-cert-file={}", pki("kubelet.crt")),
                format!("--tls-private-key-file={}", pki("kubelet.key")),
            ],
            Some(_) => [
                format!("--bootstrap-kubeconfig={}", self.file("bootstrap-kubelet.conf").display()),
                format!("--cert-dir={}", self.file("pki").display()),
            ],
        }
    }

    /// A path below the node's directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Ends the kubelet with SIGKILL.
    pub fn kill_kubelet(&mut self) {
        let Some(mut kubelet) = self.kubelet.take() else { return };
        kubelet.kill().expect("our own child can be killed");
        kubelet.wait().expect("our own child can be waited for");
    }

    /// The process id of the kubelet.
    pub fn pid(&self) -> Option<u32> {
        self.kubelet.as_ref().map(Child::id)
    }

    /// What the kubelet logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// A static pod's manifest.
    pub fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{name}.yaml"))
    }

    /// Addresses that the network plugin has given out.
    pub fn addresses(&self) -> Vec<String> {
        addresses_below(&self.dir.join("ipam"))
    }

    /// Asks the kubelet's server, as an administrator.
    pub fn get(&self, host: &Host, path: &str) -> Output {
        let pki = |name: &str| self.pki.join(name).display().to_string();
        let (authority, certificate, key) = (pki("ca.crt"), pki("admin.crt"), pki("admin.key"));
        let url = format!("https://{}:10250{path}", self.address);
        let arguments = ["-sS", "--max-time", "5", "--cacert", &authority, "--cert", &certificate, "--key", &key, &url];
        host.run("curl", &arguments)
    }

    /// Ends containerd with SIGKILL.
    pub fn kill_containerd(&mut self) {
        let pid = i32::try_from(self.containerd).expect("a process id fits");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("what we started can be killed");
    }

    /// Starts containerd (again). Its containers are adopted.
    pub fn start_containerd(&mut self) {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).expect("the namespace is there");
        let config = self.containerd_config();
        // A thread of its own, because it stays in the namespace; what it starts is in it too.
        let thread = std::thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
            blocking(async { PrivateContainerd::start(config).await.map(|containerd| containerd.pid()) })
        });
        self.containerd = thread.join().expect("the thread ends").expect("containerd starts");
    }

    /// All containers of pods.
    pub fn containers(&self) -> Vec<Container> {
        let list = self.ask(|runtime| async move { runtime.list_containers(None).await }).unwrap_or_default();
        let label = |container: &v1::Container, name: &str| container.labels.get(name).cloned().unwrap_or_default();
        list.into_iter()
            .map(|container| Container {
                pod: label(&container, "io.kubernetes.pod.name"),
                attempt: container.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
                running: container.state == v1::ContainerState::ContainerRunning as i32,
                id: container.id,
            })
            .collect()
    }

    /// The containers of a pod that run.
    pub fn running(&self, pod: &str) -> Vec<Container> {
        self.containers().into_iter().filter(|container| container.pod == pod && container.running).collect()
    }

    /// Stops a container behind the kubelet's back.
    pub fn stop_container(&self, id: &str) {
        let id = id.to_owned();
        self.ask(|runtime| async move { runtime.stop_container(&id, Duration::ZERO).await })
            .expect("it can be stopped");
    }

    /// Runs a command in a container; whether it ended with 0.
    pub fn exec(&self, id: &str, command: &[&str]) -> bool {
        let (id, command) = (id.to_owned(), command.iter().map(|word| (*word).to_owned()).collect());
        let answer = self.ask(|runtime| async move { runtime.exec_sync(&id, command, None).await });
        answer.is_ok_and(|answer| answer.exit_code == 0)
    }

    /// Calls the runtime.
    pub fn ask<T, F>(&self, call: impl FnOnce(Runtime) -> F) -> Result<T, CriError>
    where
        F: Future<Output = Result<T, CriError>>,
    {
        let endpoint = self.endpoint();
        blocking(async move { call(Runtime::connect(&endpoint).await?).await })
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("kubelet.log")
    }

    fn endpoint(&self) -> String {
        let data_dir = self.dir.join("containerd");
        let found = blocking(async { PrivateContainerd::find(&data_dir).await });
        let known = found.map(|containerd| containerd.endpoint());
        let file = self.dir.join("endpoint");
        match known {
            Some(endpoint) => {
                std::fs::write(file, &endpoint).expect("a file can be written");
                endpoint
            }
            None => std::fs::read_to_string(file).unwrap_or_default(),
        }
    }

    fn containerd_config(&self) -> PrivateContainerdConfig {
        let mut config = PrivateContainerdConfig::new(self.dir.join("containerd"));
        config.cni_conf_dir = self.dir.join("cni");
        config.sandbox_image = PAUSE.to_owned();
        config
    }

    fn write_kubeconfig(&self, host: &Host) {
        let authority = CertificateAuthority::ensure(&self.pki, "ca", "kubernetes").expect("the authority is there");
        if let Some(token) = &self.token {
            let cluster = KubeconfigCluster {
                server: format!("https://{}:{}", host.address(), host.port()),
                authority_pem: authority.certificate_pem().to_owned(),
                tls_server_name: None,
            };
            let (path, user) = (self.file("bootstrap-kubelet.conf"), KubeconfigUser::Token(token.clone()));
            write_kubeconfig(&path, "kubernetes", "tls-bootstrap-token-user", &cluster, &user)
                .expect("the kubeconfig can be written");
            return;
        }
        let identity = authority.issue(&LeafRequest::client("system:node:node-1", &["system:nodes"]));
        let entry = KubeconfigEntry {
            name: "node".to_owned(),
            server: format!("https://{}:{}", host.address(), host.port()),
            authority_pem: authority.certificate_pem().to_owned(),
            identity: identity.expect("a certificate can be issued"),
        };
        merge_kubeconfig(&self.dir.join("kubelet.conf"), &entry).expect("the kubeconfig can be written");
    }

    fn import(&self, image: &str) {
        let (pause, busybox) = (self.dir.join("pause.tar"), self.dir.join("busybox.tar"));
        // Not the binary under test, which may need libraries.
        let builder = ImageBuilder::new(PAUSE).expect("the name is one").file("/bin/busybox", "/bin/busybox", 0o755);
        builder.entrypoint(["/bin/busybox", "sleep", "1000000"]).write_to(&pause).expect("the image can be written");
        busybox_image(image, &busybox);
        let data_dir = self.dir.join("containerd");
        blocking(async {
            let containerd = PrivateContainerd::find(&data_dir).await.expect("it runs");
            for (archive, name) in [(&pause, PAUSE), (&busybox, image)] {
                let snapshotter = Some(containerd.snapshotter().to_owned());
                let import = ImageImport { names: vec![name.to_owned()], snapshotter };
                let done = containerd.runtime().import_image(containerd.socket(), archive, &import).await;
                done.expect("the image can be imported");
            }
        });
    }
}

impl Drop for NodeAgent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the kubelet's log ---\n{}", lines[lines.len().saturating_sub(80)..].join("\n"));
        }
        self.kill_kubelet();
        let data_dir = self.dir.join("containerd");
        if blocking(PrivateContainerd::find(&data_dir)).is_none() {
            self.start_containerd();
        }
        let removed = self.ask(|runtime| async move {
            for sandbox in runtime.list_pod_sandboxes(None).await? {
                runtime.stop_pod_sandbox(&sandbox.id).await?;
                runtime.remove_pod_sandbox(&sandbox.id).await?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            eprintln!("pods may be left: {error}");
        }
        blocking(async {
            if let Some(containerd) = PrivateContainerd::find(&data_dir).await {
                // What stays shows as a process whose files are gone.
                let _ = containerd.stop().await;
            }
        });
        unmount_below(&self.dir);
    }
}

/// Addresses that host-local has given out below a directory.
pub fn addresses_below(dir: &Path) -> Vec<String> {
    let networks = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = networks.flat_map(|network| std::fs::read_dir(network.path()).into_iter().flatten().flatten());
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
    names.sort();
    names
}

fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.reverse();
    for point in points.into_iter().filter(|point| Path::new(point).starts_with(dir)) {
        // What stays mounted shows when the directory is removed.
        let _ = umount2(point, MntFlags::MNT_DETACH);
    }
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(work)
}
