//! A balancer between callers and servers that fall silent, end and come back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kedge_balancer::{Balancer, Config, Health, Memory};
use kedge_pki::{CertificateAuthority, KubeconfigCluster, KubeconfigUser, LeafRequest, write_kubeconfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes TLS and plain connections on one port, as TLS begins with the byte 22: the former are asked how it is, the latter
/// are told who it is.
struct Server {
    address: SocketAddr,
    speaks: watch::Sender<bool>,
    end: CancellationToken,
}

impl Server {
    async fn start(address: &str, tls: TlsAcceptor) -> Self {
        let listener = TcpListener::bind(address).await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (speaks, speaking) = watch::channel(true);
        let end = CancellationToken::new();
        let ended = end.clone();
        tokio::spawn(async move {
            while let Some(Ok((stream, _))) = ended.run_until_cancelled(listener.accept()).await {
                let (tls, speaking, ended) = (tls.clone(), speaking.clone(), ended.clone());
                tokio::spawn(async move { ended.run_until_cancelled(serve(stream, address, tls, speaking)).await });
            }
        });
        Self { address, speaks, end }
    }
}

async fn serve(mut stream: TcpStream, address: SocketAddr, tls: TlsAcceptor, mut speaking: watch::Receiver<bool>) {
    let mut first = [0u8];
    if stream.peek(&mut first).await.unwrap_or_default() == 0 {
        return;
    }
    if first[0] != 22 {
        let _ = stream.write_all(format!("{address}\n").as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return;
    }
    let Ok(stream) = tls.accept(stream).await else { return };
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.is_empty() {
            let _ = speaking.wait_for(|speaks| *speaks).await;
            let answer = lines.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            if answer.await.is_err() {
                return;
            }
        }
    }
}

/// A caller that is connected, and to whom.
async fn call(balancer: &Balancer) -> Option<(BufReader<TcpStream>, String)> {
    let mut stream = TcpStream::connect(balancer.address()).await.ok()?;
    stream.write_all(b"?").await.ok()?;
    let mut stream = BufReader::new(stream);
    let mut who = String::new();
    stream.read_line(&mut who).await.ok()?;
    (!who.is_empty()).then(|| (stream, who.trim().to_owned()))
}

async fn health(memory: &Path, expected: &[(SocketAddr, Health)]) {
    let began = Instant::now();
    loop {
        let known = Memory::read(memory).map(|memory| memory.servers).unwrap_or_default();
        let known: Vec<_> = known.iter().map(|server| (server.address, server.health)).collect();
        if known == expected {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{known:?} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

struct Place {
    dir: tempfile::TempDir,
    tls: TlsAcceptor,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let authority = CertificateAuthority::ensure(dir.path(), "ca", "kubernetes").expect("an authority");
        let request = LeafRequest::server("kube-apiserver", vec!["kubernetes".to_owned()], Vec::new());
        let identity = authority.issue(&request).expect("a certificate");
        let tls = kedge_pki::server_config_without_client_certificates(&identity).expect("TLS");
        let cluster = KubeconfigCluster {
            server: "https://127.0.0.1:6444".to_owned(),
            authority_pem: authority.certificate_pem().to_owned(),
            tls_server_name: None,
        };
        let user = KubeconfigUser::Token("t".to_owned());
        write_kubeconfig(&dir.path().join("kubelet.conf"), "c", "u", &cluster, &user).expect("a file can be written");
        Self { dir, tls: TlsAcceptor::from(Arc::new(tls)) }
    }

    fn memory(&self) -> PathBuf {
        self.dir.path().join("api-balancer.json")
    }

    async fn balancer(&self, seed: SocketAddr, shutdown: &CancellationToken) -> Balancer {
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            seeds: vec![seed.to_string()],
            memory: self.memory(),
            own: Vec::new(),
            kubeconfigs: vec![self.dir.path().join("none"), self.dir.path().join("kubelet.conf")],
        };
        Balancer::start(config, shutdown.clone()).await.expect("a free port")
    }
}

#[tokio::test]
async fn callers_are_carried_to_servers_that_answer() {
    let place = Place::new();
    let (a, b) =
        (Server::start("127.0.0.1:0", place.tls.clone()).await, Server::start("127.0.0.1:0", place.tls.clone()).await);
    let shutdown = CancellationToken::new();
    let balancer = place.balancer(a.address, &shutdown).await;
    let (_first, who) = call(&balancer).await.unwrap();
    assert_eq!(who, a.address.to_string(), "the seed is the only one that is known");
    balancer.learn(&[a.address, b.address]);
    let mut both = [(a.address, Health::Ready), (b.address, Health::Ready)];
    both.sort();
    health(&place.memory(), &both).await;
    // The first caller is at `a` already.
    let (mut held, who) = call(&balancer).await.unwrap();
    assert_eq!(who, b.address.to_string());

    b.speaks.send_replace(false);
    held.read_to_end(&mut Vec::new()).await.ok();
    let after = both.map(|(server, health)| (server, if server == b.address { Health::Down } else { health }));
    health(&place.memory(), &after).await;
    for _ in 0..3 {
        assert_eq!(call(&balancer).await.unwrap().1, a.address.to_string());
    }
    let text = balancer.metrics();
    for line in [
        format!("kedge_api_balancer_cut_connections_total{{server=\"{}\"}} 1", b.address),
        format!("kedge_api_balancer_server_down{{server=\"{}\"}} 1", b.address),
        format!("kedge_api_balancer_server_ready{{server=\"{}\"}} 1", a.address),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }

    b.speaks.send_replace(true);
    health(&place.memory(), &both).await;
    a.end.cancel();
    let other = both.map(|(server, health)| (server, if server == a.address { Health::Down } else { health }));
    health(&place.memory(), &other).await;
    assert_eq!(call(&balancer).await.unwrap().1, b.address.to_string());
    shutdown.cancel();
}

#[tokio::test]
async fn a_start_uses_what_was_known_where_the_seed_is_gone() {
    let place = Place::new();
    let server = Server::start("127.0.0.1:0", place.tls.clone()).await;
    let gone = Server::start("127.0.0.1:0", place.tls.clone()).await;
    gone.end.cancel();
    let first = CancellationToken::new();
    let balancer = place.balancer(gone.address, &first).await;
    balancer.learn(&[server.address]);
    health(&place.memory(), &[(server.address, Health::Unknown)]).await;
    first.cancel();
    let second = CancellationToken::new();
    let balancer = place.balancer(gone.address, &second).await;
    assert_eq!(call(&balancer).await.unwrap().1, server.address.to_string());
    second.cancel();
}

#[tokio::test]
async fn a_server_of_another_cluster_is_avoided_but_not_cut_off() {
    let place = Place::new();
    let own = Server::start("127.0.0.1:0", place.tls.clone()).await;
    let strange = Server::start("127.0.0.1:0", Place::new().tls).await;
    let shutdown = CancellationToken::new();
    let balancer = place.balancer(own.address, &shutdown).await;
    balancer.learn(&[own.address, strange.address]);
    let mut both = [(own.address, Health::Ready), (strange.address, Health::NotReady)];
    both.sort();
    health(&place.memory(), &both).await;
    for _ in 0..3 {
        assert_eq!(call(&balancer).await.unwrap().1, own.address.to_string());
    }
    shutdown.cancel();
}
