//! Writes pod statuses to the API, retries for as long as it takes, and deletes pods that have ended.
//!
//! It computes no status. Invariant: the newest status of a pod wins; a pod is deleted only after its last status was
//! written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kedge_client::{Backoff, FailureLog, Queue};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::spec;
use crate::status::status_patch;

const WHAT: &str = "write the status of a pod";
const WRITERS: usize = 4;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const LONGEST_RETRY: Duration = Duration::from_secs(3);

struct Entry {
    pod: Arc<Pod>,
    wanted: PodStatus,
    /// What the API has, as far as is known.
    observed: Option<(Target, PodStatus)>,
    finish: bool,
    backoff: Backoff,
}

/// The API object that shows a pod: itself, or its mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    namespace: String,
    name: String,
    uid: String,
}

struct Inner {
    client: Client,
    queue: Queue<String>,
    entries: Mutex<HashMap<String, Entry>>,
    /// Mirrors that were seen before their static pod had a status.
    early_mirrors: Mutex<HashMap<String, (Target, PodStatus)>>,
    failures: FailureLog,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    inner: Arc<Inner>,
}

impl StatusWriter {
    /// Starts the tasks that write; they end with `shutdown`.
    pub(crate) fn start(client: Client, failures: FailureLog, shutdown: &CancellationToken) -> Self {
        let inner =
            Inner { client, queue: Queue::new(), entries: Mutex::default(), early_mirrors: Mutex::default(), failures };
        let writer = Self { inner: Arc::new(inner) };
        for _ in 0..WRITERS {
            let (writer, shutdown) = (writer.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = writer.run() => {}
                }
            });
        }
        writer
    }

    /// Takes a pod's newest status.
    pub(crate) fn set(&self, pod: Arc<Pod>, status: PodStatus) {
        let uid = spec::uid(&pod).to_owned();
        let mut entries = self.inner.entries.lock();
        match entries.get_mut(&uid) {
            Some(entry) => {
                entry.pod = pod;
                entry.wanted = status;
            }
            None => {
                let own = own_target(&pod).map(|target| (target, spec::pod_status(&pod).clone()));
                let observed = own.or_else(|| self.inner.early_mirrors.lock().remove(&uid));
                let backoff = Backoff::new(Duration::from_millis(100), LONGEST_RETRY);
                entries.insert(uid.clone(), Entry { pod, wanted: status, observed, finish: false, backoff });
            }
        }
        drop(entries);
        self.inner.queue.add(uid);
    }

    /// A pod's newest status, written or not.
    pub(crate) fn get(&self, uid: &str) -> Option<PodStatus> {
        self.inner.entries.lock().get(uid).map(|entry| entry.wanted.clone())
    }

    /// The API has a new state of a pod, or of the mirror of the static pod `uid`.
    pub(crate) fn observe(&self, uid: &str, object: &Pod) {
        let target = target(object);
        let mut entries = self.inner.entries.lock();
        let status = spec::pod_status(object).clone();
        let Some(entry) = entries.get_mut(uid) else {
            if spec::is_mirror(object) {
                self.inner.early_mirrors.lock().insert(uid.to_owned(), (target, status));
            }
            return;
        };
        let differs = status_patch(&target.uid, &status, &entry.wanted).is_some();
        entry.observed = Some((target, status));
        drop(entries);
        if differs {
            self.inner.queue.add(uid.to_owned());
        }
    }

    /// The pod has ended: after its last status is written, its object is deleted.
    pub(crate) fn finish(&self, pod: Arc<Pod>) {
        let uid = spec::uid(&pod).to_owned();
        if let Some(entry) = self.inner.entries.lock().get_mut(&uid) {
            entry.finish = true;
            entry.pod = pod;
        }
        self.inner.queue.add(uid);
    }

    /// The pod is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.inner.entries.lock().remove(uid);
        self.inner.early_mirrors.lock().remove(uid);
    }

    async fn run(&self) {
        loop {
            let uid = self.inner.queue.next().await;
            if let Err(error) = self.write(&uid).await {
                self.inner.failures.failed(WHAT, &error);
                let delay = self.inner.entries.lock().get_mut(&uid).map(|entry| entry.backoff.next_delay());
                if let Some(delay) = delay {
                    self.inner.queue.add_after(uid.clone(), delay);
                }
            } else {
                self.inner.failures.succeeded(WHAT);
                if let Some(entry) = self.inner.entries.lock().get_mut(&uid) {
                    entry.backoff.reset();
                }
            }
            self.inner.queue.done(&uid);
        }
    }

    async fn write(&self, uid: &str) -> Result<(), kube::Error> {
        let work = self.inner.entries.lock().get(uid).and_then(|entry| {
            let (target, status) = entry.observed.clone()?;
            Some((status_patch(&target.uid, &status, &entry.wanted), target, entry.finish))
        });
        let Some((patch, target, finish)) = work else { return Ok(()) };
        let api = Api::<Pod>::namespaced(self.inner.client.clone(), &target.namespace);
        if let Some(patch) = patch {
            let params = PatchParams::default();
            let patch = Patch::Strategic(patch);
            match in_time(api.patch_status(&target.name, &params, &patch)).await {
                Ok(written) => self.wrote(uid, &target, &written),
                // The object is gone, or is another one by now.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => self.lost(uid, &target),
                Err(error) => return Err(error),
            }
        }
        if finish {
            let preconditions = Preconditions { uid: Some(target.uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }.grace_period(0);
            match in_time(api.delete(&target.name, &params)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wrote(&self, uid: &str, target: &Target, written: &Pod) {
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        if entry.observed.as_ref().is_some_and(|(known, _)| known == target) {
            entry.observed = Some((target.clone(), spec::pod_status(written).clone()));
        }
    }

    fn lost(&self, uid: &str, target: &Target) {
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        if entry.observed.as_ref().is_some_and(|(known, _)| known == target) && !entry.finish {
            entry.observed = None;
        }
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result,
        Err(elapsed) => Err(kube::Error::Service(Box::new(elapsed))),
    }
}

fn target(object: &Pod) -> Target {
    Target {
        namespace: spec::namespace(object).to_owned(),
        name: spec::name(object).to_owned(),
        uid: spec::uid(object).to_owned(),
    }
}

/// Static pods have no object of their own; their mirror is observed later.
fn own_target(pod: &Pod) -> Option<Target> {
    (!spec::is_static(pod)).then(|| target(pod))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use crate::mirror::mirror_of;

    /// A static pod whose mirror the API showed before the pod had its first status kept the mirror `Pending` for good.
    #[tokio::test]
    async fn regress_a_mirror_that_is_seen_early_gets_its_status() {
        let (sent, mut requests) = tokio::sync::mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let told = sent.send(format!("{} {}", request.method(), request.uri().path()));
            async move {
                told.map_err(|error| error.to_string())?;
                Ok::<_, String>(http::Response::new(kube::client::Body::empty()))
            }
        });
        let shutdown = CancellationToken::new();
        let writer = StatusWriter::start(kedge_client::client_from_service(service), FailureLog::default(), &shutdown);
        let text = b"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n";
        let path = std::path::Path::new("/a");
        let pod = manifest::parse(path, text, "n", jiff::Timestamp::UNIX_EPOCH).unwrap();
        let mut mirror = mirror_of(&pod, None);
        mirror.metadata.uid = Some("mirror".to_owned());
        writer.observe(spec::uid(&pod), &mirror);
        writer.set(Arc::new(pod), PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() });
        let first = tokio::time::timeout(Duration::from_secs(20), requests.recv()).await.unwrap();
        assert_eq!(first.as_deref(), Some("PATCH /api/v1/namespaces/default/pods/a-n/status"));
        shutdown.cancel();
    }
}
