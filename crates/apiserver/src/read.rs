//! GET of objects and lists.
//!
//! Invariant: a page shows the store at one revision, and a continue token leads to the next page of the same revision
//! for as long as the store keeps it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use kedge_meta::ApiStatus;
use kedge_store::{Key, ListPage, ListRequest, Record, Revision, StoreError};
use serde::{Deserialize, Serialize};

use crate::body::Body;
use crate::call::Call;
use crate::convert;
use crate::core::Core;
use crate::label_index::Found;
use crate::present::{ListMeta, View};
use crate::query::{AtRevision, ListOptions, parse_revision};
use crate::registry::Resource;
use crate::reply::{self, Reply, store_error, too_large_revision};
use crate::select::Selection;

/// How many records are looked at together, before others get their turn.
const SLICE: usize = 4096;

/// How many records are compared with a selector before others get their turn.
const COMPARED: usize = 512;

/// GET of one object.
pub(crate) async fn get(core: &Core, call: &Call, resource: &Resource) -> Reply {
    let view = View::of(call, resource)?;
    if let Some(text) = call.query.non_empty("resourceVersion") {
        let wanted = parse_revision(text)?;
        check_reached(core, wanted).await?;
    }
    let target = call.resource();
    let record = core.record(resource, &target.namespace, &target.name).await?;
    let record = convert::record(resource, record).await?;
    Ok(view.object(resource, StatusCode::OK, &record.value))
}

async fn check_reached(core: &Core, wanted: u64) -> Result<(), ApiStatus> {
    if wanted <= core.store.revision().0 {
        return Ok(());
    }
    // Another server of the same store may have told it.
    let current = core.store.refresh().await.map_err(store_error)?.0;
    if wanted > current { Err(too_large_revision(wanted, current)) } else { Ok(()) }
}

/// GET of a collection.
pub(crate) async fn list(core: &Core, call: &Call, resource: &Arc<Resource>) -> Reply {
    let view = View::of(call, resource)?;
    let options = ListOptions::parse(&call.query)?;
    let fields = options.fields.clone();
    let selection = Selection::new(Arc::clone(resource), options.labels.clone(), fields)?;
    let listing = Listing::new(core, resource, &call.resource().namespace, &selection, &options).await?;
    match (listing.run().await, options.continue_token) {
        (Ok((records, meta)), _) => Ok(view.list(resource, records, &meta).await),
        (Err(status), Some(token)) if status.code == 410 => Ok(expired_token(&status, &token, &view)),
        (Err(status), _) => Err(status),
    }
}

/// All selected records of a collection, as of now: for verbs that go through a collection.
pub(crate) async fn all(
    core: &Core,
    resource: &Arc<Resource>,
    namespace: &str,
    selection: &Selection,
) -> Result<(Vec<Record>, Revision), ApiStatus> {
    let options = ListOptions::parse(&crate::query::Query::default())?;
    let (records, meta) = Listing::new(core, resource, namespace, selection, &options).await?.run().await?;
    Ok((records, meta.revision))
}

const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can \
    start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder \
    of the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
    modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// What a continue token says, in upstream's words. `start` is relative to the collection's prefix.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

struct Listing<'a> {
    core: &'a Core,
    resource: &'a Resource,
    selection: &'a Selection,
    prefix: String,
    start_after: Option<Key>,
    at: Option<Revision>,
    limit: Option<usize>,
    continues: bool,
}

impl<'a> Listing<'a> {
    async fn new(
        core: &'a Core,
        resource: &'a Resource,
        namespace: &str,
        selection: &'a Selection,
        options: &ListOptions,
    ) -> Result<Self, ApiStatus> {
        let prefix = resource.kind.prefix(namespace);
        let (limit, continues) = (options.limit, options.continue_token.is_some());
        let mut listing = Self { core, resource, selection, prefix, start_after: None, at: None, limit, continues };
        match (&options.continue_token, options.at) {
            (Some(token), _) => listing.take_token(token)?,
            (None, AtRevision::Exactly(revision)) => {
                check_reached(core, revision).await?;
                listing.at = Some(Revision(revision));
            }
            (None, AtRevision::NotOlderThan(revision)) => check_reached(core, revision).await?,
            (None, AtRevision::Latest | AtRevision::Any) => {}
        }
        Ok(listing)
    }

