//! Watches: a cursor of the store turned into frames.
//!
//! All changes that are there leave in one write. Invariant: what a client sees is the selected part of the collection's
//! history, in order, without gaps, from the revision it asked for; where that cannot be kept it gets an `ERROR` event
//! with code 410 and the watch ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use kedge_kinds::Kind;
use kedge_meta::ApiStatus;
use kedge_store::{Change, ChangeKind, Record, Revision, StoreError, Watch, WatchError};
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::body::Body;
use crate::call::Call;
use crate::core::Core;
use crate::flow::Watching;
use crate::metrics::{Sent, WatchList};
use crate::negotiate::{Encoding, Form};
use crate::present::View;
use crate::query::{AtRevision, ListOptions};
use crate::registry::Resource;
use crate::reply::{self, Reply, store_error};
use crate::select::Selection;
use crate::{convert, flow, protobuf, read, rest};

mod frames;

use frames::{expired, frame, table_bookmark, write_event};

/// How many changes are taken at once.
const BATCH: usize = 512;

/// About how many bytes of the initial state leave at once.
const INITIAL_CHUNK: usize = 64 << 10;

/// How often a quiet watch is told how far it got.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// Marks the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// GET with `watch`.
pub(crate) async fn watch(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let answer = stream(core, call, resource).await?;
    if !kedge_streaming::is_websocket_request(&call.headers) || answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let is_text = answer.headers().get(CONTENT_TYPE) == Some(&reply::JSON);
    let request = rest::client_request(call);
    let upgrade = kedge_streaming::watch_to_websocket(request, answer.into_body(), is_text);
    Ok(rest::spawn(upgrade, call.kept()))
}

/// The events as a body, each piece of which holds whole events.
async fn stream(core: &Core, call: &mut Call, resource: &Arc<Resource>) -> Reply {
    let began = std::time::Instant::now();
    let view = View::of(call, resource)?;
    let protobuf = view.accepted.encoding == Encoding::Protobuf;
    let mut options = ListOptions::parse(&call.query)?;
    options.watch = true;
    let target = call.resource();
    if target.watch_prefix && !target.name.is_empty() {
        let text = format!("metadata.name={}", target.name);
        options.fields =
            kedge_meta::FieldSelector::parse(&text).map_err(|error| ApiStatus::bad_request(error.to_string()))?;
    }
    let selection = Selection::new(Arc::clone(resource), options.labels.clone(), options.fields.clone())?;
    let prefix = prefix(&resource.kind, &target.namespace, &selection);
    let start = match plan_start(&options) {
        Start::Initial => start_with_state(core, resource, &target.namespace, &selection, &prefix).await?,
        Start::Now => start_after(core, &prefix, core.store.refresh().await.map_err(store_error)?)?,
        Start::After(revision) => {
            if revision > core.store.revision() {
                // Another server of the same store may have told it.
                core.store.refresh().await.map_err(store_error)?;
            }
            start_after(core, &prefix, revision)?
        }
    };
    let content_type = if protobuf { HeaderValue::from_static(kedge_schema::PROTOBUF_WATCH) } else { reply::JSON };
    let sent = core.metrics.watch_events.of(&resource.kind);
    let Some(mut start) = start else { return Ok(expired_at_start(core, &options, protobuf, content_type, &sent)) };
    if options.send_initial_events == Some(true) && options.allow_bookmarks {
        start.end_of_state = Some(start.after);
    }
    let is_listing = start.end_of_state.is_some();
    let mut watcher = Watcher::new(core, start, Arc::clone(resource), view, selection, &options, sent);
    let running = call.running.as_ref().filter(|_| is_listing);
    watcher.listing = running.map(|running| core.metrics.watch_lists.begin(running.labels(), began));
    watcher.watching = core.flow.watchers.watch(call);
    let place = call.place.take().filter(|_| !watcher.started.state.is_empty());
    watcher.place = place.map(|place| flow::hold(place, core.config.request_timeout));
    let body = Body::stream(stream::unfold(watcher, |mut watcher| async move {
        let bytes = watcher.next().await?;
        Some((Ok(bytes), watcher))
    }));
    Ok(reply::respond(StatusCode::OK, content_type, body))
}

/// The narrowest prefix that holds everything that can be selected.
fn prefix(kind: &Kind, namespace: &str, selection: &Selection) -> String {
    let namespace =
        if namespace.is_empty() && kind.namespaced { selection.exact_namespace().unwrap_or("") } else { namespace };
    match selection.exact_name() {
        Some(name) if !kind.namespaced || !namespace.is_empty() => kind.key(namespace, name),
        _ => kind.prefix(namespace),
    }
}

