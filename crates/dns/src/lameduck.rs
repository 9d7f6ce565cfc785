//! The lame duck: between being told to end and ending, a server says that it is not ready and answers all the same, until
//! nobody is led to it any more.
//!
//! Invariant: without a Corefile that says so, or a configuration, the end is not put off.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::resolver::Resolver;

/// Ends everything when its time is over after `asked`; which time, is decided when it is asked.
pub(crate) async fn end_late(resolver: &Resolver, usual: Duration, asked: &CancellationToken, end: &CancellationToken) {
    asked.cancelled().await;
    let time = resolver.routing().lameduck().unwrap_or(usual);
    if !time.is_zero() {
        tracing::info!(?time, "cluster DNS goes on answering before it ends");
        tokio::time::sleep(time).await;
    }
    end.cancel();
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::{Name, RecordType};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kedge_client::Informer;
    use kedge_meta::{StatusBoard, SystemClock};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UdpSocket};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::config::{Config, Deps, Error};

    /// A server whose Corefile has `known.example`, and it knows that already.
    struct Server {
        listen: SocketAddr,
        asked: CancellationToken,
        running: JoinHandle<Result<(), Error>>,
    }

    impl Server {
        async fn start(port: u16, usual: Duration, health: &str) -> Self {
            // No other process has this address.
            let [.., high, low] = std::process::id().to_be_bytes();
            let ip = Ipv4Addr::new(127, 53, high, low);
            let listen = SocketAddr::new(ip.into(), port);
            let mut config = Config::new("n", &[ip.into()], &[], Vec::new(), Vec::new());
            config.publish = None;
            config.resolv_conf = "/nonexistent/resolv.conf".into();
            (config.listen, config.introspection) = (vec![listen], vec![SocketAddr::new(ip.into(), port + 1)]);
            config.lameduck = usual;
            let corefile = format!(". {{\n {health}\n hosts {{\n 192.0.2.9 known.example\n }}\n}}\n");
            let config_map: ConfigMap = serde_json::from_value(serde_json::json!({
                "metadata": {"namespace": "kube-system", "name": "coredns"}, "data": {"Corefile": corefile}}))
            .unwrap();
            let deps = Deps {
                services: Informer::fixed([]),
                endpoint_slices: Informer::fixed([]),
                namespaces: Informer::fixed([]),
                config_maps: Some(Informer::fixed([config_map])),
                client: None,
                status: StatusBoard::new(std::sync::Arc::new(SystemClock)).component("kedge-dns"),
            };
            let asked = CancellationToken::new();
            let running = tokio::spawn(crate::run(config, deps, asked.clone()));
            let server = Self { listen, asked, running };
            let known = async {
                while server.answers().await.is_none_or(|answers| answers != 1) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), known).await.expect("the Corefile is followed");
            server
        }

        /// How many records it has for the name.
        async fn answers(&self) -> Option<usize> {
            let socket = UdpSocket::bind(SocketAddr::new(self.listen.ip(), 0)).await.unwrap();
            socket.connect(self.listen).await.unwrap();
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.add_query(Query::query(Name::from_ascii("known.example.").unwrap(), RecordType::A));
            socket.send(&question.to_vec().unwrap()).await.ok()?;
            let mut buffer = [0; 512];
            let length = socket.recv(&mut buffer).await.ok()?;
            Some(Message::from_vec(&buffer[..length]).unwrap().answers.len())
        }

        async fn ready(&self) -> String {
            let address = SocketAddr::new(self.listen.ip(), self.listen.port() + 1);
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        }

        /// Asks it to end, and waits until it did.
        async fn ends(self) {
            self.asked.cancel();
            let ended = tokio::time::timeout(Duration::from_secs(30), self.running).await;
            ended.expect("it ends").unwrap().unwrap();
            assert!(UdpSocket::bind(self.listen).await.is_ok(), "its socket is free again");
        }
    }

    #[tokio::test]
    async fn a_lame_duck_is_not_ready_and_answers() {
        let server = Server::start(5310, Duration::ZERO, "health {\n lameduck 60s\n }").await;
        assert!(server.ready().await.starts_with("HTTP/1.1 200"));
        server.asked.cancel();
        assert!(server.ready().await.starts_with("HTTP/1.1 503"));
        assert_eq!(server.answers().await, Some(1));
        assert!(!server.running.is_finished());
        server.running.abort();
    }

    #[tokio::test]
    async fn the_time_of_a_lame_duck_ends() {
        Server::start(5320, Duration::ZERO, "health {\n lameduck 20ms\n }").await.ends().await;
    }

    /// The limits are far apart: 60 seconds would be too long for `ends`.
    #[tokio::test]
    async fn the_corefile_counts_more_than_what_is_usual() {
        Server::start(5330, Duration::from_secs(60), "health {\n lameduck 0s\n }").await.ends().await;
        Server::start(5340, Duration::ZERO, "health").await.ends().await;
        let usual = Server::start(5350, Duration::from_secs(60), "health").await;
        usual.asked.cancel();
        assert!(usual.ready().await.ends_with("Shutting down"));
        assert_eq!(usual.answers().await, Some(1));
        usual.running.abort();
    }
}
