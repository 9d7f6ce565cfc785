//! What a kubelet may do, by names and by what it writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use kedge_meta::UserInfo;
use kedge_pki::{LeafRequest, PendingIdentity};
use serde_json::{Value, json};

use crate::crud::config_map;
use crate::harness::{Answer, Harness, request};

const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MIRROR: &str = "kubernetes.io/config.mirror";

fn kubelet() -> UserInfo {
    UserInfo::authenticated("system:node:n1", ["system:nodes"])
}

fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
}

/// A server with a node that registered itself, and the node.
async fn registered() -> (Harness, Value) {
    let harness = Harness::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    let created = harness.call_as(kubelet(), Method::POST, NODES, node("n1")).await.expect(201);
    (harness, created)
}

async fn post(harness: &Harness, path: &str, object: Value) -> Answer {
    harness.call_as(kubelet(), Method::POST, path, object).await
}

async fn patch(harness: &Harness, path: &str, patch: Value) -> Answer {
    let headers = [("content-type", "application/merge-patch+json")];
    Answer::read(harness.send(Some(kubelet()), request(Method::PATCH, path, &headers, patch.to_string())).await).await
}

async fn delete(harness: &Harness, path: &str) -> Answer {
    harness.call_as(kubelet(), Method::DELETE, path, json!({})).await
}

/// A pod on a node.
async fn bound(harness: &Harness, name: &str, node: &str, more: Value) -> Value {
    let mut spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    harness.post(PODS, pod).await.expect(201)
}

#[tokio::test]
async fn nodes_keep_to_themselves() {
    let (harness, created) = registered().await;
    assert_eq!(created["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    let other = post(&harness, NODES, node("n2")).await;
    other.refused(403, "Forbidden", "node \"n1\" is not allowed to modify node \"n2\"");
    harness.post("/api/v1/namespaces/default/configmaps", config_map("a", json!({}))).await.expect(201);
    let map = "/api/v1/namespaces/default/configmaps/a";
    assert_eq!(harness.get_as(kubelet(), map).await.code, 403);

    let own = format!("{NODES}/n1");
    patch(&harness, &own, json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "a": "b"}}})).await.expect(200);
    let why = "is not allowed to modify labels: node-role.kubernetes.io/x";
    patch(&harness, &own, json!({"metadata": {"labels": {"node-role.kubernetes.io/x": ""}}})).await.refused(
        403,
        "Forbidden",
        why,
    );
    let why = "node \"n1\" is not allowed to modify taints";
    patch(&harness, &own, json!({"spec": {"taints": []}})).await.refused(403, "Forbidden", why);
    delete(&harness, &own).await.expect(403);
}

#[tokio::test]
async fn a_node_makes_mirrors_of_its_own_pods_alone() {
    let (harness, node) = registered().await;
    let mirror = |uid: &str, volumes: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": uid, "controller": true});
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "static-n1", "annotations": {MIRROR: "x"}, "ownerReferences": [owner]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}], "volumes": volumes}})
    };
    let uid = node["metadata"]["uid"].as_str().unwrap();
    let why = format!("node n1 UID mismatch: expected {uid} got other");
    post(&harness, PODS, mirror("other", json!([]))).await.refused(403, "Forbidden", &why);
    let secret = json!([{"name": "v", "secret": {"secretName": "s"}}]);
    let why = "node \"n1\" can not create pods that reference secrets";
    post(&harness, PODS, mirror(uid, secret)).await.refused(403, "Forbidden", why);
    let mut plain = mirror(uid, json!([]));
    plain["metadata"]["annotations"] = json!({});
    let why = "node \"n1\" can only create mirror pods";
    post(&harness, PODS, plain).await.refused(403, "Forbidden", why);
    post(&harness, PODS, mirror(uid, json!([{"name": "v", "hostPath": {"path": "/"}}]))).await.expect(201);
    delete(&harness, &format!("{PODS}/static-n1")).await.expect(200);

    bound(&harness, "theirs", "n2", json!({})).await;
    let why = "node \"n1\" can only delete pods with spec.nodeName set to itself";
    delete(&harness, &format!("{PODS}/theirs")).await.refused(403, "Forbidden", why);
}

#[tokio::test]
async fn a_node_reports_and_evicts_its_own_pods_alone() {
    let (harness, _) = registered().await;
    for (name, node) in [("own", "n1"), ("theirs", "n2")] {
        bound(&harness, name, node, json!({})).await;
    }
    let running = json!({"status": {"phase": "Running"}});
    patch(&harness, &format!("{PODS}/own/status"), running.clone()).await.expect(200);
    let why = "node \"n1\" can only update pod status for pods with spec.nodeName set to itself";
    patch(&harness, &format!("{PODS}/theirs/status"), running).await.refused(403, "Forbidden", why);
    for (change, why) in [
        (json!({"metadata": {"labels": {"app": "web"}}}), "node \"n1\" cannot update labels through pod status"),
        (
            json!({"status": {"resourceClaimStatuses": [{"name": "a", "resourceClaimName": "b"}]}}),
            "node \"n1\" cannot update resource claim statues",
        ),
    ] {
        patch(&harness, &format!("{PODS}/own/status"), change).await.refused(403, "Forbidden", why);
    }
    let eviction = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
    let why = "node n1 can only evict pods with spec.nodeName set to itself";
    post(&harness, &format!("{PODS}/theirs/eviction"), eviction("theirs")).await.refused(403, "Forbidden", why);
    post(&harness, &format!("{PODS}/none/eviction"), eviction("none")).await.expect(404);
    post(&harness, &format!("{PODS}/own/eviction"), eviction("own")).await.expect(201);
}

