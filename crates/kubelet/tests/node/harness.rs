//! A node under test: a private containerd, a kubelet without an API server, and a client of the kubelet's server.

use std::convert::Infallible;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use kedge_client::{Informers, client_from_service};
use kedge_cri::{ImageImport, PrivateContainerd, PrivateContainerdConfig, Runtime, v1};
use kedge_kubelet::{Config, Deps, Eviction};
use kedge_meta::{StatusBoard, SystemClock};
use kedge_oci::ImageBuilder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

pub(crate) const IMAGE: &str = "localhost/kedge-test/busybox:v1";
pub(crate) const NODE: &str = "node-1";
pub(crate) type TestResult<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// A machine for one test. Its containerd outlives kubelets.
pub(crate) struct Machine {
    pub(crate) dir: PathBuf,
    pub(crate) runtime: Runtime,
    containerd: Option<PrivateContainerd>,
    tls: Tls,
    port: u16,
}

struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// A kubelet that runs.
pub(crate) struct Kubelet {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), kedge_kubelet::Error>>,
}

impl Kubelet {
    /// Ends it, as a restart of the process would.
    pub(crate) async fn stop(self) -> TestResult {
        self.shutdown.cancel();
        Ok(self.task.await??)
    }
}

impl Machine {
    pub(crate) async fn start(dir: &Path) -> TestResult<Self> {
        let mut config = PrivateContainerdConfig::new(dir.join("c"));
        config.cni_conf_dir = dir.join("cni");
        config.sandbox_image = IMAGE.to_owned();
        let containerd = PrivateContainerd::start(config).await?;
        import(&containerd, dir).await?;
        std::fs::create_dir_all(dir.join("manifests"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { dir: dir.to_owned(), runtime: containerd.runtime(), containerd: Some(containerd), tls: tls()?, port })
    }

    /// Starts a kubelet; its API server never answers.
    pub(crate) fn kubelet(&self) -> Kubelet {
        let client = client_from_service(tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":503}"#;
            let mut answer = http::Response::new(Full::new(Bytes::from(body)));
            *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            Ok::<_, Infallible>(answer)
        }));
        let shutdown = CancellationToken::new();
        let config = Config {
            node_name: NODE.to_owned(),
            node_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: self.port,
            healthz_port: 0,
            root_dir: self.dir.join("kubelet"),
            pod_logs_dir: self.dir.join("pods"),
            container_logs_dir: Some(self.dir.join("containers")),
            static_pod_path: Some(self.dir.join("manifests")),
            // The disk of whoever runs the tests may be fuller than upstream likes it.
            eviction: Eviction { thresholds: Vec::new(), ..Eviction::default() },
            ..Config::default()
        };
        let deps = Deps {
            informers: Informers::new(client.clone(), shutdown.clone()),
            client,
            runtime: self.runtime.clone(),
            status: StatusBoard::new(Arc::new(SystemClock)),
            clock: Arc::new(SystemClock),
            server_tls: Some(self.tls.server.clone()),
            network_ready: None,
            requests: Arc::default(),
            pod_gate: None,
        };
        let task = tokio::spawn(kedge_kubelet::run(config, deps, shutdown.clone()));
        Kubelet { shutdown, task }
    }

    /// Writes a manifest of a pod on the host's network: `spec` is what comes below `hostNetwork`.
    pub(crate) fn put(&self, name: &str, spec: &str) -> TestResult {
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  hostNetwork: true\n{spec}"
        );
        let temporary = self.dir.join(format!("{name}.new"));
        std::fs::write(&temporary, text)?;
        Ok(std::fs::rename(temporary, self.manifest(name))?)
    }

    pub(crate) fn manifest(&self, name: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{name}.yaml"))
    }

    /// What the kubelet's server answers: status and body.
    pub(crate) async fn get(&self, path: &str) -> TestResult<(u16, String)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let connector = TlsConnector::from(self.tls.client.clone());
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header("Host", "localhost").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The pod as the kubelet sees it, null where it has none.
    pub(crate) async fn pod(&self, name: &str) -> Value {
        let list = match self.get("/pods").await {
            Ok((200, body)) => serde_json::from_str(&body).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        let wanted = format!("{name}-{NODE}");
        let pods = list["items"].as_array().cloned().unwrap_or_default();
        pods.into_iter().find(|pod| pod["metadata"]["name"] == wanted.as_str()).unwrap_or(Value::Null)
    }

    /// Waits until the pod is as wanted, and returns it.
    pub(crate) async fn until(&self, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> TestResult<Value> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let pod = self.pod(name).await;
            if wanted(&pod) {
                return Ok(pod);
            }
            if Instant::now() > deadline {
                return Err(format!("{name} did not become {what}: {:#}", pod["status"]).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ids of the containers of a pod that run.
    pub(crate) async fn running(&self, pod: &Value) -> TestResult<Vec<String>> {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let containers = self.runtime.list_containers(None).await?;
        let own = containers.into_iter().filter(|container| {
            container.labels.get("io.kubernetes.pod.uid").is_some_and(|own| own == uid)
                && container.state == v1::ContainerState::ContainerRunning as i32
        });
        Ok(own.map(|container| container.id).collect())
    }

    /// Removes every sandbox and the containerd, also when the test failed before.
    pub(crate) async fn clean_up(mut self) -> TestResult {
        for sandbox in self.runtime.list_pod_sandboxes(None).await? {
            self.runtime.stop_pod_sandbox(&sandbox.id).await?;
            self.runtime.remove_pod_sandbox(&sandbox.id).await?;
        }
        if let Some(containerd) = self.containerd.take() {
            containerd.stop().await?;
        }
        unmount_below(&self.dir);
        PrivateContainerd::remove_files(&self.dir.join("c"))?;
        Ok(())
    }
}

fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.reverse();
    for point in points.into_iter().filter(|point| Path::new(point).starts_with(dir)) {
        // What stays mounted shows when the directory is removed.
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
    }
}

async fn import(containerd: &PrivateContainerd, dir: &Path) -> TestResult {
    let archive = dir.join("image.tar");
    let mut image = ImageBuilder::new(IMAGE)?
        .file("/bin/busybox", "/bin/busybox", 0o755)
        .dir("/tmp", 0o1777)
        .env("PATH", "/bin")
        .entrypoint(["/bin/busybox", "sleep", "100000"]);
    for name in ["sh", "cat", "sleep", "echo", "touch", "rm", "test", "id", "ls", "trap", "env"] {
        image = image.symlink(format!("/bin/{name}"), "/bin/busybox");
    }
    let image = image.write_to(&archive)?;
    let import = ImageImport { names: image.names.clone(), snapshotter: Some(containerd.snapshotter().to_owned()) };
    containerd.runtime().import_image(containerd.socket(), &archive, &import).await?;
    Ok(())
}

/// A CA, a certificate for the kubelet's server, and one for a client that may do everything.
fn tls() -> TestResult<Tls> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "kedge-test");
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    let issue = |name: &str, group: Option<&str>| -> TestResult<_> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        let certificate = params.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((vec![certificate.der().clone()], key))
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone())?;
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let (chain, key) = issue("node", None)?;
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    let (chain, key) = issue("admin", Some("system:masters"))?;
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Tls { server: Arc::new(server), client: Arc::new(client) })
}
