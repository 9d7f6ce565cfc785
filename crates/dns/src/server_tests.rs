//! The server over loopback, with a resolver of the test's own behind it.

use super::*;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kedge_client::Change;
use parking_lot::RwLock;
use serde_json::json;

use crate::catalog::Catalog;
use crate::corefile::{parse, plan};
use crate::forward::{Forwarder, usual_plan};
use crate::message::{encode, question, response, udp_limit};
use crate::metrics::Metrics;
use crate::routing::{Makings, Routing};
use crate::zone::Zone;

/// A resolver that knows `www.example.`, has much to say about `big.example.`, and nothing good about others.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    async fn start() -> Self {
        // A port that is free for UDP may be taken for TCP; then another one is.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (address, asked) = (udp.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                count.fetch_add(1, Ordering::Relaxed);
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                // First an answer to another question: it must not be taken.
                let mut forged = upstream_answer(&asked);
                forged.metadata.id ^= 1;
                udp.send_to(&forged.to_vec().unwrap(), from).await.unwrap();
                udp.send_to(&encode(upstream_answer(&asked), udp_limit(&asked)).unwrap(), from).await.unwrap();
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut packet).await.unwrap();
                let bytes = upstream_answer(&Message::from_vec(&packet).unwrap()).to_vec().unwrap();
                stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
                stream.write_all(&bytes).await.unwrap();
            }
        });
        Self { address, asked }
    }
}

fn upstream_answer(asked: &Message) -> Message {
    let name = question(asked).name.clone();
    let (code, records) = match name.to_ascii().to_ascii_lowercase().as_str() {
        "www.example." => (ResponseCode::NoError, 1),
        "big.example." => (ResponseCode::NoError, 200),
        "refused.example." => (ResponseCode::Refused, 0),
        _ => (ResponseCode::NXDomain, 0),
    };
    let mut answer = response(asked, code);
    for n in 0..records {
        answer.add_answer(Record::from_rdata(name.clone(), 300, RData::A(A::new(192, 0, 2, n))));
    }
    answer
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let service = |name: &str, spec: serde_json::Value| -> Arc<Service> {
        Arc::new(serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": name}, "spec": spec})).unwrap())
    };
    for service in [
        service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]})),
        service("many", json!({"clusterIP": "None"})),
        service("alias", json!({"type": "ExternalName", "externalName": "www.example"})),
        service("inner", json!({"type": "ExternalName", "externalName": "web.ns.svc.cluster.local"})),
        service("loop", json!({"type": "ExternalName", "externalName": "loop.ns.svc.cluster.local"})),
    ] {
        catalog.note_service(&Change::Added(service));
    }
    let endpoints: Vec<_> = (0..100).map(|n| json!({"addresses": [format!("10.244.0.{n}")]})).collect();
    let metadata = json!({"namespace": "ns", "name": "many-1", "labels": {"kubernetes.io/service-name": "many"}});
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints});
    let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
    catalog.note_slice(&Change::Added(Arc::new(slice)));
    catalog
}

struct Server {
    address: SocketAddr,
    resolver: Arc<Resolver>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    async fn start(upstreams: Vec<SocketAddr>) -> Self {
        Self::start_with(upstreams, "").await
    }

    /// With a Corefile.
    async fn start_with(upstreams: Vec<SocketAddr>, corefile: &str) -> Self {
        let metrics = Arc::<Metrics>::default();
        let usual = usual_plan(&upstreams, "/nonexistent/resolv.conf".into());
        let makings = Makings { usual, own: Vec::new(), metrics: metrics.clone() };
        let domain = plan::name("cluster.local").unwrap();
        let (plans, unsupported) = plan::plan(&parse(corefile).unwrap(), &domain);
        assert_eq!(unsupported, [""; 0]);
        let resolver = Arc::new(Resolver {
            zone: Zone::new("cluster.local", Vec::new(), Vec::new()).unwrap(),
            catalog: RwLock::new(Some(catalog())),
            routing: RwLock::new(Arc::new(Routing::new(plans, &makings, None))),
            allowed: vec!["10.244.0.0/16".parse().unwrap()],
            metrics,
        });
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (address, stop) = (udp.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve_udp(udp, resolver.clone(), stop.clone()));
        tokio::spawn(serve_tcp(tcp, resolver.clone(), stop.clone()));
        Self { address, resolver, _stop: stop.drop_guard() }
    }