enum Start {
    /// With everything there is as `ADDED`.
    Initial,
    Now,
    After(Revision),
}

fn plan_start(options: &ListOptions) -> Start {
    match (options.send_initial_events, options.at) {
        (Some(true), _) | (None, AtRevision::Latest | AtRevision::Any) => Start::Initial,
        (Some(false), AtRevision::Latest | AtRevision::Any) => Start::Now,
        (_, AtRevision::NotOlderThan(revision) | AtRevision::Exactly(revision)) => Start::After(Revision(revision)),
    }
}

struct Started {
    watch: Box<dyn Watch>,
    state: VecDeque<Record>,
    after: Revision,
    end_of_state: Option<Revision>,
}

async fn start_with_state(
    core: &Core,
    resource: &Arc<Resource>,
    namespace: &str,
    selection: &Selection,
    prefix: &str,
) -> Result<Option<Started>, ApiStatus> {
    let (records, revision) = read::all(core, resource, namespace, selection).await?;
    let started = start_after(core, prefix, revision)?;
    Ok(started.map(|started| Started { state: records.into(), ..started }))
}

/// `None` where the store has forgotten what came after `revision`.
fn start_after(core: &Core, prefix: &str, revision: Revision) -> Result<Option<Started>, ApiStatus> {
    let watch = match core.store.watch(prefix, revision) {
        Err(StoreError::Compacted { .. }) => return Ok(None),
        // What has not happened yet is waited for, as upstream does.
        Err(StoreError::Future { current, .. }) => core.store.watch(prefix, current),
        watch => watch,
    };
    let watch = watch.map_err(store_error)?;
    Ok(Some(Started { watch, state: VecDeque::new(), after: revision, end_of_state: None }))
}

fn expired_at_start(
    core: &Core,
    options: &ListOptions,
    protobuf: bool,
    content_type: HeaderValue,
    sent: &Sent,
) -> Response<Body> {
    let requested = match options.at {
        AtRevision::NotOlderThan(revision) | AtRevision::Exactly(revision) => revision,
        AtRevision::Latest | AtRevision::Any => 0,
    };
    let frame = frame("ERROR", &expired(requested, core.store.oldest()).to_json(), protobuf);
    sent.event(frame.len());
    reply::respond(StatusCode::OK, content_type, Body::full(frame))
}

struct Watcher {
    started: Started,
    resource: Arc<Resource>,
    view: View,
    selection: Selection,
    bookmarks: bool,
    /// The next bookmark, or the end.
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    sent_columns: bool,
    ended: bool,
    /// Kept until the state has been sent.
    place: Option<Box<dyn Send + Sync>>,
    /// Counted until the end.
    watching: Option<Watching>,
    /// Counts what is sent.
    sent: Sent,
    /// Counts until the end of the state has been sent.
    listing: Option<WatchList>,
}

impl Watcher {
    fn new(
        core: &Core,
        started: Started,
        resource: Arc<Resource>,
        view: View,
        selection: Selection,
        options: &ListOptions,
        sent: Sent,
    ) -> Self {
        // A random end keeps clients from coming back all at once.
        let spread = rand::rng().random_range(1.0..2.0);
        let timeout = options.timeout.unwrap_or(core.config.min_request_timeout.mul_f64(spread));
        let deadline = Instant::now() + timeout;
        let bookmarks = options.allow_bookmarks;
        let ends = resource.custom.as_ref().map_or(&core.shutdown, |custom| &custom.retired).clone();
        let mut watcher = Self {
            started,
            resource,
            view,
            selection,
            bookmarks,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            deadline,
            shutdown: Box::pin(ends.cancelled_owned()),
            sent_columns: false,
            ended: false,
            place: None,
            watching: None,
            sent,
            listing: None,
        };
        watcher.set_timer();
        watcher
    }

