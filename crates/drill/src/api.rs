//! The API as drills use it: objects of any kind by their names.
//!
//! Invariant: what a drill makes carries the mark of its run, and only that is deleted again.

use std::time::Duration;

use http::{Method, Request};
use kedge_client::Client;
use serde_json::{Value, json};

use crate::action::ObjectRef;
use crate::error::Error;

/// The namespace that scenarios keep their objects in.
pub(crate) const NAMESPACE: &str = "kedge-drill";
/// The label of what a drill made; its value is the run.
pub(crate) const MARK: &str = "kedge.dev/drill";
const PATIENCE: Duration = Duration::from_secs(15);
const MERGE: &str = "application/merge-patch+json";

/// A way to the API.
pub(crate) struct Api {
    client: Client,
}

impl Api {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Whether it is ready.
    pub(crate) async fn answers(&self) -> bool {
        let request = Request::get("/readyz").body(Vec::new());
        let Ok(request) = request else { return false };
        matches!(tokio::time::timeout(PATIENCE, self.client.request_text(request)).await, Ok(Ok(_)))
    }

    /// The object; `None` where it is not there.
    pub(crate) async fn get(&self, object: &ObjectRef) -> Result<Option<Value>, Error> {
        let Some(path) = self.path(object, true).await? else { return Ok(None) };
        self.call(Method::GET, &path, None, "").await
    }

    /// The items of a list.
    pub(crate) async fn list(&self, path: &str) -> Result<Vec<Value>, Error> {
        let list = self.call(Method::GET, path, None, "").await?.unwrap_or_default();
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Makes an object with the mark of a run.
    pub(crate) async fn create(&self, object: &Value, run: &str) -> Result<Value, Error> {
        let mut marked = object.clone();
        marked["metadata"]["labels"][MARK] = Value::from(run);
        self.post(&marked).await
    }

    /// Makes an object again; one that is there is left alone.
    pub(crate) async fn create_if_absent(&self, object: &Value) -> Result<(), Error> {
        match self.get(&reference(object)).await? {
            Some(_) => Ok(()),
            None => self.post(object).await.map(|_| ()),
        }
    }

    /// Changes fields.
    pub(crate) async fn merge(&self, object: &ObjectRef, patch: &Value) -> Result<(), Error> {
        let path = self.needed_path(object, true).await?;
        self.call(Method::PATCH, &path, Some(patch), MERGE).await.map(|_| ())
    }

    /// Deletes an object; one that is not there is no error.
    pub(crate) async fn delete(&self, object: &ObjectRef) -> Result<(), Error> {
        let Some(path) = self.path(object, true).await? else { return Ok(()) };
        let options = json!({"propagationPolicy": "Background", "gracePeriodSeconds": 0});
        self.call(Method::DELETE, &path, Some(&options), "application/json").await.map(|_| ())
    }

    async fn post(&self, object: &Value) -> Result<Value, Error> {
        let path = self.needed_path(&reference(object), false).await?;
        match self.call(Method::POST, &path, Some(object), "application/json").await? {
            Some(made) => Ok(made),
            None => Err(Error::Api { what: format!("POST {path}"), why: "not found".to_owned() }),
        }
    }

    async fn needed_path(&self, object: &ObjectRef, with_name: bool) -> Result<String, Error> {
        let missing =
            || Error::Api { what: object.api_version.clone(), why: format!("it has no kind {}", object.kind) };
        self.path(object, with_name).await?.ok_or_else(missing)
    }

    /// Where an object or its list lies; `None` where the server does not know its kind.
    async fn path(&self, object: &ObjectRef, with_name: bool) -> Result<Option<String>, Error> {
        let root = match object.api_version.contains('/') {
            true => format!("/apis/{}", object.api_version),
            false => format!("/api/{}", object.api_version),
        };
        let Some(known) = self.call(Method::GET, &root, None, "").await? else { return Ok(None) };
        let resources = known["resources"].as_array().into_iter().flatten();
        let resource = resources
            .filter(|resource| resource["kind"] == object.kind.as_str())
            .find_map(|resource| resource["name"].as_str().filter(|name| !name.contains('/')));
        let Some(plural) = resource else { return Ok(None) };
        let list = match object.namespace.as_str() {
            "" => format!("{root}/{plural}"),
            namespace => format!("{root}/namespaces/{namespace}/{plural}"),
        };
        Ok(Some(if with_name { format!("{list}/{}", object.name) } else { list }))
    }

    /// The answer; `None` where it is 404.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        content_type: &str,
    ) -> Result<Option<Value>, Error> {
        let what = format!("{method} {path}");
        let failed = |why: String| Error::Api { what: what.clone(), why };
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", content_type);
        }
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = request.body(bytes).map_err(|error| failed(error.to_string()))?;
        let answer = tokio::time::timeout(PATIENCE, self.client.request::<Value>(request)).await;
        match answer.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))? {
            Ok(value) => Ok(Some(value)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// The name of a whole object.
pub(crate) fn reference(object: &Value) -> ObjectRef {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ObjectRef {
        api_version: text(&object["apiVersion"]),
        kind: text(&object["kind"]),
        namespace: text(&object["metadata"]["namespace"]),
        name: text(&object["metadata"]["name"]),
    }
}

/// An object without what the server writes, so that it can be made again.
pub(crate) fn as_written(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation", "selfLink"] {
            metadata.remove(field);
        }
    }
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    object
}