    fn take_token(&mut self, token: &str) -> Result<(), ApiStatus> {
        let bad = |why: &str| ApiStatus::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| bad(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(bad("server does not recognize this encoded version"));
        }
        if token.rv == 0 {
            return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() || token.start.split('/').any(|part| part == "..") {
            return Err(bad("encoded start key is not valid"));
        }
        let name = token.start.trim_end_matches('\0');
        self.start_after = Some(Key::new(format!("{}{name}", self.prefix)));
        // A negative revision goes on at the present one: what is offered when the old one has expired.
        self.at = u64::try_from(token.rv).ok().map(Revision);
        Ok(())
    }

    async fn run(mut self) -> Result<(Vec<Record>, ListMeta), ApiStatus> {
        if let Some(found) = self.by_name().await? {
            return Ok(found);
        }
        if let Some(found) = self.by_label().await? {
            return Ok(found);
        }
        if self.selection.is_everything() {
            let page = self.everything().await?;
            let remaining = Some(page.remaining).filter(|remaining| *remaining > 0);
            let continue_token = remaining.and_then(|_| self.token_after(page.records.last(), page.revision));
            return Ok((page.records, ListMeta { revision: page.revision, continue_token, remaining }));
        }
        self.filtered().await
    }

    /// `metadata.name=x` needs no list.
    async fn by_name(&self) -> Result<Option<(Vec<Record>, ListMeta)>, ApiStatus> {
        let Some(name) = self.selection.exact_name() else { return Ok(None) };
        if self.at.is_some() || self.start_after.is_some() {
            return Ok(None);
        }
        let namespaced_prefix = match (self.resource.kind.namespaced, self.selection.exact_namespace()) {
            (true, Some(namespace)) if self.prefix == self.resource.kind.prefix("") => {
                self.resource.kind.prefix(namespace)
            }
            (true, _) if self.prefix == self.resource.kind.prefix("") => return Ok(None),
            _ => self.prefix.clone(),
        };
        // Read first: the list must not claim a newer revision than it shows.
        let revision = self.core.store.revision();
        let key = Key::new(format!("{namespaced_prefix}{name}"));
        let record = self.core.store.get(&key).await.map_err(store_error)?;
        let record = convert::records(self.resource, record.into_iter().collect()).await?.pop();
        let revision = record.as_ref().map_or(revision, |record| record.modified.max(revision));
        let records = record.into_iter().filter(|record| self.selection.matches(&record.value)).collect();
        Ok(Some((records, ListMeta { revision, ..ListMeta::default() })))
    }

    async fn by_label(&self) -> Result<Option<(Vec<Record>, ListMeta)>, ApiStatus> {
        if self.at.is_some() || self.start_after.is_some() {
            return Ok(None);
        }
        let (store, all) = (&*self.core.store, self.resource.kind.prefix(""));
        let found = self.core.indexes.lookup(store, &all, &self.prefix, self.selection.labels()).await;
        let Some(Found { records, revision, is_exact }) = found.map_err(store_error)? else { return Ok(None) };
        let records = convert::records(self.resource, records).await?;
        // Looking for the labels in the bytes again would cost more than finding the objects did.
        let is_done = is_exact && !self.selection.has_fields();
        let mut records = if is_done { records } else { self.select(records).await };
        let mut continue_token = None;
        if let Some(limit) = self.limit.filter(|limit| records.len() > *limit) {
            records.truncate(limit);
            continue_token = self.token_after(records.last(), revision);
        }
        Ok(Some((records, ListMeta { revision, continue_token, remaining: None })))
    }

    /// A page of the whole collection, out of slices that show one revision.
    async fn everything(&mut self) -> Result<ListPage, ApiStatus> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let (at, start_after) = (self.at, self.start_after.clone());
        let mut page = self.page(Some(limit.min(SLICE))).await?;
        while page.remaining > 0 && page.records.len() < limit {
            tokio::task::yield_now().await;
            self.at = Some(page.revision);
            self.start_after = page.records.last().map(|record| record.key.clone());
            match self.page(Some(SLICE.min(limit - page.records.len()))).await {
                Ok(next) => {
                    page.records.extend(next.records);
                    page.remaining = next.remaining;
                }
                // The revision went while its list was put together; nobody asked for this one.
                Err(status) if status.code == 410 && at.is_none() => {
                    (self.at, self.start_after) = (at, start_after);
                    return self.page(self.limit).await;
                }
                Err(status) => return Err(status),
            }
        }
        Ok(page)
    }