    fn forwarder(&self) -> Forwarder {
        self.resolver.routing().default_forwarder().unwrap().clone()
    }

    async fn udp(&self, name: &str) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(&query(name).to_vec().unwrap(), self.address).await.unwrap();
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).await.unwrap();
        show(&Message::from_vec(&buffer[..length]).unwrap())
    }

    async fn tcp(&self, names: &[&str]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut answers = Vec::new();
        for name in names {
            let bytes = query(name).to_vec().unwrap();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut packet).await.unwrap();
            answers.push(show(&Message::from_vec(&packet).unwrap()));
        }
        answers
    }
}

fn query(name: &str) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.set_edns(Edns::new());
    message
}

/// Code, flags, how many records of each section; and the answers, if there are few.
fn show(answer: &Message) -> String {
    let metadata = &answer.metadata;
    assert_eq!(metadata.message_type, MessageType::Response);
    let flags = [(metadata.authoritative, " aa"), (metadata.truncation, " tc")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    let few = answer.answers.len() < 4;
    let answers: Vec<String> = answer.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    let answers = if few { answers.join(", ") } else { answers.len().to_string() };
    format!("{:?}{flags} [{answers}] {}", metadata.response_code, answer.authorities.len())
}

#[tokio::test]
async fn names_of_the_cluster_are_answered_over_both_transports() {
    let server = Server::start(Vec::new()).await;
    assert_eq!(server.udp("WEB.ns.svc.cluster.local.").await, "NoError aa [WEB.ns.svc.cluster.local. 10.96.0.5] 0");
    assert_eq!(server.udp("no.ns.svc.cluster.local.").await, "NXDomain aa [] 1");
    assert_eq!(server.udp("svc.cluster.local.").await, "NoError aa [] 1");
    assert!(server.udp("many.ns.svc.cluster.local.").await.starts_with("NoError aa tc ["));
    let answers = server.tcp(&["many.ns.svc.cluster.local.", "web.ns.svc.cluster.local."]).await;
    assert_eq!(answers, ["NoError aa [100] 0", "NoError aa [web.ns.svc.cluster.local. 10.96.0.5] 0"]);
    assert_eq!(
        server.udp("inner.ns.svc.cluster.local.").await,
        "NoError aa [inner.ns.svc.cluster.local. web.ns.svc.cluster.local., web.ns.svc.cluster.local. 10.96.0.5] 0"
    );
    assert!(server.udp("loop.ns.svc.cluster.local.").await.starts_with("ServFail aa"));
    assert_eq!(server.udp("www.example.").await, "ServFail [] 0", "there is nobody to ask");
}

#[tokio::test]
async fn other_names_are_asked_of_others_once() {
    let upstream = Upstream::start().await;
    let server = Server::start(vec![upstream.address]).await;
    for _ in 0..3 {
        assert_eq!(server.udp("www.example.").await, "NoError [www.example. 192.0.2.0] 0");
    }
    assert_eq!(upstream.asked.load(Ordering::Relaxed), 1, "the second time it is known");
    assert_eq!(
        server.udp("alias.ns.svc.cluster.local.").await,
        "NoError [alias.ns.svc.cluster.local. www.example., www.example. 192.0.2.0] 0"
    );
    assert_eq!(upstream.asked.load(Ordering::Relaxed), 1);
    assert_eq!(server.udp("none.example.").await, "NXDomain [] 0");
    assert_eq!(server.udp("refused.example.").await, "Refused [] 0");
    assert!(server.udp("big.example.").await.starts_with("NoError tc ["));
    assert_eq!(server.tcp(&["big.example."]).await, ["NoError [200] 0"]);
}

#[tokio::test]
async fn a_resolver_that_is_gone_is_passed_over() {
    let gone = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let upstream = Upstream::start().await;
    let server = Server::start(vec![gone, upstream.address]).await;
    assert_eq!(server.udp("www.example.").await, "NoError [www.example. 192.0.2.0] 0");
}

#[tokio::test]
async fn nothing_wrong_is_said_before_everything_is_known() {
    let upstream = Upstream::start().await;
    let server = Server::start(vec![upstream.address]).await;
    *server.resolver.catalog.write() = None;
    assert_eq!(server.udp("web.ns.svc.cluster.local.").await, "ServFail [] 0");
    assert_eq!(server.udp("www.example.").await, "NoError [www.example. 192.0.2.0] 0");
}

#[tokio::test]
async fn strangers_are_not_served() {
    let server = Server::start(Vec::new()).await;
    let check = |client: &str, allowed: bool| {
        assert_eq!(server.resolver.is_allowed(client.parse().unwrap()), allowed, "{client}");
    };
    check("127.0.0.1", true);
    check("10.244.3.4", true);
    check("::ffff:10.244.3.4", true);
    check("192.0.2.77", false);
    check("2001:db8::1", false);
}

#[tokio::test]
async fn a_resolver_that_leads_back_is_found_and_left_out() {
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (address, relayed) = (relay.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let server = Server::start(vec![address]).await;
    let (back, count) = (server.address, relayed.clone());
    tokio::spawn(async move {
        let relay = Arc::new(relay);
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = relay.recv_from(&mut buffer).await {
            count.fetch_add(1, Ordering::Relaxed);
            let (relay, question) = (relay.clone(), buffer[..length].to_vec());
            tokio::spawn(async move {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.send_to(&question, back).await.unwrap();
                let mut answer = [0; 1500];
                let length = socket.recv(&mut answer).await.unwrap();
                relay.send_to(&answer[..length], from).await.unwrap();
            });
        }
    });
    server.forwarder().probe().await;
    assert_eq!(server.forwarder().looping(), [address]);
    let before = relayed.load(Ordering::Relaxed);
    assert!(server.udp("www.example.").await.contains("ServFail"));
    assert_eq!(relayed.load(Ordering::Relaxed), before, "nothing goes round");
}

#[tokio::test]
async fn what_was_known_is_said_while_nobody_answers() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap();
    // One answer that holds for a second, then silence.
    let once = tokio::spawn(async move {
        let mut buffer = [0; 1500];
        let (length, from) = upstream.recv_from(&mut buffer).await.unwrap();
        let asked = Message::from_vec(&buffer[..length]).unwrap();
        let mut answer = upstream_answer(&asked);
        answer.answers.iter_mut().for_each(|record| record.ttl = 1);
        upstream.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
    });
    let server = Server::start(vec![address]).await;
    let fresh = server.udp("www.example.").await;
    assert!(fresh.contains("192.0.2.0"), "{fresh}");
    once.await.unwrap();
    let query = Query::query(Name::from_ascii("www.example.").unwrap(), RecordType::A);
    while server.forwarder().cached(&query, false).is_some() {
        tokio::task::yield_now().await;
    }
    let stale = server.udp("www.example.").await;
    assert!(stale.contains("192.0.2.0"), "{stale}");
    assert!(server.udp("unknown.example.").await.contains("ServFail"), "only what was known");
}

#[tokio::test]
async fn a_corefile_sends_names_elsewhere() {
    let (usual, stub) = (Upstream::start().await, Upstream::start().await);
    let corefile = format!(
        "example.:53 {{\n forward . {} {{\n except none.example\n }}\n}}\n\
         . {{\n rewrite name www.old web.ns.svc.cluster.local\n rewrite name suffix .gone .example answer auto\n\
         hosts {{\n 10.0.0.9 fixed.test\n fallthrough\n }}\n forward . {}\n}}\n",
        stub.address, usual.address
    );
    let server = Server::start_with(Vec::new(), &corefile).await;
    for _ in 0..2 {
        assert_eq!(server.udp("www.example.").await, "NoError [www.example. 192.0.2.0] 0");
    }
    assert_eq!(stub.asked.load(Ordering::Relaxed), 2, "without cache in the block nothing is kept");
    assert_eq!(server.udp("none.example.").await, "Refused [] 0", "nobody is to be asked");
    assert_eq!(server.udp("other.").await, "NXDomain [] 0");
    assert_eq!(usual.asked.load(Ordering::Relaxed), 1);
    assert_eq!(server.udp("fixed.test.").await, "NoError aa [fixed.test. 10.0.0.9] 0");
    // What is asked instead shows in nothing that is answered.
    assert_eq!(server.udp("www.old.").await, "NoError aa [www.old. 10.96.0.5] 0");
    // A rewritten name stays in its block, as in CoreDNS.
    assert_eq!(server.udp("www.gone.").await, "NoError [www.gone. 192.0.2.0] 0");
    assert_eq!(usual.asked.load(Ordering::Relaxed), 2);
    // An alias of the cluster leads to the block of its target.
    assert!(server.udp("alias.ns.svc.cluster.local.").await.ends_with("www.example. 192.0.2.0] 0"));
    assert_eq!(stub.asked.load(Ordering::Relaxed), 3);
    let text = server.resolver.metrics.render(&server.resolver.routing().cache_sizes(), 0);
    for expected in
        ["zone=\"example.\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 3\n", "rcode=\"REFUSED\",plugin=\"\"} 1\n"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[tokio::test]
async fn resolvers_are_asked_over_tls() {
    let certified = rcgen::generate_simple_self_signed(vec!["dns.example".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut packet = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut packet).await.unwrap();
            let bytes = upstream_answer(&Message::from_vec(&packet).unwrap()).to_vec().unwrap();
            stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
        }
    });
    let check = async |name: &str, expected: &str| {
        let file = file.display();
        let corefile =
            format!(". {{\n forward . tls://{address} {{\n tls {file}\n tls_servername {name}\n }}\n cache\n}}\n");
        let server = Server::start_with(Vec::new(), &corefile).await;
        assert_eq!(server.udp("www.example.").await, expected, "{name}");
    };
    check("dns.example", "NoError [www.example. 192.0.2.0] 0").await;
    check("other.example", "ServFail [] 0").await;
}

#[tokio::test]
async fn metrics_and_health_are_served() {
    let server = Server::start(Vec::new()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, stop) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(crate::introspection::serve(listener, server.resolver.clone(), asked.clone(), stop.clone()));
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    server.udp("web.ns.svc.cluster.local.").await;
    assert!(get("/metrics").await.contains("rcode=\"NOERROR\",plugin=\"kubernetes\"} 1\n"));
    assert!(get("/health").await.ends_with("\r\n\r\nOK"));
    assert!(get("/ready").await.starts_with("HTTP/1.1 200"));
    *server.resolver.catalog.write() = None;
    assert!(get("/ready").await.ends_with("\r\n\r\nkubernetes"));
    assert!(get("/ready").await.starts_with("HTTP/1.1 503"));
    asked.cancel();
    assert!(get("/ready").await.starts_with("HTTP/1.1 503"));
    assert!(get("/ready").await.ends_with("\r\n\r\nShutting down"));
    assert!(get("/health").await.starts_with("HTTP/1.1 200"), "a lame duck is well");
    assert!(get("/other").await.starts_with("HTTP/1.1 404"));
    stop.cancel();
}
