//! Follows the ConfigMap `kube-system/coredns`: what its `Corefile` says holds from then on, without a restart.
//!
//! Invariant: without the ConfigMap, or its key, all is as usual; a text that can't be read changes nothing; what is not
//! supported is said once, in an event of the ConfigMap.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kedge_client::{EventType, Informer, Recorder, object_reference};
use kedge_meta::ObjectKey;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::corefile::{parse, plan};
use crate::resolver::Resolver;
use crate::routing::{Makings, Routing};

/// Where the Corefile stands.
pub(crate) const NAMESPACE: &str = "kube-system";
pub(crate) const NAME: &str = "coredns";
const KEY: &str = "Corefile";
/// How many things that are not supported one event names.
const NAMED_MAX: usize = 10;

/// What there is to follow with.
pub(crate) struct Follow {
    pub(crate) config_maps: Informer<ConfigMap>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) makings: Makings,
    pub(crate) domain: hickory_proto::rr::Name,
    /// Why the present text is not followed, for the report.
    pub(crate) problem: Arc<Mutex<Option<String>>>,
}

impl Follow {
    /// Follows until `shutdown`.
    pub(crate) async fn run(&self, resolver: &Resolver, shutdown: &CancellationToken) {
        let mut changes = self.config_maps.subscribe();
        let mut known: Option<String> = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = changes.next() => {}
            }
            let config_map = self.config_maps.get(&ObjectKey::new(NAMESPACE, NAME));
            let data = config_map.as_ref().and_then(|config_map| config_map.data.as_ref());
            let text = data.and_then(|data| data.get(KEY)).cloned();
            if text != known {
                self.apply(resolver, config_map.as_deref(), text.as_deref());
                known = text;
            }
        }
    }

    fn apply(&self, resolver: &Resolver, config_map: Option<&ConfigMap>, text: Option<&str>) {
        let parsed = match parse(text.unwrap_or_default()) {
            Ok(parsed) => parsed,
            Err(error) => {
                let message = format!("the Corefile of {NAMESPACE}/{NAME} can't be read, and is not followed: {error}");
                resolver.metrics.reload_failed();
                self.warn(config_map, "CorefileInvalid", &message);
                *self.problem.lock() = Some(message);
                return;
            }
        };
        *self.problem.lock() = None;
        let (plans, unsupported) = plan::plan(&parsed, &self.domain);
        if !unsupported.is_empty() {
            let named: Vec<&str> = unsupported.iter().take(NAMED_MAX).map(String::as_str).collect();
            let more = unsupported.len().saturating_sub(NAMED_MAX);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let message = format!("not supported, and left out of the Corefile: {}{more}", named.join("; "));
            self.warn(config_map, "CorefileNotSupported", &message);
        }
        let routing = Routing::new(plans, &self.makings, Some(&resolver.routing()));
        *resolver.routing.write() = Arc::new(routing);
        tracing::info!(is_there = text.is_some(), "names are resolved as the Corefile says");
    }

    fn warn(&self, config_map: Option<&ConfigMap>, reason: &str, message: &str) {
        tracing::warn!("{message}");
        if let (Some(recorder), Some(config_map)) = (&self.recorder, config_map) {
            recorder.event(&object_reference(config_map), EventType::Warning, reason, message);
        }
    }
}
