//! Asks other resolvers what is not ours to answer: the machine's, or those of a Corefile's `forward`.
//!
//! Invariant: the number of questions on the way is bounded, and so is the time for each.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hickory_proto::op::{Message, Query, ResponseCode};
use parking_lot::Mutex;
use rand::seq::SliceRandom;
use tokio::sync::Semaphore;

use crate::cache::{Cache, CacheKey, is_denial};
use crate::corefile::plan::{ForwardPlan, Policy, Target};
use crate::loops::Loops;
use crate::metrics::Metrics;
use crate::resolv_conf::{Upstreams, parse_resolv_conf};
use crate::transport::{Tls, Way, exchange};

/// Questions on the way where nobody says how many; more are answered with a failure at once.
const ON_THE_WAY: usize = 256;
const ON_THE_WAY_MAX: usize = 4096;
/// For how long a resolver that did not answer is asked last.
const PENALTY: Duration = Duration::from_secs(10);

/// The way to other resolvers.
#[derive(Clone)]
pub(crate) struct Forwarder {
    inner: Arc<Inner>,
}

struct Inner {
    plan: ForwardPlan,
    fixed: Vec<SocketAddr>,
    encrypted: BTreeSet<SocketAddr>,
    tls: Option<Result<Tls, String>>,
    own: Vec<IpAddr>,
    state: Mutex<State>,
    on_the_way: Semaphore,
    turn: AtomicUsize,
    zone: Arc<str>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    cache: Cache,
    upstreams: Upstreams,
    read_at: Option<SystemTime>,
    failed_at: Vec<(SocketAddr, Instant)>,
    loops: Loops,
}

impl Forwarder {
    /// Asks whom `plan` names, but for the addresses in `own`. `zone` is what metrics call it.
    pub(crate) fn new(plan: ForwardPlan, own: Vec<IpAddr>, zone: Arc<str>, metrics: Arc<Metrics>) -> Self {
        let address = |target: &Target| match target {
            Target::Plain(address) | Target::Tls(address) => Some(*address),
            Target::File(_) => None,
        };
        let is_tls = |target: &&Target| matches!(target, Target::Tls(_));
        let encrypted: BTreeSet<SocketAddr> = plan.targets.iter().filter(is_tls).filter_map(address).collect();
        let tls = (!encrypted.is_empty()).then(|| Tls::new(plan.tls_ca.as_deref(), plan.tls_servername.as_deref()));
        if let Some(Err(why)) = &tls {
            tracing::warn!(zone = &*zone, why, "resolvers can't be asked over TLS");
        }
        let bound = plan.max_concurrent.unwrap_or(ON_THE_WAY).clamp(1, ON_THE_WAY_MAX);
        let forwarder = Self {
            inner: Arc::new(Inner {
                fixed: plan.targets.iter().filter_map(address).collect(),
                encrypted,
                tls,
                plan,
                own,
                state: Mutex::default(),
                on_the_way: Semaphore::new(bound),
                turn: AtomicUsize::new(0),
                zone,
                metrics,
            }),
        };
        forwarder.refresh();
        forwarder
    }

    /// What it was made of.
    pub(crate) fn plan(&self) -> &ForwardPlan {
        &self.inner.plan
    }

    /// Reads the file again if it changed; gives the resolvers.
    pub(crate) fn refresh(&self) -> Upstreams {
        let Inner { plan, fixed, own, state, .. } = &*self.inner;
        let file = plan.targets.iter().find_map(|target| match target {
            Target::File(file) => Some(file),
            Target::Plain(_) | Target::Tls(_) => None,
        });
        let changed_at = file.and_then(|file| std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok());
        let is_known = !state.lock().upstreams.servers.is_empty() && (file.is_none() || changed_at.is_some());
        if is_known && changed_at == state.lock().read_at {
            return state.lock().upstreams.clone();
        }
        // A machine without the file has no resolvers; that is not an error, it may be offline.
        let text = file.map(|file| std::fs::read_to_string(file).unwrap_or_default());
        let mut upstreams = parse_resolv_conf(&text.unwrap_or_default(), own);
        let is_ours = |server: &&SocketAddr| server.port() == 53 && own.contains(&server.ip());
        upstreams.loops.extend(fixed.iter().filter(is_ours).map(SocketAddr::ip));
        upstreams.servers.splice(0..0, fixed.iter().filter(|server| !is_ours(server)).copied());
        if !upstreams.loops.is_empty() && state.lock().upstreams != upstreams {
            let loops = &upstreams.loops;
            tracing::warn!(?file, ?loops, "these resolvers are this server itself and are left out");
        }
        let mut state = state.lock();
        state.read_at = changed_at;
        state.upstreams = upstreams.clone();
        upstreams
    }

    /// The answer in the cache.
    pub(crate) fn cached(&self, query: &Query, dnssec: bool) -> Option<Message> {
        self.inner.plan.cache?;
        let found = self.inner.state.lock().cache.get(&CacheKey::new(query, dnssec), Instant::now());
        self.inner.metrics.cache_asked(&self.inner.zone, found.as_ref().map(is_denial));
        found
    }

    /// How many answers with records, and without, are kept.
    pub(crate) fn cache_size(&self) -> (usize, usize) {
        self.inner.state.lock().cache.len()
    }