    async fn filtered(&mut self) -> Result<(Vec<Record>, ListMeta), ApiStatus> {
        let (at, start_after) = (self.at, self.start_after.clone());
        let mut selected: Vec<Record> = Vec::new();
        loop {
            let page = match self.page(Some(SLICE)).await {
                Err(status) if status.code == 410 && at.is_none() && self.at.is_some() => {
                    selected.clear();
                    (self.at, self.start_after) = (at, start_after.clone());
                    self.page(None).await?
                }
                page => page?,
            };
            let (revision, more) = (page.revision, page.remaining > 0);
            self.at = Some(revision);
            self.start_after = page.records.last().map(|record| record.key.clone()).or(self.start_after.take());
            selected.extend(self.select(page.records).await);
            let limit = self.limit.unwrap_or(usize::MAX);
            if !more || selected.len() > limit {
                let mut meta = ListMeta { revision, ..ListMeta::default() };
                if selected.len() > limit {
                    selected.truncate(limit);
                    meta.continue_token = self.token_after(selected.last(), revision);
                }
                return Ok((selected, meta));
            }
        }
    }

    /// Those that are selected.
    async fn select(&self, mut records: Vec<Record>) -> Vec<Record> {
        if records.len() <= COMPARED {
            records.retain(|record| self.selection.matches(&record.value));
            return records;
        }
        let mut selected = Vec::new();
        for (index, record) in records.into_iter().enumerate() {
            if index % COMPARED == COMPARED - 1 {
                tokio::task::yield_now().await;
            }
            if self.selection.matches(&record.value) {
                selected.push(record);
            }
        }
        selected
    }

    async fn page(&self, limit: Option<usize>) -> Result<ListPage, ApiStatus> {
        let (prefix, start_after) = (self.prefix.clone(), self.start_after.clone());
        let page = self.core.store.list(ListRequest { prefix, start_after, limit, at: self.at }).await;
        let page = page.map_err(|error| match error {
            StoreError::Compacted { .. } if self.continues => ApiStatus::expired(EXPIRED_TOKEN),
            StoreError::Compacted { .. } => ApiStatus::expired("The resourceVersion for the provided list is too old."),
            error => store_error(error),
        })?;
        Ok(ListPage { records: convert::records(self.resource, page.records).await?, ..page })
    }

    fn token_after(&self, last: Option<&Record>, revision: Revision) -> Option<String> {
        let start = last?.key.as_str().strip_prefix(self.prefix.as_str())?;
        Some(encode_token(i64::try_from(revision.0).unwrap_or(i64::MAX), start))
    }
}

/// 410 with a token that goes on at the present revision.
fn expired_token(status: &ApiStatus, token: &str, view: &View) -> Response<Body> {
    let bytes = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    let mut document = status.to_json();
    if let Ok(token) = serde_json::from_slice::<Token>(&bytes) {
        document["metadata"]["continue"] = encode_token(-1, token.start.trim_end_matches('\0')).into();
    }
    reply::document(StatusCode::GONE, view.accepted.encoding, &document)
}

fn encode_token(revision: i64, start: &str) -> String {
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: format!("{start}\0") };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("a token can always be written"))
}
