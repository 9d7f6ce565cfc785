//! A client that speaks as a service account whose tokens somebody else may ask for, as upstream's controllers do with
//! `--use-service-account-credentials`.
//!
//! Invariant: a token is asked for again before it expires, and once more where the server refuses it; the account is made
//! where it is not there.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{AUTHORIZATION, HeaderValue};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::client::Body;
use kube::{Client, Error};
use tokio::sync::Mutex;
use tower::Service;

/// How long a token is asked for; upstream's.
const LIFETIME: i64 = 3600;
/// A new one is asked for when less is left.
const RENEW_BEFORE: Duration = Duration::from_secs(600);

/// A client that sends over `bare`, which shows no credentials, with tokens that `issuer` asks for.
pub fn service_account_client(issuer: Client, bare: Client, namespace: &str, account: &str) -> Client {
    let tokens =
        Tokens { issuer, namespace: namespace.to_owned(), account: account.to_owned(), held: Mutex::default() };
    Client::new(WithToken { bare, tokens: Arc::new(tokens) }, namespace)
}

#[derive(Clone)]
struct WithToken {
    bare: Client,
    tokens: Arc<Tokens>,
}

struct Tokens {
    issuer: Client,
    namespace: String,
    account: String,
    held: Mutex<Option<(HeaderValue, Timestamp)>>,
}

impl Tokens {
    /// The header to send; `refused` is the one that the server does not take any more.
    async fn header(&self, refused: Option<&HeaderValue>) -> Result<HeaderValue, Error> {
        let mut held = self.held.lock().await;
        let soon = Timestamp::now() + RENEW_BEFORE;
        if let Some((header, expires)) = held.as_ref().filter(|(header, _)| Some(header) != refused)
            && *expires > soon
        {
            return Ok(header.clone());
        }
        let fresh = self.ask().await?;
        *held = Some(fresh.clone());
        Ok(fresh.0)
    }

    async fn ask(&self) -> Result<(HeaderValue, Timestamp), Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.issuer.clone(), &self.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(LIFETIME), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let mut answer = accounts.create_token_request(&self.account, &PostParams::default(), &request).await;
        if matches!(&answer, Err(Error::Api(status)) if status.code == 404) {
            self.make_account(&accounts).await?;
            answer = accounts.create_token_request(&self.account, &PostParams::default(), &request).await;
        }
        let status = answer?.status.unwrap_or_default();
        let token = status.token.unwrap_or_default();
        let header = HeaderValue::try_from(format!("Bearer {token}"));
        let header = header.map_err(|error| Error::HttpError(error.into()))?;
        Ok((header, status.expiration_timestamp.map_or(Timestamp::UNIX_EPOCH, |expires| expires.0)))
    }

    async fn make_account(&self, accounts: &Api<ServiceAccount>) -> Result<(), Error> {
        let metadata = ObjectMeta { name: Some(self.account.clone()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match accounts.create(&PostParams::default(), &account).await {
            Ok(_) => Ok(()),
            // Somebody else was faster.
            Err(Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Service<http::Request<Body>> for WithToken {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The client inside waits itself until it is ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let Self { bare, tokens } = self.clone();
        async move {
            let header = tokens.header(None).await?;
            request.headers_mut().insert(AUTHORIZATION, header.clone());
            let answer = bare.send(request).await?;
            if answer.status() == http::StatusCode::UNAUTHORIZED {
                // Who sent it tries again, with a token that is good.
                tokens.header(Some(&header)).await?;
            }
            Ok(answer)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex as PlainMutex;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_account_is_made_and_a_refused_token_replaced() {
        let asked = Arc::new(PlainMutex::new(Vec::new()));
        let seen = asked.clone();
        let issuer = tower::service_fn(move |request: http::Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri().path());
            let mut seen = seen.lock();
            let known = seen.iter().any(|line: &String| line.ends_with("/serviceaccounts"));
            seen.push(line.clone());
            let tokens = seen.iter().filter(|line| line.ends_with("/token")).count();
            let (code, body) = match (line.ends_with("/token"), known) {
                (true, false) => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
                    "message": "no", "metadata": {}}),
                ),
                (true, true) => (
                    201,
                    json!({"metadata": {}, "spec": {"audiences": []},
                    "status": {"token": format!("t{tokens}"), "expirationTimestamp": "2999-01-01T00:00:00Z"}}),
                ),
                _ => (201, json!({"metadata": {"name": "c"}})),
            };
            let answer = http::Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
            async move { Ok::<_, std::convert::Infallible>(answer.expect("it is one")) }
        });
        let shown = Arc::new(PlainMutex::new(Vec::new()));
        let headers = shown.clone();
        let bare = tower::service_fn(move |request: http::Request<Body>| {
            let header = request.headers()[AUTHORIZATION].to_str().expect("text").to_owned();
            let code = if header == "Bearer t2" { 401 } else { 200 };
            headers.lock().push(header);
            let answer = http::Response::builder().status(code).body(Body::empty());
            async move { Ok::<_, std::convert::Infallible>(answer.expect("it is one")) }
        });
        let (issuer, bare) = (crate::client_from_service(issuer), crate::client_from_service(bare));
        let client = service_account_client(issuer, bare, "kube-system", "c");
        for _ in 0..3 {
            let request = http::Request::get("/x").body(Body::empty()).unwrap();
            client.send(request).await.unwrap();
        }
        assert_eq!(*shown.lock(), ["Bearer t2", "Bearer t3", "Bearer t3"]);
        assert_eq!(asked.lock().len(), 4, "{:?}", asked.lock());
    }
}
