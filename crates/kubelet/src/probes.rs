//! Liveness, readiness and startup probes: one task for each probe of each container that has one.
//!
//! Tasks only record verdicts; what follows from a verdict is the plan's business. Invariant: a verdict belongs to one
//! container of the runtime, so a restarted container starts without one.

mod grpc;
pub(crate) mod http;
mod threshold;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kedge_client::EventType;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::agent::Agent;
use crate::plan::Verdicts;
use crate::runtime_state::ContainerRecord;
use crate::spec;
use http::{HttpTarget, get};
use threshold::{Outcome, Threshold};

const MAX_OUTPUT: usize = 10 * 1024;
const RETRIES: usize = 3;
/// How often a probe that cannot run yet looks whether it can.
const IDLE: Duration = Duration::from_millis(500);

/// The three kinds of probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    Liveness,
    Readiness,
    Startup,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    fn probe(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// The verdicts of all probes, by container id.
#[derive(Default)]
pub(crate) struct ProbeResults {
    verdicts: Mutex<HashMap<String, Verdicts>>,
}

impl ProbeResults {
    pub(crate) fn get(&self, container_id: &str) -> Verdicts {
        self.verdicts.lock().get(container_id).copied().unwrap_or_default()
    }

    /// Records a verdict; whether it is a new one.
    pub(crate) fn set(&self, container_id: &str, kind: ProbeKind, verdict: Option<bool>) -> bool {
        let mut all = self.verdicts.lock();
        let verdicts = all.entry(container_id.to_owned()).or_default();
        let place = match kind {
            ProbeKind::Liveness => &mut verdicts.liveness,
            ProbeKind::Readiness => &mut verdicts.readiness,
            ProbeKind::Startup => &mut verdicts.startup,
        };
        std::mem::replace(place, verdict) != verdict
    }

    /// Forgets every container that `keep` does not know.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.verdicts.lock().retain(|id, _| keep(id));
    }
}

/// The probe tasks of one pod; they end with it.
pub(crate) struct PodProbes {
    agent: Arc<Agent>,
    wake: Arc<Notify>,
    stopping: Arc<AtomicBool>,
    tasks: HashMap<(String, ProbeKind), JoinHandle<()>>,
}

impl PodProbes {
    pub(crate) fn new(agent: Arc<Agent>, wake: Arc<Notify>) -> Self {
        Self { agent, wake, stopping: Arc::default(), tasks: HashMap::new() }
    }

    /// Starts the probes that do not run yet.
    pub(crate) fn ensure(&mut self, pod: &Arc<Pod>) {
        let sidecars = spec::init_containers(pod).iter().filter(|container| spec::is_restartable_init(container));
        for container in spec::containers(pod).iter().chain(sidecars) {
            for kind in [ProbeKind::Liveness, ProbeKind::Readiness, ProbeKind::Startup] {
                let Some(probe) = kind.probe(container) else { continue };
                let key = (container.name.clone(), kind);
                if self.tasks.contains_key(&key) {
                    continue;
                }
                let task = ProbeTask {
                    agent: self.agent.clone(),
                    wake: self.wake.clone(),
                    stopping: self.stopping.clone(),
                    pod: pod.clone(),
                    container: container.clone(),
                    probe: probe.clone(),
                    kind,
                };
                self.tasks.insert(key, tokio::spawn(task.run()));
            }
        }
    }

    /// The pod is being ended: only readiness still counts.
    pub(crate) fn stop_killing(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends every probe.
    pub(crate) fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
    }
}

impl Drop for PodProbes {
    fn drop(&mut self) {
        self.stop();
    }
}

struct ProbeTask {
    agent: Arc<Agent>,
    wake: Arc<Notify>,
    stopping: Arc<AtomicBool>,
    pod: Arc<Pod>,
    container: Container,
    probe: Probe,
    kind: ProbeKind,
}

impl ProbeTask {
    async fn run(self) {
        let period = seconds(self.probe.period_seconds, 10);
        let mut current = String::new();
        let mut threshold = Threshold::new(&self.probe);
        let mut on_hold = false;
        loop {
            let state = self.agent.states.get(spec::uid(&self.pod));
            let record = state.container(&self.container.name).cloned();
            let Some(record) = record.filter(ContainerRecord::running) else {
                tokio::time::sleep(IDLE.min(period)).await;
                continue;
            };
            if record.id != current {
                current.clone_from(&record.id);
                threshold = Threshold::new(&self.probe);
                on_hold = false;
                self.begin(&record.id);
            }
            if self.stopping.load(Ordering::Relaxed) && self.kind != ProbeKind::Readiness {
                return;
            }
            if on_hold || !self.due(&record) {
                tokio::time::sleep(IDLE.min(period)).await;
                continue;
            }
            let began = tokio::time::Instant::now();
            let outcome = self.attempt(&record).await;
            self.count(outcome, began.elapsed());
            if let Some(verdict) = threshold.observe(outcome) {
                // After a verdict that kills, the next container has to come first.
                on_hold = !verdict && self.kind != ProbeKind::Readiness;
                if self.agent.probes.set(&record.id, self.kind, Some(verdict)) {
                    self.wake.notify_one();
                }
            }
            tokio::time::sleep(period).await;
        }
    }

