//! Starts the sockets, keeps the catalogue up to date, keeps the Service in the API, and reports.
//!
//! Invariant: once it has answered, losing the API never stops it from answering.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kedge_client::Backoff;
use kedge_meta::ComponentStatus;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::{Config, Deps, Error, Publish};
use crate::forward::Forwarder;
use crate::publish::ensure_service;
use crate::server::{Resolver, serve_tcp, serve_udp};
use crate::zone::Zone;

/// How often the machine's resolvers, and the Service in the API, are looked at.
const ROUND: Duration = Duration::from_secs(10);

/// How often loops are looked for.
const LOOP_ROUND: Duration = Duration::from_secs(60);

/// Runs cluster DNS until `shutdown`. An error is an address that can't be listened on, or a bad configuration.
pub async fn run(config: Config, deps: Deps, shutdown: CancellationToken) -> Result<(), Error> {
    if config.listen.is_empty() {
        return Err(Error::Config("there is no address to listen on".to_owned()));
    }
    if config.listen.iter().any(|address| address.ip().is_unspecified()) {
        return Err(Error::Config("it can't listen on the unspecified address".to_owned()));
    }
    let cluster_ips = config.publish.as_ref().map(|publish| publish.cluster_ips.clone()).unwrap_or_default();
    let own = config.listen.iter().filter(|address| address.port() == 53).map(|address| address.ip());
    let own = own.chain(cluster_ips.iter().copied());
    let forwarder = Forwarder::new(config.upstreams.clone(), config.resolv_conf.clone(), own.collect());
    let reverse = config.cluster_cidrs.iter().chain(&config.service_cidrs).copied().collect();
    let zone = Zone::new(&config.domain, reverse, cluster_ips)
        .ok_or_else(|| Error::Config(format!("\"{}\" is not a domain name", config.domain)))?;
    let resolver = Arc::new(Resolver {
        zone,
        catalog: RwLock::new(None),
        forwarder: forwarder.clone(),
        allowed: config.allowed_clients.clone(),
    });
    let tasks = TaskTracker::new();
    for address in &config.listen {
        let failed = |source| Error::Listen { address: *address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        tasks.spawn(serve_udp(udp, resolver.clone(), shutdown.clone()));
        tasks.spawn(serve_tcp(tcp, resolver.clone(), shutdown.clone()));
    }
    let published = follow_publish(config.publish, &deps, &forwarder, &shutdown);
    let loops = follow_loops(&forwarder, &shutdown);
    tokio::join!(follow_catalog(&deps, &resolver, &shutdown), published, loops);
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// Fills the catalogue, and shows it to the resolver when everything is known.
async fn follow_catalog(deps: &Deps, resolver: &Resolver, shutdown: &CancellationToken) {
    let mut services = deps.services.subscribe();
    let mut slices = deps.endpoint_slices.subscribe();
    let mut namespaces = deps.namespaces.subscribe();
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = synced(deps) => {}
    }
    let mut catalog = Catalog::default();
    while let Some(change) = services.try_next() {
        catalog.note_service(&change);
    }
    while let Some(change) = slices.try_next() {
        catalog.note_slice(&change);
    }
    while let Some(change) = namespaces.try_next() {
        catalog.note_namespace(&change);
    }
    *resolver.catalog.write() = Some(catalog);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            change = services.next() => edit(resolver, |catalog| catalog.note_service(&change)),
            change = slices.next() => edit(resolver, |catalog| catalog.note_slice(&change)),
            change = namespaces.next() => edit(resolver, |catalog| catalog.note_namespace(&change)),
        }
    }
}

fn edit(resolver: &Resolver, change: impl FnOnce(&mut Catalog)) {
    if let Some(catalog) = resolver.catalog.write().as_mut() {
        change(catalog);
    }
}

/// Looks for resolvers that lead back here.
async fn follow_loops(forwarder: &Forwarder, shutdown: &CancellationToken) {
    loop {
        let round = async {
            forwarder.probe().await;
            tokio::time::sleep(LOOP_ROUND).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round => {}
        }
    }
}

/// Keeps the Service in the API and the resolvers fresh, and reports both.
async fn follow_publish(publish: Option<Publish>, deps: &Deps, forwarder: &Forwarder, shutdown: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), ROUND);
    let mut told = String::new();
    loop {
        let problem = tokio::select! {
            () = shutdown.cancelled() => return,
            problem = keep_service(publish.as_ref(), deps) => problem,
        };
        let delay = if let Some(error) = &problem {
            let message = chain(error);
            if message != told {
                tracing::warn!(error = message, "the Service of cluster DNS can't be kept");
                told = message;
            }
            backoff.next_delay()
        } else {
            told.clear();
            backoff.reset();
            ROUND
        };
        let was_synced = is_synced(deps);
        let is_alone = forwarder.refresh().servers.is_empty();
        report(&deps.status, problem.as_ref(), was_synced, is_alone, &forwarder.looping());
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Until everything is known for the first time, that is what to wait for.
            () = synced(deps), if !was_synced => {}
            () = tokio::time::sleep(delay) => {}
        }
    }
}

async fn keep_service(publish: Option<&Publish>, deps: &Deps) -> Option<Error> {
    let (publish, client) = (publish?, deps.client.as_ref()?);
    let started = std::time::Instant::now();
    let kept = ensure_service(client, publish).await;
    deps.status.heartbeat(Some(started.elapsed()));
    kept.err()
}

fn is_synced(deps: &Deps) -> bool {
    deps.services.is_synced() && deps.endpoint_slices.is_synced() && deps.namespaces.is_synced()
}

async fn synced(deps: &Deps) {
    deps.services.synced().await;
    deps.endpoint_slices.synced().await;
    deps.namespaces.synced().await;
}

fn report(status: &ComponentStatus, problem: Option<&Error>, is_synced: bool, is_alone: bool, looping: &[SocketAddr]) {
    if let Some(error) = problem {
        status
            .degraded("ServiceNotPublished", format!("pods can't reach cluster DNS by its Service: {}", chain(error)));
    } else if !is_synced {
        status.degraded("NotSynced", "Services are not known yet; names of the cluster can't be answered");
    } else if !looping.is_empty() {
        let servers: Vec<String> = looping.iter().map(ToString::to_string).collect();
        status.degraded(
            "ForwardingLoop",
            format!("{} asked this server what it was asked, and is left out (see resolv.conf)", servers.join(", ")),
        );
    } else if is_alone {
        status.degraded(
            "NoUpstreamResolver",
            "there is no resolver to ask for names outside of the cluster (see resolv.conf)",
        );
    } else {
        status.running();
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
