//! A client that tells of each of its requests.
//!
//! Invariant: requests, answers and errors pass unchanged.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use kube::Client;
use kube::client::Body;
use tower::service_fn;

/// A request that was answered, or has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The status of the answer; `None` where there was none.
    pub code: Option<StatusCode>,
    /// Until the head of the answer, or the failure.
    pub took: Duration,
}

/// The same client, telling `observer` of each request.
pub fn observed(client: Client, observer: impl Fn(&Request) + Send + Sync + 'static) -> Client {
    let namespace = client.default_namespace().to_owned();
    let observer = Arc::new(observer);
    // The client inside waits itself until it is ready.
    let observed = service_fn(move |request: http::Request<Body>| {
        let (client, observer) = (client.clone(), Arc::clone(&observer));
        async move {
            let (method, began) = (request.method().clone(), Instant::now());
            let answer = client.send(request).await;
            let code = answer.as_ref().ok().map(http::Response::status);
            observer(&Request { method, code, took: began.elapsed() });
            answer
        }
    });
    Client::new(observed, namespace)
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn answers_and_failures_are_told_of() {
        let service = tower::service_fn(|request: http::Request<Body>| async move {
            match request.uri().path() {
                "/fails" => Err(std::io::Error::other("no")),
                _ => Ok(http::Response::builder().status(404).body(Body::empty()).expect("it is one")),
            }
        });
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = seen.clone();
        let client = observed(crate::client_from_service(service), move |request| told.lock().push(request.clone()));
        for path in ["/absent", "/fails"] {
            let request = http::Request::get(path).body(Vec::new()).unwrap();
            assert!(client.request_text(request).await.is_err());
        }
        let codes: Vec<_> = seen.lock().iter().map(|request| request.code.map(|code| code.as_u16())).collect();
        assert_eq!(codes, [Some(404), None]);
    }
}
