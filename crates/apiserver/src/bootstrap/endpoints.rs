//! Which API servers live: each one keeps a key with a time to live in the store, and the endpoints of the `kubernetes`
//! Service name all whose keys are there.
//!
//! The key is upstream's (`masterleases`), but names the port too. Invariant: all servers come to the same endpoints, so they
//! do not undo each other's.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use kedge_meta::ApiStatus;
use kedge_store::{CommitError, Durability, Key, ListRequest, Template, Transaction, Write};

use crate::config::Config;
use crate::core::Core;
use crate::reply::store_error;

const PREFIX: &str = "/registry/masterleases/";

/// How long a server that says nothing counts as living; it says something every ten seconds.
const LEASE_TIME: Duration = Duration::from_secs(15);

/// How long the end of a server waits for the store.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

fn own(config: &Config) -> SocketAddr {
    SocketAddr::new(config.advertise_address, config.secure_port)
}

fn key(server: SocketAddr) -> Key {
    Key::new(format!("{PREFIX}{server}"))
}

/// Says that this server lives.
pub(super) async fn renew(core: &Core) -> Result<(), ApiStatus> {
    let value = Template { bytes: Bytes::from_static(b"{}"), splice_at: None };
    let writes = vec![Write::Put { key: key(own(&core.config)), value, ttl: Some(LEASE_TIME) }];
    let lease = Transaction { writes, durability: Durability::Relaxed, ..Transaction::default() };
    match core.store.commit(lease).await {
        Ok(_) => Ok(()),
        Err(CommitError::Store(error)) => Err(store_error(error)),
        Err(error) => Err(ApiStatus::internal(error)),
    }
}

/// Says that this server ends. The endpoints stay as they are until another server looks: nobody gains by an empty list.
pub(crate) async fn leave(core: &Core) {
    let writes = vec![Write::Delete { key: key(own(&core.config)) }];
    let end = core.store.commit(Transaction { writes, durability: Durability::Relaxed, ..Transaction::default() });
    if !matches!(tokio::time::timeout(LEAVE_PATIENCE, end).await, Ok(Ok(_))) {
        tracing::debug!("the end of this server was not noted; others see it when its time is over");
    }
}

/// The servers to name, in one order for all who ask: never none, and all with one port, as a slice has room for one.
pub(super) async fn living(core: &Core) -> Result<Vec<SocketAddr>, ApiStatus> {
    let request = ListRequest { prefix: PREFIX.to_owned(), ..ListRequest::default() };
    let page = core.store.list(request).await.map_err(store_error)?;
    let noted = page.records.iter().filter_map(|record| record.key.as_str().strip_prefix(PREFIX)?.parse().ok());
    Ok(plan(noted.collect(), own(&core.config)))
}

fn plan(mut servers: Vec<SocketAddr>, own: SocketAddr) -> Vec<SocketAddr> {
    servers.retain(|server| server.is_ipv6() == own.is_ipv6());
    if servers.is_empty() {
        servers.push(own);
    }
    servers.sort_unstable();
    let port = servers[0].port();
    servers.retain(|server| server.port() == port);
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(noted: &[&str], own: &str, named: &[&str]) {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(plan(parse(noted), own.parse().unwrap()), parse(named), "{noted:?} {own}");
    }

    #[test]
    fn every_server_comes_to_the_same_endpoints() {
        check(&[], "10.0.0.1:6443", &["10.0.0.1:6443"]);
        for own in ["10.0.0.1:6443", "10.0.0.2:6443", "10.0.0.3:6443"] {
            check(&["10.0.0.2:6443", "10.0.0.1:6443"], own, &["10.0.0.1:6443", "10.0.0.2:6443"]);
        }
        for own in ["127.0.0.1:6443", "127.0.0.1:7443"] {
            check(&["127.0.0.1:7443", "127.0.0.1:6443"], own, &["127.0.0.1:6443"]);
        }
        check(&["[fd00::1]:6443", "10.0.0.1:6443"], "10.0.0.1:6443", &["10.0.0.1:6443"]);
    }
}
