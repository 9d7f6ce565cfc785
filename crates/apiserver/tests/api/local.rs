//! Groups that other parts of the process serve: discovery, authorization, encodings, and what the service sees.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Method, Request, Response};
use kedge_apiserver::{LocalApi, LocalHandler, LocalResource};
use kedge_meta::UserInfo;
use serde_json::{Value, json};
use tower::service_fn;

use crate::harness::Harness;

const BASE: &str = "/apis/example.test/v1beta1";

/// Answers with what it was asked, and by whom.
fn api() -> LocalApi {
    let handler = LocalHandler::new(service_fn(|request: Request<Bytes>| async move {
        let user = request.extensions().get::<UserInfo>().map(|user| user.username.clone());
        let document = json!({"kind": "Echo", "apiVersion": "example.test/v1beta1", "path": request.uri().to_string(),
            "user": user});
        let mut response = Response::new(Bytes::from(document.to_string()));
        response.headers_mut().insert("content-type", "application/json".parse().unwrap());
        Ok::<_, Infallible>(response)
    }));
    let resource = |resource, namespaced| LocalResource {
        resource,
        singular: "",
        kind: "Echo",
        namespaced,
        verbs: &["get", "list"],
    };
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "echo-reader", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["example.test"], "resources": ["pods"], "verbs": ["get", "list"]}]});
    LocalApi {
        group: "example.test",
        version: "v1beta1",
        group_priority_minimum: 100,
        version_priority: 100,
        resources: vec![resource("nodes", false), resource("pods", true)],
        objects: vec![role],
        handler,
    }
}

#[tokio::test]
async fn a_mounted_group_is_discovered_and_answers() {
    let harness = Harness::new().await;
    harness.get(BASE).await.expect(404);
    harness.server.mount(api()).await.unwrap();
    let resources = harness.get(BASE).await.expect(200);
    let names: Vec<&Value> = resources["resources"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["nodes", "pods"]);
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = harness.raw(Method::GET, "/apis", &[("accept", accept)], "").await;
    assert!(aggregated.text.contains("\"example.test\""), "{}", aggregated.text);
    let service = harness.get("/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.example.test").await.expect(200);
    assert_eq!(service["status"]["conditions"][0]["status"], "True");
    assert_eq!(service["spec"]["groupPriorityMinimum"], 100);
    let list = harness.get(&format!("{BASE}/pods?labelSelector=a%3Db")).await.expect(200);
    assert_eq!(list["path"], format!("{BASE}/pods?labelSelector=a%3Db"));
    assert_eq!(list["user"], "admin");
    let yaml = harness.raw(Method::GET, &format!("{BASE}/nodes/n"), &[("accept", "application/yaml")], "").await;
    assert!(yaml.text.contains("kind: Echo\n"), "{}", yaml.text);
    harness.get("/openapi/v2").await.expect(200);
}

#[tokio::test]
async fn a_mounted_group_sees_only_what_it_announced_and_who_may() {
    let harness = Harness::new().await;
    harness.server.mount(api()).await.unwrap();
    harness.delete(&format!("{BASE}/namespaces/default/pods/p")).await.expect(405);
    harness.get(&format!("{BASE}/pods?watch=true")).await.expect(405);
    harness.get(&format!("{BASE}/namespaces/default/pods/p/status")).await.expect(404);
    harness.get(&format!("{BASE}/namespaces/default/nodes/n")).await.expect(404);
    harness.get(&format!("{BASE}/others")).await.expect(404);
    let jane = UserInfo::authenticated("jane", ["developers"]);
    harness.get_as(jane, &format!("{BASE}/pods")).await.expect(403);
    harness.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/echo-reader").await.expect(200);
    // Mounted again, as at the next start, it leaves what is there.
    harness.server.mount(api()).await.unwrap();
    harness.get(&format!("{BASE}/nodes")).await.expect(200);
}
