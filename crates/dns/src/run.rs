//! Starts the sockets, keeps the catalogue up to date, keeps the Service in the API, and reports.
//!
//! Invariant: once it has answered, losing the API never stops it from answering.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kedge_client::{Backoff, Recorder};
use kedge_meta::ComponentStatus;
use parking_lot::{Mutex, RwLock};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::catalog::Catalog;
use crate::config::{Config, Deps, Error, Publish};
use crate::follow::Follow;
use crate::forward::usual_plan;
use crate::introspection;
use crate::lameduck::end_late;
use crate::metrics::Metrics;
use crate::publish::ensure_service;
use crate::resolver::Resolver;
use crate::routing::{Makings, Routing};
use crate::server::{serve_tcp, serve_udp};
use crate::zone::Zone;

/// How often the machine's resolvers, and the Service in the API, are looked at.
const ROUND: Duration = Duration::from_secs(10);

/// How often loops are looked for.
const LOOP_ROUND: Duration = Duration::from_secs(60);

/// Runs cluster DNS until `asked`, and as a lame duck from then on. An error is an address that can't be listened on, or a
/// bad configuration.
pub async fn run(config: Config, deps: Deps, asked: CancellationToken) -> Result<(), Error> {
    let shutdown = CancellationToken::new();
    let _end = shutdown.clone().drop_guard();
    if config.listen.is_empty() {
        return Err(Error::Config("there is no address to listen on".to_owned()));
    }
    if config.listen.iter().any(|address| address.ip().is_unspecified()) {
        return Err(Error::Config("it can't listen on the unspecified address".to_owned()));
    }
    let cluster_ips = config.publish.as_ref().map(|publish| publish.cluster_ips.clone()).unwrap_or_default();
    let own = config.listen.iter().filter(|address| address.port() == 53).map(|address| address.ip());
    let own = own.chain(cluster_ips.iter().copied());
    let metrics = Arc::<Metrics>::default();
    let usual = usual_plan(&config.upstreams, config.resolv_conf.clone());
    let makings = Makings { usual, own: own.collect(), metrics: metrics.clone() };
    let reverse = config.cluster_cidrs.iter().chain(&config.service_cidrs).copied().collect();
    let zone = Zone::new(&config.domain, reverse, cluster_ips)
        .ok_or_else(|| Error::Config(format!("\"{}\" is not a domain name", config.domain)))?;
    let resolver = Arc::new(Resolver {
        zone,
        catalog: RwLock::new(None),
        routing: RwLock::new(Arc::new(Routing::new(Vec::new(), &makings, None))),
        allowed: config.allowed_clients.clone(),
        metrics,
    });
    let tasks = TaskTracker::new();
    for address in &config.listen {
        let failed = |source| Error::Listen { address: *address, source };
        let udp = UdpSocket::bind(address).await.map_err(failed)?;
        let tcp = TcpListener::bind(address).await.map_err(failed)?;
        tasks.spawn(serve_udp(udp, resolver.clone(), shutdown.clone()));
        tasks.spawn(serve_tcp(tcp, resolver.clone(), shutdown.clone()));
    }
    for address in &config.introspection {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                let serve = introspection::serve(listener, resolver.clone(), asked.clone(), shutdown.clone());
                drop(tasks.spawn(serve));
            }
            // Names are worth more than figures about them.
            Err(error) => tracing::warn!(%address, %error, "metrics and health of cluster DNS are not served"),
        }
    }
    let problem = Arc::<Mutex<Option<String>>>::default();
    let corefile = follow_corefile(&config, &deps, makings, &resolver, problem.clone(), &shutdown);
    let published = follow_publish(config.publish.clone(), &deps, &resolver, &problem, &shutdown);
    let loops = follow_loops(&resolver, &shutdown);
    let end = end_late(&resolver, config.lameduck, &asked, &shutdown);
    tokio::join!(follow_catalog(&deps, &resolver, &shutdown), corefile, published, loops, end);
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

/// Follows the Corefile, if there is anywhere to find one.
async fn follow_corefile(
    config: &Config,
    deps: &Deps,
    makings: Makings,
    resolver: &Resolver,
    problem: Arc<Mutex<Option<String>>>,
    shutdown: &CancellationToken,
) {
    let (Some(config_maps), Some(domain)) = (deps.config_maps.clone(), crate::corefile::plan::name(&config.domain))
    else {
        return;
    };
    let host = config.publish.as_ref().map_or("", |publish| publish.node_name.as_str());
    let start = |client| Recorder::start(client, "kedge-dns", host, shutdown.clone());
    let recorder = deps.client.clone().map(start);
    Follow { config_maps, recorder, makings, domain, problem }.run(resolver, shutdown).await;
}

/// Looks for resolvers that lead back here.
async fn follow_loops(resolver: &Resolver, shutdown: &CancellationToken) {
    loop {
        let round = async {
            for forwarder in resolver.routing().forwarders() {
                forwarder.probe().await;
            }
            tokio::time::sleep(LOOP_ROUND).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = round => {}
        }
    }
}

/// Keeps the Service in the API and the resolvers fresh, and reports both.
async fn follow_publish(
    publish: Option<Publish>,
    deps: &Deps,
    resolver: &Resolver,
    corefile: &Mutex<Option<String>>,
    shutdown: &CancellationToken,
) {
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
        let routing = resolver.routing();
        routing.forwarders().for_each(|forwarder| drop(forwarder.refresh()));
        let shortcomings = Shortcomings {
            publishing: problem.as_ref(),
            is_synced: was_synced,
            // Whoever has a Corefile without resolvers wants none.
            is_alone: routing.default_forwarder().is_some_and(|forwarder| forwarder.refresh().servers.is_empty()),
            looping: routing.forwarders().flat_map(|forwarder| forwarder.looping()).collect(),
            corefile: corefile.lock().clone(),
        };
        report(&deps.status, &shortcomings);
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

/// What may be wrong.
struct Shortcomings<'a> {
    publishing: Option<&'a Error>,
    is_synced: bool,
    is_alone: bool,
    looping: Vec<SocketAddr>,
    corefile: Option<String>,
}

fn report(status: &ComponentStatus, known: &Shortcomings<'_>) {
    if let Some(error) = known.publishing {
        status
            .degraded("ServiceNotPublished", format!("pods can't reach cluster DNS by its Service: {}", chain(error)));
    } else if !known.is_synced {
        status.degraded("NotSynced", "Services are not known yet; names of the cluster can't be answered");
    } else if !known.looping.is_empty() {
        let servers: Vec<String> = known.looping.iter().map(ToString::to_string).collect();
        status.degraded(
            "ForwardingLoop",
            format!("{} asked this server what it was asked, and is left out (see resolv.conf)", servers.join(", ")),
        );
    } else if let Some(problem) = &known.corefile {
        status.degraded("CorefileInvalid", problem.clone());
    } else if known.is_alone {
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
