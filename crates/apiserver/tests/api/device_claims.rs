//! Claims of devices: what they may ask for, and who may write which part of their status.

use std::collections::BTreeMap;

use http::Method;
use kedge_meta::UserInfo;
use serde_json::{Value, json};

use crate::harness::{Answer, Harness, request};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

#[tokio::test]
async fn admin_access_to_devices_needs_a_label() {
    let harness = Harness::new().await;
    let asking = |access: bool| {
        let exactly = json!({"deviceClassName": "any", "adminAccess": access});
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"generateName": "c-"},
            "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}})
    };
    harness.post(CLAIMS, asking(false)).await.expect(201);
    let why = "spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the \
               `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    harness.post(CLAIMS, asking(true)).await.refused(422, "Invalid", why);
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    harness.patch("/api/v1/namespaces/default", label).await.expect(200);
    let claim = harness.post(CLAIMS, asking(true)).await.expect(201);

    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": null}}});
    harness.patch("/api/v1/namespaces/default", label).await.expect(200);
    let result = json!({"request": "r", "driver": "d.io", "pool": "p", "device": "gpu-0", "adminAccess": true});
    let given = json!({"status": {"allocation": {"devices": {"results": [result]}}}});
    let path = format!("{CLAIMS}/{}/status", claim["metadata"]["name"].as_str().unwrap());
    let why = "status.allocation.devices.results[0].adminAccess: Forbidden: admin access to devices requires the \
               `resource.kubernetes.io/admin-access: true` label on the containing namespace";
    harness.patch(&path, given).await.refused(422, "Invalid", why);
}

#[tokio::test]
async fn selectors_are_compiled_when_they_are_written() {
    let harness = Harness::new().await;
    let classes = "/apis/resource.k8s.io/v1/deviceclasses";
    let class = |expression: &str| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "gpu"},
            "spec": {"selectors": [{"cel": {"expression": expression}}]}})
    };
    let why = "spec.selectors[0].cel.expression: Invalid value: \"device.drive\": compilation failed: ERROR: \
               <input>:1:7: undefined field 'drive'";
    harness.post(classes, class("device.drive")).await.refused(422, "Invalid", why);
    harness.post(classes, class("device.driver == 'd.io'")).await.expect(201);
    let exactly = json!({"deviceClassName": "gpu", "selectors": [{"cel": {"expression": "1"}}]});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}});
    let why = "spec.devices.requests[0].exactly.selectors[0].cel.expression: Invalid value: \"1\": must evaluate to bool or \
               the unknown type, not int";
    harness.post(CLAIMS, claim).await.refused(422, "Invalid", why);
}

/// Lets `user` do something with resources of claims, everywhere.
async fn grant(harness: &Harness, name: &str, user: &str, rule: Value) {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [rule]});
    harness.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}});
    harness.post(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
}

fn rule(resource: &str, verbs: &[&str]) -> Value {
    json!({"apiGroups": ["resource.k8s.io"], "resources": [resource], "verbs": verbs})
}

async fn patch_status(harness: &Harness, user: UserInfo, status: Value) -> Answer {
    let headers = [("content-type", "application/merge-patch+json")];
    let body = json!({"status": status}).to_string();
    let path = format!("{CLAIMS}/c/status");
    Answer::read(harness.send(Some(user), request(Method::PATCH, &path, &headers, body)).await).await
}

#[tokio::test]
async fn allocations_are_for_schedulers_and_reports_for_drivers() {
    let harness = Harness::new().await;
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}});
    harness.post(CLAIMS, claim).await.expect(201);
    let account = "system:serviceaccount:default:driver";
    for (name, user) in [("dora", "dora"), ("driver", account)] {
        grant(&harness, name, user, rule("resourceclaims/status", &["update", "patch"])).await;
    }
    let dora = || UserInfo::authenticated("dora", []);
    let device = json!({"driver": "d.io", "pool": "p", "device": "gpu-0"});
    let mut result = device.clone();
    result["request"] = json!("r");
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["n1"]});
    let allocation = json!({"devices": {"results": [result]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]}});

    let why = "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires \
               resource=\"resourceclaims/binding\", verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: \
               User \"dora\" cannot patch resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the \
               cluster scope";
    patch_status(&harness, dora(), json!({"allocation": allocation})).await.refused(422, "Invalid", why);
    grant(&harness, "bind", "dora", rule("resourceclaims/binding", &["patch"])).await;
    patch_status(&harness, dora(), json!({"allocation": allocation})).await.expect(200);

    let why = "status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", \
               verb=\"[arbitrary-node:patch]\" permission: resourceclaims.resource.k8s.io \"d.io\" is forbidden";
    patch_status(&harness, dora(), json!({"devices": [device]})).await.refused(422, "Invalid", why);

    grant(&harness, "report", account, rule("resourceclaims/driver", &["associated-node:patch"])).await;
    let on = |node: &str| {
        let extra = BTreeMap::from([("authentication.kubernetes.io/node-name".to_owned(), vec![node.to_owned()])]);
        UserInfo { extra, ..UserInfo::authenticated(account, []) }
    };
    patch_status(&harness, on("n2"), json!({"devices": [device]})).await.expect(422);
    patch_status(&harness, on("n1"), json!({"devices": [device]})).await.expect(200);
    let given_back = patch_status(&harness, dora(), json!({"allocation": null})).await.expect(200);
    assert_eq!(given_back.get("status").and_then(|status| status.get("devices")), None);
}