    /// A container's first verdict: alive, but neither ready nor started. One that the API already knows stays.
    fn begin(&self, container_id: &str) {
        let known = self.agent.probes.get(container_id);
        let (place, initial) = match self.kind {
            ProbeKind::Liveness => (known.liveness, Some(true)),
            ProbeKind::Readiness => (known.readiness, Some(false)),
            ProbeKind::Startup => (known.startup, None),
        };
        if place.is_none() {
            self.agent.probes.set(container_id, self.kind, initial);
        }
    }

    fn due(&self, record: &ContainerRecord) -> bool {
        let started = self.container.startup_probe.is_none() || self.agent.probes.get(&record.id).startup == Some(true);
        if started == (self.kind == ProbeKind::Startup) {
            return false;
        }
        is_past_delay(record.started_at, self.agent.now().as_nanosecond(), self.probe.initial_delay_seconds)
    }

    fn count(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Success => "successful",
            Outcome::Failure => "failed",
            Outcome::Unknown => "unknown",
        };
        let (name, namespace, uid) = (spec::name(&self.pod), spec::namespace(&self.pod), spec::uid(&self.pod));
        self.agent.metrics.probed([self.kind.name(), result, &self.container.name, name, namespace, uid], took);
    }

    /// Tries the probe, and tells about a failure.
    async fn attempt(&self, record: &ContainerRecord) -> Outcome {
        let mut result = Err(String::new());
        for _ in 0..RETRIES {
            result = self.once(record).await;
            if result.is_ok() {
                break;
            }
        }
        let name = self.kind.name();
        let events = &self.agent.events;
        let (outcome, reason, message) = match result {
            Ok(Checked::Healthy) => return Outcome::Success,
            Ok(Checked::Warning(text)) => (Outcome::Success, "ProbeWarning", format!("{name} probe warning: {text}")),
            Ok(Checked::Unhealthy(text)) => (Outcome::Failure, "Unhealthy", format!("{name} probe failed: {text}")),
            Err(text) => {
                (Outcome::Unknown, "Unhealthy", format!("{name} probe errored and resulted in unknown state: {text}"))
            }
        };
        // A container that ended meanwhile is not unhealthy.
        let same = self
            .agent
            .states
            .get(spec::uid(&self.pod))
            .container(&record.name)
            .is_some_and(|now| now.id == record.id && now.running());
        if same {
            events.container(&self.pod, &self.container.name, EventType::Warning, reason, message);
        }
        outcome
    }

    async fn once(&self, record: &ContainerRecord) -> Result<Checked, String> {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        if let Some(exec) = &self.probe.exec {
            return self.exec(record, exec.command.clone().unwrap_or_default(), timeout).await;
        }
        let ip = self.pod_ip();
        if let Some(action) = &self.probe.http_get {
            let port = resolve_port(&action.port, &self.container)?;
            return Ok(check_http(&HttpTarget::new(action, &ip, port, "kube-probe/1.36"), timeout).await);
        }
        if let Some(action) = &self.probe.tcp_socket {
            let port = resolve_port(&action.port, &self.container)?;
            let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or(ip);
            return Ok(match dial(&host, port, timeout).await {
                Ok(_) => Checked::Healthy,
                Err(text) => Checked::Unhealthy(text),
            });
        }
        if let Some(action) = &self.probe.grpc {
            let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
            return Ok(grpc::check(&ip, port, action.service.as_deref().unwrap_or_default(), timeout).await);
        }
        Err(format!("missing probe handler for {}:{}", spec::format_pod(&self.pod), self.container.name))
    }

    fn pod_ip(&self) -> String {
        if spec::host_network(&self.pod) {
            return self.agent.config.node_ip.to_string();
        }
        let state = self.agent.states.get(spec::uid(&self.pod));
        state.ready_sandbox().and_then(|sandbox| sandbox.ips.first().cloned()).unwrap_or_default()
    }

    async fn exec(&self, record: &ContainerRecord, command: Vec<String>, timeout: Duration) -> Result<Checked, String> {
        let text = command.join(" ");
        match self.agent.runtime.exec_sync(&record.id, command, Some(timeout)).await {
            Ok(answer) if answer.exit_code == 0 => Ok(Checked::Healthy),
            Ok(answer) => {
                let mut output = answer.stdout;
                output.extend_from_slice(&answer.stderr);
                output.truncate(MAX_OUTPUT);
                Ok(Checked::Unhealthy(String::from_utf8_lossy(&output).into_owned()))
            }
            Err(error) if error.is_deadline_exceeded() => {
                Ok(Checked::Unhealthy(format!("command timed out: {text:?} timed out after {}s", timeout.as_secs())))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What one try of a probe found.
pub(super) enum Checked {
    Healthy,
    Warning(String),
    Unhealthy(String),
}

/// Whether the initial delay is over. A start that lies ahead was before somebody set the clock back, perhaps by hours.
// DIVERGES: upstream's probes wait until the clock is past the start again.
fn is_past_delay(started_nanos: i64, now_nanos: i128, delay_seconds: Option<i32>) -> bool {
    let age = now_nanos - i128::from(started_nanos);
    age < 0 || age >= i128::from(delay_seconds.unwrap_or(0)) * 1_000_000_000
}

async fn check_http(target: &HttpTarget, timeout: Duration) -> Checked {
    let first = target.url();
    let mut target = target.clone();
    let work = async {
        // Redirects are followed while they stay on the host.
        for _ in 0..10 {
            let answer = get(&target).await?;
            let Some(next) = answer.redirect(&target) else { return Ok(answer) };
            if next.host != target.host {
                return Ok(answer);
            }
            target = next;
        }
        Err(format!("Get \"{first}\": stopped after 10 redirects"))
    };
    match tokio::time::timeout(timeout, work).await {
        Err(_) => Checked::Unhealthy(format!(
            "Get \"{first}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        )),
        Ok(Err(text)) => Checked::Unhealthy(text),
        Ok(Ok(answer)) => match answer.status {
            300..=399 => Checked::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
            200..=299 => Checked::Healthy,
            status => Checked::Unhealthy(format!("HTTP probe failed with statuscode: {status}")),
        },
    }
}

/// Opens a TCP connection; errors read as Go's.
pub(super) async fn dial(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, String> {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect(&address)).await {
        Err(_) => Err(format!("dial tcp {address}: i/o timeout")),
        Ok(Err(error)) => Err(format!("dial tcp {address}: {}", dial_error(&error))),
        Ok(Ok(stream)) => Ok(stream),
    }
}

pub(super) fn dial_error(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

/// A port by number or by the container's name for it.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let text = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let number = number.ok_or_else(|| format!("couldn't find port: {text:?} in {}", container.name))?;
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {text}"))
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;

    #[test]
    fn ports_by_number_and_name() {
        let port = ContainerPort { name: Some("http".to_owned()), container_port: 80, ..ContainerPort::default() };
        let container = Container { name: "c".to_owned(), ports: Some(vec![port]), ..Container::default() };
        let check = |port: IntOrString, expected: Result<u16, &str>| {
            assert_eq!(resolve_port(&port, &container).as_ref().map_err(String::as_str).copied(), expected);
        };
        check(IntOrString::Int(8080), Ok(8080));
        check(IntOrString::String("http".to_owned()), Ok(80));
        check(IntOrString::String("81".to_owned()), Ok(81));
        check(IntOrString::String("none".to_owned()), Err("couldn't find port: \"none\" in c"));
        check(IntOrString::Int(0), Err("invalid port number: 0"));
        check(IntOrString::Int(70_000), Err("invalid port number: 70000"));
    }

    #[test]
    fn an_initial_delay_survives_a_clock_that_jumps() {
        let second = |seconds: i64| seconds * 1_000_000_000;
        let check = |now: i64, expected: bool| {
            assert_eq!(is_past_delay(second(10_000), i128::from(second(now)), Some(30)), expected, "at {now}");
        };
        check(10_029, false);
        check(10_030, true);
        check(13_600, true);
        check(6_400, true);
    }

    #[test]
    fn only_new_verdicts_are_news() {
        let results = ProbeResults::default();
        assert!(results.set("a", ProbeKind::Readiness, Some(true)));
        assert!(!results.set("a", ProbeKind::Readiness, Some(true)));
        assert!(results.set("a", ProbeKind::Readiness, Some(false)));
        assert_eq!(results.get("a"), Verdicts { readiness: Some(false), ..Verdicts::default() });
        results.retain(|_| false);
        assert_eq!(results.get("a"), Verdicts::default());
    }
}
