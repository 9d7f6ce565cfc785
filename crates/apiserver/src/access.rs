//! Authorization: the authorizer, kept as new as the store, and the questions that the server asks it.
//!
//! The authorizer follows the store through a watch that is read whenever somebody asks. Invariant: a decision sees every
//! commit that was acknowledged before the question.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use kedge_auth::{Attributes, AuthorizationMode, Authorizer, Decision, ResourceAttributes};
use kedge_meta::{ApiStatus, FieldSelector, GroupResource, StatusReason, UserInfo};
use kedge_store::{Change, ChangeKind, Key, ListRequest, Record, Store, StoreError, Watch};
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;

use crate::call::Call;
use crate::metrics::Attempts;
use crate::reply::store_error;
use crate::target::Target;

/// How many changes are taken from the store at once.
const BATCH: usize = 1024;

/// Roles and bindings.
const RBAC: &str = "/registry/rbac.authorization.k8s.io/";

/// What ties other objects to a node, for questions of nodes alone.
const NODE_PREFIXES: [&str; 2] = ["/registry/pods/", "/registry/persistentvolumes/"];

/// The same, each for questions about itself alone.
const OWN_PREFIXES: [(&str, &str); 2] = [
    ("volumeattachments", "/registry/storage.k8s.io/volumeattachments/"),
    ("resourceslices", "/registry/resource.k8s.io/resourceslices/"),
];

/// Decides who may do what.
pub(crate) struct Access {
    authorizer: Authorizer,
    store: Arc<dyn Store>,
    rbac: Feed,
    nodes: [Feed; 2],
    own: [(&'static str, Feed); 2],
}

/// A part of the store that the authorizer follows.
struct Feed {
    prefix: &'static str,
    seen: AtomicU64,
    state: AsyncMutex<FeedState>,
}

#[derive(Default)]
struct FeedState {
    watch: Option<Box<dyn Watch>>,
    known: HashSet<Key>,
}

impl Access {
    pub(crate) fn new(store: Arc<dyn Store>, modes: &[AuthorizationMode]) -> Self {
        let feed = |prefix| Feed { prefix, seen: AtomicU64::new(0), state: AsyncMutex::default() };
        Self {
            authorizer: Authorizer::with_modes(modes),
            store,
            rbac: feed(RBAC),
            nodes: NODE_PREFIXES.map(feed),
            own: OWN_PREFIXES.map(|(resource, prefix)| (resource, feed(prefix))),
        }
    }

    /// Decides about a question.
    pub(crate) async fn decide(&self, attributes: &Attributes<'_>) -> Result<Decision, ApiStatus> {
        let about = attributes.resource.map_or("", |resource| resource.resource);
        self.prepare(attributes.user, Some(about)).await?;
        Ok(self.authorizer.authorize(attributes))
    }

    /// The authorizer, as new as the store for questions about `user`.
    pub(crate) async fn authorizer(&self, user: &UserInfo) -> Result<&Authorizer, ApiStatus> {
        self.prepare(user, None).await?;
        Ok(&self.authorizer)
    }

    /// Takes in what a question of `user` needs: one about the resource `about`, or any.
    async fn prepare(&self, user: &UserInfo, about: Option<&str>) -> Result<(), ApiStatus> {
        if user.groups.iter().any(|group| group == "system:masters") {
            return Ok(());
        }
        self.rbac.catch_up(&*self.store, &self.authorizer).await.map_err(store_error)?;
        if user.groups.iter().any(|group| group == "system:nodes") {
            let own = self.own.iter().filter(|(resource, _)| about.is_none_or(|about| about == *resource));
            for feed in self.nodes.iter().chain(own.map(|(_, feed)| feed)) {
                feed.catch_up(&*self.store, &self.authorizer).await.map_err(store_error)?;
            }
        }
        Ok(())
    }

    /// Refuses a request that its user may not make.
    pub(crate) async fn check(&self, call: &Call, attempts: &Attempts) -> Result<(), ApiStatus> {
        let fields = field_selector(call);
        let mut attributes = attributes(call);
        if let Some(resource) = &mut attributes.resource {
            resource.fields = fields.as_ref();
        }
        let decided = self.decide(&attributes).await;
        attempts.authorized(decided.as_ref().ok());
        note(call, &decided);
        let decided = decided?;
        if decided.is_allowed() {
            return Ok(());
        }
        let why = match decided.reason() {
            "" => attributes.denial_text(),
            reason => format!("{}: {reason}", attributes.denial_text()),
        };
        Err(match &call.target {
            Target::Resource(target) => {
                let resource = GroupResource { group: target.group.clone(), resource: target.resource.clone() };
                ApiStatus::forbidden(&resource, &target.name, &why)
            }
            Target::Other => {
                let mut status = ApiStatus::new(403, StatusReason::Forbidden, format!("forbidden: {why}"));
                status.details = Some(Box::default());
                status
            }
        })
    }
}

/// Leaves word of a decision for the audit log.
fn note(call: &Call, decided: &Result<Decision, ApiStatus>) {
    if !call.notes.are_collected() {
        return;
    }
    let reason = match decided {
        Ok(decision) => {
            let word = if decision.is_allowed() { "allow" } else { "forbid" };
            call.notes.annotate("authorization.k8s.io/decision".to_owned(), word.to_owned());
            decision.reason()
        }
        Err(_) => "internal error",
    };
    call.notes.annotate("authorization.k8s.io/reason".to_owned(), reason.to_owned());
}

/// What a request asks for, in the authorizer's words.
pub(crate) fn attributes(call: &Call) -> Attributes<'_> {
    let resource = match &call.target {
        Target::Resource(target) => Some(ResourceAttributes {
            group: &target.group,
            version: &target.version,
            resource: &target.resource,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            ..ResourceAttributes::default()
        }),
        Target::Other => None,
    };
    Attributes { user: &call.user, verb: call.verb, resource, path: &call.path }
}

/// The field selector of a request about many objects. One that cannot be read is refused later, by whoever selects with
/// it. No authorizer looks at labels, so that these are not read here.
fn field_selector(call: &Call) -> Option<FieldSelector> {
    if !matches!(call.verb, "list" | "watch" | "deletecollection") {
        return None;
    }
    FieldSelector::parse(call.query.non_empty("fieldSelector")?).ok()
}

impl Feed {
    async fn catch_up(&self, store: &dyn Store, authorizer: &Authorizer) -> Result<(), StoreError> {
        let revision = store.revision().0;
        if self.seen.load(Ordering::Acquire) >= revision {
            return Ok(());
        }
        let mut state = self.state.lock().await;
        if !state.drain(authorizer) {
            state.reload(self.prefix, store, authorizer).await?;
        }
        self.seen.fetch_max(revision, Ordering::AcqRel);
        Ok(())
    }
}

impl FeedState {
    /// Takes in what happened; `false` where it must begin anew.
    fn drain(&mut self, authorizer: &Authorizer) -> bool {
        let Self { watch: Some(watch), known } = self else { return false };
        while let Some(changes) = watch.next(BATCH).now_or_never() {
            let Ok(changes) = changes else { return false };
            changes.iter().for_each(|change| observe_change(change, known, authorizer));
        }
        true
    }

