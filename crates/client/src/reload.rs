//! A client that follows the files that it is made of: where its kubeconfig, or a certificate, key or authority that it
//! names, or the authority that a pod is given, has changed, the next request goes out over a new connection with what is
//! there now.
//!
//! Requests that run, watches among them, end on the connection they began on. Invariant: what cannot be used is said, and
//! what worked last goes on.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use kube::Client;
use kube::client::Body;
use kube::config::Kubeconfig;
use parking_lot::Mutex;
use tower::service_fn;

use crate::connect::{ConnectError, connect_anonymously, connect_in_cluster, connect_with};

/// The files are looked at again after so long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where a pod finds whom to trust.
const POD_AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";

/// What a client is made of.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A kubeconfig.
    Kubeconfig(PathBuf),
    /// The same without its user's credentials.
    Anonymous(PathBuf),
    /// What every pod is given.
    Pod,
}

impl Source {
    /// A client with what the files say at each time.
    pub(crate) async fn client(self) -> Result<Client, ConnectError> {
        let marks = self.marks();
        let client = self.connect().await?;
        Ok(reloading(self, client, marks))
    }

    async fn connect(&self) -> Result<Client, ConnectError> {
        match self {
            Self::Kubeconfig(path) => connect_with(path).await,
            Self::Anonymous(path) => connect_anonymously(path).await,
            Self::Pod => connect_in_cluster(),
        }
    }

    /// All files that count, as they are now.
    fn marks(&self) -> Vec<Mark> {
        let files = match self {
            Self::Kubeconfig(path) | Self::Anonymous(path) => named_by(path),
            Self::Pod => vec![POD_AUTHORITY.into()],
        };
        files.into_iter().map(|file| (file.clone(), mark(&file))).collect()
    }
}

/// The same for a pod, whose first client is made at once.
pub(crate) fn reloading_in_cluster() -> Result<Client, ConnectError> {
    let marks = Source::Pod.marks();
    Ok(reloading(Source::Pod, connect_in_cluster()?, marks))
}

fn reloading(source: Source, client: Client, marks: Vec<Mark>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let state = State { client, marks, looked: Instant::now() };
    let reloading = Reloading { source: Arc::new(source), state: Arc::new(Mutex::new(state)) };
    reloading.into_client(&namespace)
}

/// A file, and what changes when it is written or replaced.
type Mark = (PathBuf, Option<(SystemTime, u64, u64)>);

struct State {
    client: Client,
    marks: Vec<Mark>,
    looked: Instant,
}

#[derive(Clone)]
struct Reloading {
    source: Arc<Source>,
    state: Arc<Mutex<State>>,
}

impl Reloading {
    /// A client that asks which one is current for each request.
    fn into_client(self, namespace: &str) -> Client {
        // The client inside waits itself until it is ready.
        let service = service_fn(move |request: http::Request<Body>| {
            let reloading = self.clone();
            async move { reloading.current().await.send(request).await }
        });
        Client::new(service, namespace)
    }

    async fn current(&self) -> Client {
        {
            let mut state = self.state.lock();
            if state.looked.elapsed() < LOOK_EVERY {
                return state.client.clone();
            }
            state.looked = Instant::now();
            if self.source.marks() == state.marks {
                return state.client.clone();
            }
        }
        let marks = self.source.marks();
        match self.source.connect().await {
            Ok(client) => {
                tracing::info!(source = ?self.source, "credentials have changed; new connections use them");
                let mut state = self.state.lock();
                state.client = client.clone();
                state.marks = marks;
                client
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::warn!(%error, cause, "credentials have changed and cannot be used; those before go on");
                self.state.lock().client.clone()
            }
        }
    }
}

/// The kubeconfig and all files that it names.
fn named_by(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    if let Ok(kubeconfig) = Kubeconfig::read_from(path) {
        let clusters = kubeconfig.clusters.into_iter().filter_map(|named| named.cluster?.certificate_authority);
        let users = kubeconfig.auth_infos.into_iter().filter_map(|named| named.auth_info);
        let users = users.flat_map(|user| [user.client_certificate, user.client_key]).flatten();
        files.extend(clusters.chain(users).map(PathBuf::from));
    }
    files
}

fn mark(file: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(dir: &Path, port: u16) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    server: http://127.0.0.1:{port}\n\
             contexts:\n- name: c\n  context:\n    cluster: c\n    user: u\nusers:\n- name: u\n  user:\n    token: t{port}\n"
        );
        std::fs::write(dir.join("config"), text).unwrap();
    }

    /// Answers each request with the given text.
    async fn serve(answer: &'static str) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", answer.len());
                let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn a_changed_file_counts_and_a_broken_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (serve("first").await, serve("second").await);
        kubeconfig(dir.path(), first);
        let path = dir.path().join("config");
        let source = Source::Kubeconfig(path.clone());
        let reloading = Reloading {
            state: Arc::new(Mutex::new(State {
                client: source.connect().await.unwrap(),
                marks: source.marks(),
                looked: Instant::now(),
            })),
            source: Arc::new(source),
        };
        let client = reloading.clone().into_client("default");
        let ask = async || client.request_text(http::Request::get("/").body(Vec::new()).unwrap()).await.unwrap();
        let look_again = || reloading.state.lock().looked = Instant::now() - LOOK_EVERY;
        assert_eq!(ask().await, "first");
        kubeconfig(dir.path(), second);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + "# longer\n").unwrap();
        look_again();
        assert_eq!(ask().await, "second");
        std::fs::write(&path, "nonsense: [").unwrap();
        look_again();
        assert_eq!(ask().await, "second");
    }
}
