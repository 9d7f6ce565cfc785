//! Connections kept by place, for the next request to it.
//!
//! Invariant: bounded in places, and no connection stays that nobody uses.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;

use crate::connect::Connector;

/// How many places have connections kept, at most.
const MOST_PLACES: usize = 64;

/// How long a connection stays that nobody uses.
const IDLE: Duration = Duration::from_secs(90);

/// The connections of all places `P`, for requests with bodies `B`. What differs between connections belongs to the place.
pub struct Pool<P, B> {
    by_place: Mutex<HashMap<P, Connections<B>>>,
}

/// The connections of one place.
pub struct Connections<B>(HttpClient<Connector, B>);

impl<B> Clone for Connections<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<P, B> Default for Pool<P, B> {
    fn default() -> Self {
        Self { by_place: Mutex::default() }
    }
}

impl<P, B> Pool<P, B>
where
    P: Eq + Hash,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The connections of a place; a new place is reached by what `connector` makes.
    pub fn connections(
        &self,
        place: P,
        connector: impl FnOnce() -> Result<Connector, String>,
    ) -> Result<Connections<B>, String> {
        let mut by_place = self.by_place.lock();
        if let Some(known) = by_place.get(&place) {
            return Ok(known.clone());
        }
        let client = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector()?);
        if by_place.len() >= MOST_PLACES {
            by_place.clear();
        }
        by_place.insert(place, Connections(client.clone()));
        Ok(Connections(client))
    }
}

impl<B> Connections<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Sends a request with an absolute URL, over a connection that is there or a new one. The error is what lies at the
    /// bottom of it. A connection is kept once the answer has been read.
    pub async fn send(&self, request: Request<B>) -> Result<Response<Incoming>, String> {
        self.0.request(request).await.map_err(|error| innermost(&error))
    }
}

/// What lies at the bottom of an error.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