    async fn reload(&mut self, prefix: &str, store: &dyn Store, authorizer: &Authorizer) -> Result<(), StoreError> {
        let page = store.list(ListRequest { prefix: prefix.to_owned(), ..ListRequest::default() }).await?;
        let mut gone = std::mem::take(&mut self.known);
        for record in page.records {
            gone.remove(&record.key);
            observe(authorizer, &record);
            self.known.insert(record.key);
        }
        for key in gone {
            forget(authorizer, &key);
        }
        self.watch = Some(store.watch(prefix, page.revision)?);
        self.drain(authorizer);
        Ok(())
    }
}

fn observe_change(change: &Change, known: &mut HashSet<Key>, authorizer: &Authorizer) {
    if change.kind == ChangeKind::Deleted {
        known.remove(&change.record.key);
        return forget(authorizer, &change.record.key);
    }
    known.insert(change.record.key.clone());
    observe(authorizer, &change.record);
}

fn observe(authorizer: &Authorizer, record: &Record) {
    let Some((resource, namespace, name)) = parts(&record.key) else { return };
    match serde_json::from_slice::<Value>(&record.value) {
        Ok(object) => authorizer.observe(resource, namespace, name, Some(&object)),
        Err(error) => tracing::error!(key = record.key.as_str(), %error, "a stored object cannot be read"),
    }
}

fn forget(authorizer: &Authorizer, key: &Key) {
    if let Some((resource, namespace, name)) = parts(key) {
        authorizer.observe(resource, namespace, name, None);
    }
}

/// Resource, namespace and name of a key under one of the followed prefixes.
fn parts(key: &Key) -> Option<(&str, &str, &str)> {
    let mut parts = key.as_str().strip_prefix("/registry/")?.split('/').peekable();
    // The group, but for core's.
    let _ = parts.next_if(|part| part.contains('.'));
    match (parts.next(), parts.next(), parts.next()) {
        (Some(resource), Some(namespace), Some(name)) => Some((resource, namespace, name)),
        (Some(resource), Some(name), None) => Some((resource, "", name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        for (key, expected) in [
            ("/registry/rbac.authorization.k8s.io/roles/a/b", Some(("roles", "a", "b"))),
            ("/registry/rbac.authorization.k8s.io/clusterroles/system:node", Some(("clusterroles", "", "system:node"))),
            ("/registry/storage.k8s.io/volumeattachments/a", Some(("volumeattachments", "", "a"))),
            ("/registry/pods/a/b", Some(("pods", "a", "b"))),
            ("/registry/pods", None),
        ] {
            assert_eq!(parts(&Key::new(key)), expected, "{key}");
        }
    }
}