#[tokio::test]
async fn a_node_asks_for_tokens_that_its_pods_want() {
    let (harness, _) = registered().await;
    let driver = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": "store.example"},
        "spec": {"tokenRequests": [{"audience": "store"}]}});
    harness.post("/apis/storage.k8s.io/v1/csidrivers", driver).await.expect(201);
    let volumes = json!({"volumes": [
        {"name": "a", "projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "t"}}]}},
        {"name": "b", "csi": {"driver": "store.example"}}]});
    let pod = bound(&harness, "web", "n1", volumes).await;
    let ask = async |audiences: Value, uid: &Value| {
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid});
        let spec = json!({"audiences": audiences, "boundObjectRef": reference});
        let wanted = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        post(&harness, "/api/v1/namespaces/default/serviceaccounts/default/token", wanted).await
    };
    let uid = &pod["metadata"]["uid"];
    for audiences in [json!([]), json!(["vault"]), json!(["store"])] {
        ask(audiences, uid).await.expect(201);
    }
    let why = "node requested token with a pod binding without a uid";
    ask(json!([]), &json!("")).await.refused(403, "Forbidden", why);
    let why = "node may only request 0 or 1 audiences";
    ask(json!(["vault", "store"]), uid).await.refused(403, "Forbidden", why);
    let why = "audience \"other\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for \
               this audience";
    ask(json!(["other"]), uid).await.refused(403, "Forbidden", why);

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules =
        json!([{"apiGroups": [""], "resources": ["other"], "verbs": ["request-serviceaccounts-token-audience"]}]);
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "ask"},
        "rules": rules});
    harness.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "ask"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:nodes"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "ask"}});
    harness.post(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
    ask(json!(["other"]), uid).await.expect(201);

    harness.delete("/apis/storage.k8s.io/v1/csidrivers/store.example").await.expect(200);
    let why = "error validating audience \"store\": csidrivers.storage.k8s.io \"store.example\" not found";
    ask(json!(["store"]), uid).await.refused(403, "Forbidden", why);
}

#[tokio::test]
async fn what_devices_and_volumes_a_node_sees_are_its_own() {
    let (harness, _) = registered().await;
    let slices = "/apis/resource.k8s.io/v1/resourceslices";
    let slice = |name: &str, place: Value| {
        let mut spec = json!({"driver": "d.example", "pool": {"name": name, "generation": 1, "resourceSliceCount": 1}});
        spec.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec})
    };
    post(&harness, slices, slice("own", json!({"nodeName": "n1"}))).await.expect(201);
    let why = "can only create ResourceSlice with the same NodeName as the requesting node";
    for place in [json!({"nodeName": "n2"}), json!({"allNodes": true})] {
        post(&harness, slices, slice("theirs", place)).await.refused(403, "Forbidden", why);
    }
    harness.post(slices, slice("theirs", json!({"nodeName": "n2"}))).await.expect(201);
    let unrelated = "no relationship found between node 'n1' and this object";
    harness.get_as(kubelet(), &format!("{slices}/own")).await.expect(200);
    harness.get_as(kubelet(), &format!("{slices}/theirs")).await.refused(403, "Forbidden", unrelated);
    delete(&harness, &format!("{slices}/theirs")).await.refused(403, "Forbidden", unrelated);
    delete(&harness, &format!("{slices}/own")).await.expect(200);

    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    for (name, node) in [("own", "n1"), ("theirs", "n2")] {
        let spec = json!({"attacher": "a.example", "nodeName": node, "source": {"persistentVolumeName": name}});
        let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment",
            "metadata": {"name": name}, "spec": spec});
        harness.post(attachments, attachment).await.expect(201);
    }
    harness.get_as(kubelet(), &format!("{attachments}/own")).await.expect(200);
    harness.get_as(kubelet(), &format!("{attachments}/theirs")).await.refused(403, "Forbidden", unrelated);
}

#[tokio::test]
async fn a_node_tells_the_size_of_its_claims_and_nothing_else() {
    let (harness, _) = registered().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    harness.post(claims, claim).await.expect(201);
    let status = format!("{claims}/data/status");
    let grown = json!({"status": {"capacity": {"storage": "1Gi"}}});
    patch(&harness, &status, grown.clone()).await.expect(403);
    bound(&harness, "web", "n1", json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}))
        .await;
    patch(&harness, &status, grown).await.expect(200);
    let why = "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions: metadata";
    patch(&harness, &status, json!({"metadata": {"labels": {"a": "b"}}})).await.refused(403, "Forbidden", why);
}

#[tokio::test]
async fn a_node_asks_for_certificates_in_its_own_name() {
    let (harness, _) = registered().await;
    let ask = async |name: &str, signer: &str| {
        let pem = PendingIdentity::new(&LeafRequest::client(name, &["system:nodes"])).unwrap().request_pem;
        let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"},
            "spec": {"signerName": signer, "request": STANDARD.encode(pem), "usages": ["client auth"]}});
        post(&harness, "/apis/certificates.k8s.io/v1/certificatesigningrequests", object).await
    };
    let signer = "kubernetes.io/kube-apiserver-client-kubelet";
    ask("system:node:n1", signer).await.expect(201);
    let why = "can only create a node CSR with CN=system:node:n1";
    ask("system:node:n2", signer).await.refused(403, "Forbidden", why);
    ask("anybody", "example.com/signer").await.expect(201);
}