    /// Asks the resolvers in turn; `None` if none of them gave an answer. Where none does, an answer of before stands in,
    /// and while all of them are known to be gone it does so without a wait.
    pub(crate) async fn ask(&self, query: &Query, dnssec: bool) -> Option<Message> {
        if self.are_all_gone()
            && let Some(stale) = self.stale(query, dnssec)
        {
            return Some(stale);
        }
        let answer = self.ask_in_turn(query, dnssec).await;
        match &answer {
            Some(usable) if is_usable(usable) => answer,
            _ => self.stale(query, dnssec).or(answer),
        }
    }

    fn stale(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let stale = self.inner.state.lock().cache.stale(&CacheKey::new(query, dnssec), Instant::now())?;
        self.inner.metrics.served_stale(&self.inner.zone);
        Some(stale)
    }

    /// Whether every resolver failed to answer a moment ago.
    fn are_all_gone(&self) -> bool {
        let state = self.inner.state.lock();
        let is_gone =
            |server: &SocketAddr| state.failed_at.iter().any(|(failed, at)| failed == server && at.elapsed() < PENALTY);
        state.upstreams.servers.iter().all(is_gone)
    }

    /// Whether a question is one of our own, which a resolver sent back to us.
    pub(crate) fn catches(&self, query: &Query) -> bool {
        self.inner.state.lock().loops.catches(query)
    }

    /// Those resolvers that ask us what we ask them. They are asked nothing until that ends.
    pub(crate) fn looping(&self) -> Vec<SocketAddr> {
        self.inner.state.lock().loops.found.clone()
    }

    /// Looks for loops: sends each resolver a question that nobody else asks, and sees whether it comes here.
    pub(crate) async fn probe(&self) {
        let servers = self.inner.state.lock().upstreams.servers.clone();
        for server in servers {
            let Ok(way) = self.way(server) else { continue };
            let query = self.inner.state.lock().loops.begin(server);
            // Whatever the answer is: what counts is whether the question came here meanwhile.
            let _ = exchange(server, &way, &query, false).await;
            self.inner.state.lock().loops.end(server);
        }
    }

    fn way(&self, server: SocketAddr) -> std::io::Result<Way> {
        if !self.inner.encrypted.contains(&server) {
            return Ok(if self.inner.plan.force_tcp { Way::Tcp } else { Way::Plain });
        }
        match &self.inner.tls {
            Some(Ok(tls)) => Ok(Way::Tls(tls.clone())),
            Some(Err(why)) => Err(std::io::Error::other(why.clone())),
            None => Err(std::io::Error::other("TLS is not set up")),
        }
    }

    async fn ask_in_turn(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let Ok(_permit) = self.inner.on_the_way.try_acquire() else {
            self.inner.metrics.forward_rejected();
            return None;
        };
        let servers = self.order();
        if servers.is_empty() {
            self.inner.metrics.forward_broken();
        }
        let mut failure = None;
        for server in servers {
            let began = Instant::now();
            let asked = match self.way(server) {
                Ok(way) => exchange(server, &way, query, dnssec).await,
                Err(error) => Err(error),
            };
            let code = asked.as_ref().ok().map(|answer| answer.metadata.response_code);
            self.inner.metrics.forwarded(server, code, began.elapsed());
            match asked {
                Ok(answer) if is_usable(&answer) => {
                    let mut state = self.inner.state.lock();
                    state.failed_at.retain(|(failed, _)| *failed != server);
                    if let Some(limits) = self.inner.plan.cache {
                        state.cache.put(CacheKey::new(query, dnssec), &answer, limits, Instant::now());
                    }
                    return Some(answer);
                }
                Ok(answer) => failure = Some(answer),
                Err(error) => {
                    tracing::debug!(%server, %error, name = %query.name, "a resolver did not answer");
                    let mut state = self.inner.state.lock();
                    state.failed_at.retain(|(failed, _)| *failed != server);
                    state.failed_at.push((server, Instant::now()));
                }
            }
        }
        failure
    }

    /// The resolvers as the policy has them, but those that failed lately last.
    fn order(&self) -> Vec<SocketAddr> {
        let mut state = self.inner.state.lock();
        state.failed_at.retain(|(_, at)| at.elapsed() < PENALTY);
        let mut servers = state.upstreams.servers.clone();
        servers.retain(|server| !state.loops.found.contains(server));
        match self.inner.plan.policy {
            Policy::Sequential => {}
            Policy::Random => servers.shuffle(&mut rand::rng()),
            Policy::RoundRobin if servers.is_empty() => {}
            Policy::RoundRobin => {
                let turn = self.inner.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
                servers.rotate_left(turn);
            }
        }
        servers.sort_by_key(|server| state.failed_at.iter().any(|(failed, _)| failed == server));
        servers
    }
}

/// The resolvers that are given, or else those in a file; asked in their order.
pub(crate) fn usual_plan(fixed: &[SocketAddr], file: PathBuf) -> ForwardPlan {
    let targets = match fixed {
        [] => vec![Target::File(file)],
        fixed => fixed.iter().map(|address| Target::Plain(*address)).collect(),
    };
    let cache = Some(crate::cache::Limits::USUAL);
    ForwardPlan { targets, policy: Policy::Sequential, cache, ..ForwardPlan::default() }
}

/// A resolver that can't help is passed over; the next may.
fn is_usable(answer: &Message) -> bool {
    matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
}