    /// The next bytes; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if let Some(bytes) = self.initial() {
            return Some(bytes);
        }
        self.place = None;
        loop {
            tokio::select! {
                biased;
                changes = self.started.watch.next(BATCH) => {
                    let bytes = match changes {
                        Ok(changes) => match convert::changes(&self.resource, changes).await {
                            Ok(changes) => self.frames(&changes),
                            Err(status) => return self.fail(&status),
                        },
                        Err(error) => return self.end(&error),
                    };
                    if !bytes.is_empty() {
                        return Some(bytes);
                    }
                }
                () = &mut self.timer => match self.tick() {
                    Some(bytes) => return Some(bytes),
                    None if self.ended => return None,
                    None => {}
                },
                () = &mut self.shutdown => return None,
            }
        }
    }

    /// What cannot be shown ends the watch: to go on would leave it out.
    fn fail(&mut self, status: &ApiStatus) -> Option<Bytes> {
        self.ended = true;
        Some(self.own_frame("ERROR", &status.to_json()))
    }

    /// An event of the server's own making.
    fn own_frame(&self, kind: &str, object: &Value) -> Bytes {
        let frame = frame(kind, object, self.is_protobuf());
        self.sent.event(frame.len());
        frame
    }

    fn end(&mut self, error: &WatchError) -> Option<Bytes> {
        self.ended = true;
        match error {
            WatchError::Lagged { oldest } => self.fail(&expired(self.started.after.0, *oldest)),
            WatchError::Closed => None,
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::new();
        while bytes.len() < INITIAL_CHUNK {
            let Some(record) = self.started.state.pop_front() else { break };
            self.write_event(&mut bytes, "ADDED", &record.value);
        }
        if self.started.state.is_empty()
            && let Some(revision) = self.started.end_of_state.take()
        {
            bytes.extend_from_slice(&self.bookmark(revision, true));
            if let Some(listing) = self.listing.take() {
                listing.ended();
            }
        }
        if bytes.is_empty() { None } else { Some(bytes.freeze()) }
    }

    fn frames(&mut self, changes: &[Arc<Change>]) -> Bytes {
        let size: usize = changes.iter().map(|change| change.record.value.len() + 48).sum();
        let mut bytes = BytesMut::with_capacity(if self.selection.is_everything() { size } else { 0 });
        for change in changes {
            // Before the revision that the client asked for only where that lies in the future.
            if change.revision <= self.started.after {
                continue;
            }
            self.started.after = change.revision;
            if let Some((kind, object)) = event(change, &self.selection) {
                self.write_event(&mut bytes, kind, &object);
            }
        }
        bytes.freeze()
    }

    fn write_event(&mut self, bytes: &mut BytesMut, kind: &str, stored: &Bytes) {
        let object = match self.view.accepted.form {
            Form::Object if self.resource.is_storage_version => stored.clone(),
            _ => self.view.render(&self.resource, stored, !self.sent_columns),
        };
        self.sent_columns = true;
        let before = bytes.len();
        match self.is_protobuf() {
            true => protobuf::write_event(bytes, kind, &serde_json::from_slice(&object).unwrap_or_default()),
            false => write_event(bytes, kind, &object),
        }
        self.sent.event(bytes.len() - before);
    }

    fn is_protobuf(&self) -> bool {
        self.view.accepted.encoding == Encoding::Protobuf
    }

    /// The timer has rung: a bookmark, or the end.
    fn tick(&mut self) -> Option<Bytes> {
        if Instant::now() >= self.deadline {
            self.ended = true;
            return None;
        }
        self.set_timer();
        let revision = self.started.watch.progress();
        // A watch that waits for the future has nothing to tell before it comes.
        (revision >= self.started.after).then(|| self.bookmark(revision, false))
    }

    fn set_timer(&mut self) {
        let now = Instant::now();
        let last = self.deadline.checked_sub(LAST_BOOKMARK).unwrap_or(self.deadline);
        let next = match self.bookmarks {
            true if now + BOOKMARK_INTERVAL < last => now + BOOKMARK_INTERVAL,
            true if now < last => last,
            _ => self.deadline,
        };
        self.timer.as_mut().reset(next);
    }

    fn bookmark(&self, revision: Revision, ends_state: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_state {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.view.accepted.form {
            Form::Object => {
                json!({"kind": self.resource.kind.kind, "apiVersion": self.resource.api_version, "metadata": metadata})
            }
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Table(version) => table_bookmark(version, &metadata),
        };
        self.own_frame("BOOKMARK", &object)
    }
}

/// What a change is to somebody who sees the selected objects only.
fn event(change: &Change, selection: &Selection) -> Option<(&'static str, Bytes)> {
    let deleted = change.kind == ChangeKind::Deleted;
    let is_selected = !deleted && selection.matches(&change.record.value);
    let previous = change.previous.as_ref().filter(|previous| selection.matches(&previous.value));
    match (is_selected, previous) {
        (true, None) => Some(("ADDED", change.record.value.clone())),
        (true, Some(_)) => Some(("MODIFIED", change.record.value.clone())),
        // The last state that was selected, at the revision at which it ceased to be.
        (false, Some(previous)) => Some(("DELETED", previous.value_at(change.revision))),
        (false, None) => None,
    }
}
