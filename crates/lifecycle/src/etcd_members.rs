//! The members of an etcd cluster: who they are, one more, one less. Through the JSON gateway of a member's own client port.
//!
//! Invariant: what is asked of a member is asked once; whether it was done is looked up, never guessed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kedge_pki::{Identity, client_config};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::manifests::EtcdMember;

const TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const SETTLING: Duration = Duration::from_secs(30);
const UNSETTLED: &str = "unhealthy cluster";
/// Lists of members are small.
const MOST_BYTES: u64 = 1 << 20;

/// Why an etcd's members can't be changed.
#[derive(Debug, thiserror::Error)]
#[error("etcd at {address}: {why}")]
pub struct EtcdMembersError {
    address: SocketAddr,
    why: String,
}

/// A member that answers.
pub struct EtcdMembers {
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
}

/// A member with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownMember {
    /// As the gateway writes it.
    pub id: String,
    /// Where clients reach it; absent until it has started.
    pub client: Option<SocketAddr>,
    /// Whether it has no vote yet.
    pub is_learner: bool,
    /// Name and peer address; the name is empty until it has started.
    pub member: EtcdMember,
}

impl EtcdMembers {
    /// Asks the member at an address, with the client certificate that a control plane keeps for health checks.
    pub fn at(address: SocketAddr, pki: &Path) -> Result<Self, EtcdMembersError> {
        let failed = |why: String| EtcdMembersError { address, why };
        let read = |name: &str| {
            let path = pki.join("etcd").join(name);
            std::fs::read_to_string(&path).map_err(|error| failed(format!("{}: {error}", path.display())))
        };
        let identity =
            Identity { certificate_pem: read("healthcheck-client.crt")?, key_pem: read("healthcheck-client.key")? };
        let tls = client_config(&identity, &read("ca.crt")?).map_err(|error| failed(error.to_string()))?;
        Ok(Self { address, tls: Arc::new(tls) })
    }

    /// All members.
    pub async fn list(&self) -> Result<Vec<KnownMember>, EtcdMembersError> {
        Ok(members(&self.call("list", json!({})).await?))
    }

    /// Asks the member how it is: it has a leader, or says why not.
    pub async fn status(&self) -> Result<(), EtcdMembersError> {
        let status = self.ask("/v3/maintenance/status", json!({})).await?;
        match status["leader"].as_str().filter(|leader| *leader != "0") {
            Some(_) => Ok(()),
            None => Err(EtcdMembersError { address: self.address, why: "it has no leader".to_owned() }),
        }
    }

    /// Adds a member by its peer address, unless it is one; returns all members. It is a learner until [`Self::promote`]:
    /// the others go on without it while it starts.
    pub async fn ensure(&self, name: &str, peer_url: &str) -> Result<Vec<EtcdMember>, EtcdMembersError> {
        let mut known = self.list().await?;
        if !known.iter().any(|known| known.member.peer_url == peer_url) {
            known = members(&self.change("add", json!({"peerURLs": [peer_url], "isLearner": true})).await?);
        }
        let named = |known: KnownMember| match known.member.peer_url == peer_url {
            true => EtcdMember { name: name.to_owned(), ..known.member },
            false => known.member,
        };
        Ok(known.into_iter().map(named).collect())
    }

    /// Gives a learner its vote; refused as long as it lags behind.
    pub async fn promote(&self, id: &str) -> Result<(), EtcdMembersError> {
        self.call("promote", json!({"ID": id})).await.map(|_| ())
    }

    /// Takes another member out, and waits until the one that is asked knows it. A member that takes itself out may end
    /// before the others have heard of it, and they would wait for it for ever.
    pub async fn remove(&self, id: &str) -> Result<(), EtcdMembersError> {
        self.change("remove", json!({"ID": id})).await?;
        let deadline = Instant::now() + TIMEOUT;
        while self.list().await?.iter().any(|known| known.id == id) {
            if Instant::now() > deadline {
                let why = format!("member {id} is still there after {} s", TIMEOUT.as_secs());
                return Err(EtcdMembersError { address: self.address, why });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Asks again while etcd refuses because members have known each other for less than five seconds.
    async fn change(&self, what: &str, body: Value) -> Result<Value, EtcdMembersError> {
        let deadline = Instant::now() + SETTLING;
        loop {
            match self.call(what, body.clone()).await {
                Err(error) if error.why.contains(UNSETTLED) && Instant::now() < deadline => {
                    tokio::time::sleep(POLL).await;
                }
                answer => return answer,
            }
        }
    }

    async fn call(&self, what: &str, body: Value) -> Result<Value, EtcdMembersError> {
        self.ask(&format!("/v3/cluster/member/{what}"), body).await
    }

    async fn ask(&self, path: &str, body: Value) -> Result<Value, EtcdMembersError> {
        let failed = |why: String| EtcdMembersError { address: self.address, why };
        let body = body.to_string();
        let (status, text) = match tokio::time::timeout(TIMEOUT, self.post(path, &body)).await {
            Ok(answer) => answer.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()))),
        };
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        match status {
            200 => Ok(answer),
            _ => Err(failed(answer["error"].as_str().unwrap_or(&text).to_owned())),
        }
    }

    /// One request on a connection of its own, with HTTP/1.0: the answer ends with the connection.
    async fn post(&self, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let stream = TcpStream::connect(self.address).await?;
        let connector = TlsConnector::from(self.tls.clone());
        let mut stream = connector.connect(ServerName::from(self.address.ip()), stream).await?;
        let head = format!(
            "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        if let Err(error) = (&mut stream).take(MOST_BYTES).read_to_end(&mut answer).await
            && (error.kind() != std::io::ErrorKind::UnexpectedEof || answer.is_empty())
        {
            return Err(error);
        }
        parse(&String::from_utf8_lossy(&answer)).ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
    }
}

/// Status and body of an answer.
fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

fn members(answer: &Value) -> Vec<KnownMember> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let members = answer["members"].as_array().into_iter().flatten();
    let member = |member: &Value| KnownMember {
        id: text(&member["ID"]),
        client: text(&member["clientURLs"][0]).trim_start_matches("https://").parse().ok(),
        is_learner: member["isLearner"] == true,
        member: EtcdMember { name: text(&member["name"]), peer_url: text(&member["peerURLs"][0]) },
    };
    members.map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let answer = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"members\":[{\"ID\":\"7\",\"name\":\"one\",\
                      \"peerURLs\":[\"https://192.0.2.1:2380\"]},{\"ID\":\"8\",\"peerURLs\":[\"https://192.0.2.2:2380\"]}]}";
        let (status, body) = parse(answer).unwrap();
        let found = members(&serde_json::from_str(&body).unwrap());
        let shown: Vec<_> = found.iter().map(|known| (known.id.as_str(), known.member.name.as_str())).collect();
        assert_eq!((status, shown), (200, vec![("7", "one"), ("8", "")]));
        assert_eq!(parse("nonsense"), None);
    }
}
