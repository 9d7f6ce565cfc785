//! What the conformance suite asks of every kind of `storage.k8s.io` and `resource.k8s.io`, of the kinds of nodes and
//! their pods, of those of the network and of workloads, and of the status of those that have one: create, read, list,
//! watch, patch, apply, update, delete, delete many.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Events, Harness};

/// A kind and an object of it.
struct Case {
    group: &'static str,
    resource: &'static str,
    kind: &'static str,
    namespaced: bool,
    body: Value,
    /// What the status is patched with.
    status: Option<Value>,
    /// Of the objects; some kinds are particular about them.
    names: [&'static str; 3],
}

impl Case {
    fn new(group: &'static str, (resource, kind): (&'static str, &'static str), body: Value) -> Self {
        let names = ["one", "two", "three"];
        Self { group, resource, kind, namespaced: false, body, status: None, names }
    }

    fn in_namespace(self) -> Self {
        Self { namespaced: true, ..self }
    }

    fn with_status(self, status: Value) -> Self {
        Self { status: Some(status), ..self }
    }

    fn named(self, names: [&'static str; 3]) -> Self {
        Self { names, ..self }
    }

    fn version(&self) -> String {
        if self.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", self.group) }
    }

    /// The path of the group's version.
    fn root(&self) -> String {
        format!("/{}/{}", if self.group.is_empty() { "api" } else { "apis" }, self.version())
    }

    fn collection(&self) -> String {
        let namespace = if self.namespaced { "namespaces/default/" } else { "" };
        format!("{}/{namespace}{}", self.root(), self.resource)
    }

    /// The resource as errors name it.
    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_owned() } else { format!("{}.{}", self.resource, self.group) }
    }

    fn object(&self, name: &str, label: &str) -> Value {
        let mut object = self.body.clone();
        object["apiVersion"] = json!(self.version());
        object["kind"] = json!(self.kind);
        object["metadata"] = json!({"name": name, "labels": {"test": label}});
        object
    }
}

fn cases() -> Vec<Case> {
    const STORAGE: &str = "storage.k8s.io";
    const RESOURCE: &str = "resource.k8s.io";
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "example.com"}});
    let claim = json!({"spec": {"devices": {"requests": [request]}}});
    let allocation = json!({"allocation": {"devices": {"results": [
        {"request": "gpu", "driver": "d.example.com", "pool": "p", "device": "gpu-0"}]}}});
    let source = json!({"persistentVolumeName": "pv"});
    vec![
        Case::new(STORAGE, ("csidrivers", "CSIDriver"), json!({"spec": {}})),
        Case::new(STORAGE, ("csinodes", "CSINode"), json!({"spec": {"drivers": []}})),
        Case::new(
            STORAGE,
            ("csistoragecapacities", "CSIStorageCapacity"),
            json!({"storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}}),
        )
        .in_namespace(),
        Case::new(STORAGE, ("storageclasses", "StorageClass"), json!({"provisioner": "example.com/p"})),
        Case::new(
            STORAGE,
            ("volumeattachments", "VolumeAttachment"),
            json!({"spec": {"attacher": "d.example.com", "nodeName": "node-1", "source": source}}),
        )
        .with_status(json!({"attached": true})),
        Case::new(
            STORAGE,
            ("volumeattributesclasses", "VolumeAttributesClass"),
            json!({"driverName": "d.example.com", "parameters": {"iops": "100"}}),
        ),
        Case::new(RESOURCE, ("deviceclasses", "DeviceClass"), json!({"spec": {}})),
        Case::new(RESOURCE, ("resourceclaims", "ResourceClaim"), claim.clone()).in_namespace().with_status(allocation),
        Case::new(RESOURCE, ("resourceclaimtemplates", "ResourceClaimTemplate"), json!({"spec": claim})).in_namespace(),
        Case::new(
            RESOURCE,
            ("resourceslices", "ResourceSlice"),
            json!({"spec": {"driver": "d.example.com", "nodeName": "node-1",
                            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        ),
    ]
}

/// The kinds of nodes and of what pods are made from.
fn cases_of_nodes() -> Vec<Case> {
    let template = json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "m"}]});
    vec![
        Case::new("", ("configmaps", "ConfigMap"), json!({"data": {"key": "value"}})).in_namespace(),
        Case::new("", ("secrets", "Secret"), json!({"type": "Opaque", "data": {"key": "dmFsdWU="}})).in_namespace(),
        Case::new("", ("podtemplates", "PodTemplate"), json!({"template": template})).in_namespace(),
        Case::new("", ("nodes", "Node"), json!({"spec": {"unschedulable": true}})).with_status(ready),
        Case::new(
            "coordination.k8s.io",
            ("leases", "Lease"),
            json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 30, "leaseTransitions": 0,
                            "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:05.000000Z"}}),
        )
        .in_namespace(),
        Case::new(
            "node.k8s.io",
            ("runtimeclasses", "RuntimeClass"),
            json!({"handler": "runc", "scheduling": {"nodeSelector": {"k": "v"}}}),
        ),
    ]
}

/// The kinds of Services and what leads to them.
fn cases_of_the_network() -> Vec<Case> {
    const NETWORKING: &str = "networking.k8s.io";
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let at = json!([{"ip": "192.0.2.9"}]);
    vec![
        Case::new("", ("services", "Service"), json!({"spec": {"ports": [{"port": 80}]}}))
            .in_namespace()
            .with_status(json!({"loadBalancer": {"ingress": at}})),
        Case::new("", ("endpoints", "Endpoints"), json!({"subsets": [{"addresses": at, "ports": [{"port": 80}]}]}))
            .in_namespace(),
        Case::new(
            "discovery.k8s.io",
            ("endpointslices", "EndpointSlice"),
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.9"]}], "ports": [{"port": 80}]}),
        )
        .in_namespace(),
        Case::new(NETWORKING, ("ingresses", "Ingress"), json!({"spec": {"defaultBackend": backend}}))
            .in_namespace()
            .with_status(json!({"loadBalancer": {"ingress": at}})),
        Case::new(NETWORKING, ("ingressclasses", "IngressClass"), json!({"spec": {"controller": "example.com/c"}})),
        Case::new(NETWORKING, ("servicecidrs", "ServiceCIDR"), json!({"spec": {"cidrs": ["10.99.0.0/24"]}}))
            .with_status(json!({"conditions": [{"type": "Ready", "status": "False", "reason": "R", "message": "m",
                                   "lastTransitionTime": "2026-01-01T00:00:00Z"}]})),
        Case::new(
            NETWORKING,
            ("ipaddresses", "IPAddress"),
            json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}}),
        )
        .named(["192.0.2.7", "192.0.2.8", "192.0.2.9"]),
    ]
}

/// The kinds of workloads, and what bounds them.
fn cases_of_workloads() -> Vec<Case> {
    let labels = json!({"app": "x"});
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]});
    let template = json!({"metadata": {"labels": labels}, "spec": spec("Always")});
    let once = json!({"spec": spec("Never")});
    let selecting = json!({"selector": {"matchLabels": labels}, "template": template});
    let condition = json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from a test"});
    let told = json!({"conditions": [condition]});
    let pdb = json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}});
    let job = json!({"spec": {"template": once}});
    let cron = json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": once}}}});
    let range = json!({"spec": {"limits": [{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"}}]}});
    let apps = |resource, kind| Case::new("apps", (resource, kind), json!({"spec": selecting})).in_namespace();
    vec![
        apps("deployments", "Deployment").with_status(told.clone()),
        apps("replicasets", "ReplicaSet").with_status(told.clone()),
        apps("daemonsets", "DaemonSet").with_status(told.clone()),
        apps("statefulsets", "StatefulSet").with_status(told.clone()),
        Case::new("apps", ("controllerrevisions", "ControllerRevision"), json!({"data": {"a": 1}, "revision": 1}))
            .in_namespace(),
        Case::new("", ("replicationcontrollers", "ReplicationController"), json!({"spec": {"template": template}}))
            .in_namespace()
            .with_status(told),
        Case::new("batch", ("jobs", "Job"), job).in_namespace().with_status(json!({"active": 1})),
        Case::new("batch", ("cronjobs", "CronJob"), cron)
            .in_namespace()
            .with_status(json!({"lastScheduleTime": "2026-01-01T00:00:00Z"})),
        Case::new("policy", ("poddisruptionbudgets", "PodDisruptionBudget"), pdb)
            .in_namespace()
            .with_status(json!({"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2})),
        Case::new("", ("limitranges", "LimitRange"), range).in_namespace(),
        Case::new("scheduling.k8s.io", ("priorityclasses", "PriorityClass"), json!({"value": 7})),
    ]
}

#[tokio::test]
async fn every_kind_of_the_network_lives_a_whole_life() {
    let harness = Harness::new().await;
    for case in cases_of_the_network() {
        is_discovered(&harness, &case).await;
        lives(&harness, &case).await;
        goes_with_many(&harness, &case).await;
    }
}

#[tokio::test]
async fn every_kind_of_workloads_lives_a_whole_life() {
    let harness = Harness::new().await;
    for case in cases_of_workloads() {
        is_discovered(&harness, &case).await;
        lives(&harness, &case).await;
        goes_with_many(&harness, &case).await;
    }
}

#[tokio::test]
async fn a_priority_class_changes_in_its_words_only() {
    let harness = Harness::new().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |value: i64, description: &str| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "p"},
            "value": value, "description": description})
    };
    harness.post(classes, class(7, "")).await.expect(201);
    let one = format!("{classes}/p");
    assert_eq!(harness.patch(&one, json!({"value": 70})).await.code, 422);
    assert_eq!(harness.put(&one, class(70, "")).await.code, 422);
    harness.patch(&one, json!({"description": "patched"})).await.expect(200);
    let updated = harness.put(&one, class(7, "updated")).await.expect(200);
    assert_eq!((&updated["value"], &updated["description"]), (&json!(7), &json!("updated")));
}

#[tokio::test]
async fn every_kind_of_nodes_and_pods_lives_a_whole_life() {
    let harness = Harness::new().await;
    for case in cases_of_nodes() {
        is_discovered(&harness, &case).await;
        lives(&harness, &case).await;
        goes_with_many(&harness, &case).await;
    }
}

#[tokio::test]
async fn the_content_of_small_objects_changes_as_it_is_asked_to() {
    let harness = Harness::new().await;
    let changes = [
        (0, json!({"data": {"key": "patched"}}), "/data/key", json!("put")),
        (1, json!({"data": {"key": "cGF0Y2hlZA=="}}), "/data/key", json!("cHV0")),
        (4, json!({"spec": {"holderIdentity": "patched"}}), "/spec/leaseDurationSeconds", json!(60)),
    ];
    for (index, patch, pointer, value) in changes {
        let case = &cases_of_nodes()[index];
        let one = format!("{}/one", case.collection());
        harness.post(&case.collection(), case.object("one", "a")).await.expect(201);
        let patched = harness.patch(&one, patch.clone()).await.expect(200);
        for (field, inner) in patch.as_object().unwrap() {
            for (key, wanted) in inner.as_object().unwrap() {
                assert_eq!(patched[field][key], *wanted, "{}", case.resource);
            }
        }
        let mut changed = patched;
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        harness.put(&one, changed).await.expect(200);
        assert_eq!(harness.get(&one).await.expect(200).pointer(pointer), Some(&value), "{}", case.resource);
    }
}

#[tokio::test]
async fn every_kind_of_storage_and_devices_lives_a_whole_life() {
    let harness = Harness::new().await;
    for case in cases() {
        is_discovered(&harness, &case).await;
        lives(&harness, &case).await;
        goes_with_many(&harness, &case).await;
    }
}

async fn is_discovered(harness: &Harness, case: &Case) {
    if case.group.is_empty() {
        assert_eq!(harness.get("/api").await.expect(200)["versions"], json!(["v1"]));
    } else {
        let groups = harness.get("/apis").await.expect(200);
        let groups = groups["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["name"] == case.group).unwrap();
        let versions = group["versions"].as_array().unwrap();
        assert!(versions.iter().any(|version| version["version"] == "v1"), "{group}");
    }
    let resources = harness.get(&case.root()).await.expect(200);
    let resources = resources["resources"].as_array().unwrap();
    let verbs = |name: &str| {
        let found = resources.iter().find(|resource| resource["name"] == name);
        found.map(|resource| resource["verbs"].clone())
    };
    let all = json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]);
    assert_eq!(verbs(case.resource), Some(all), "{}", case.resource);
    let status = verbs(&format!("{}/status", case.resource));
    assert_eq!(status, case.status.as_ref().map(|_| json!(["get", "patch", "update"])), "{}", case.resource);
}

async fn lives(harness: &Harness, case: &Case) {
    let (collection, name) = (case.collection(), case.names[0]);
    let one = format!("{collection}/{name}");
    let created = harness.post(&collection, case.object(name, "a")).await.expect(201);
    assert_eq!(harness.get(&one).await.expect(200), created);
    let version = created["metadata"]["resourceVersion"].as_str().unwrap();
    let mut events = Events::open(harness, &format!("{collection}?watch=true&resourceVersion={version}")).await;

    let patched = harness.patch(&one, json!({"metadata": {"labels": {"patched": "true"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["labels"], json!({"test": "a", "patched": "true"}));
    let applied = json!({"apiVersion": case.version(), "kind": case.kind,
                         "metadata": {"name": name, "labels": {"applied": "true"}}});
    let headers = [("content-type", "application/apply-patch+yaml")];
    let path = format!("{one}?fieldManager=test&force=true");
    let applied = harness.raw(Method::PATCH, &path, &headers, applied.to_string()).await.expect(200);
    assert_eq!(applied["metadata"]["labels"]["applied"], "true");
    let mut changed = applied;
    changed["metadata"]["labels"]["updated"] = json!("true");
    let updated = harness.put(&one, changed).await.expect(200);
    assert_eq!(updated["metadata"]["uid"], created["metadata"]["uid"]);
    if let Some(status) = &case.status {
        has_status(harness, case, &one, status).await;
    }
    let listed = |path: String| async move {
        let list = harness.get(&path).await.expect(200);
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(listed(format!("{collection}?labelSelector=updated%3Dtrue")).await, 1);
    assert_eq!(listed(format!("{collection}?labelSelector=updated%3Dno")).await, 0);
    assert_eq!(listed(format!("{}/{}?labelSelector=test%3Da", case.root(), case.resource)).await, 1);

    // Some kinds would otherwise wait for their dependents to be orphaned.
    harness.delete(&format!("{one}?propagationPolicy=Background")).await.expect(200);
    harness.get(&one).await.refused(404, "NotFound", &format!("{} \"{name}\" not found", case.qualified()));
    let mut seen = Vec::new();
    while seen.last() != Some(&json!("DELETED")) {
        seen.push(events.next().await.unwrap()["type"].clone());
    }
    assert!(seen.len() >= 4 && seen[..3] == [json!("MODIFIED"), json!("MODIFIED"), json!("MODIFIED")], "{seen:?}");
}

async fn has_status(harness: &Harness, case: &Case, path: &str, status: &Value) {
    let path = format!("{path}/status");
    let before = harness.get(&path).await.expect(200);
    let patched = harness.patch(&path, json!({"status": status, "metadata": {"labels": {"x": "y"}}})).await.expect(200);
    assert_ne!(patched["status"], before["status"], "{}", case.resource);
    let mut changed = patched;
    changed["status"] = before["status"].clone();
    let updated = harness.put(&path, changed.clone()).await.expect(200);
    assert_eq!(updated["status"], before["status"]);
    // The spec is not the status's business.
    let spec = updated["spec"].clone();
    changed["metadata"]["resourceVersion"] = updated["metadata"]["resourceVersion"].clone();
    changed["spec"] = json!({});
    if let Ok(answer) = serde_json::from_str::<Value>(&harness.put(&path, changed).await.text)
        && answer["kind"] == case.kind
    {
        assert_eq!(answer["spec"], spec);
    }
}

async fn goes_with_many(harness: &Harness, case: &Case) {
    let collection = case.collection();
    for (name, label) in case.names.into_iter().zip(["gone", "gone", "kept"]) {
        harness.post(&collection, case.object(name, label)).await.expect(201);
    }
    let selected = format!("{collection}?labelSelector=test%3Dgone&propagationPolicy=Background");
    harness.delete(&selected).await.expect(200);
    // The cluster may have some of its own.
    let left = harness.get(&format!("{collection}?labelSelector=test")).await.expect(200);
    let names: Vec<&Value> = left["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    let kept = case.names[2];
    assert_eq!(names, [kept]);
    harness.delete(&format!("{collection}/{kept}?propagationPolicy=Background")).await.expect(200);
}

#[tokio::test]
async fn the_status_of_volumes_and_claims_can_be_changed() {
    let harness = Harness::new().await;
    const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}});
    let created = harness.post(CLAIMS, claim).await.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/srv"}}});
    let created = harness.post("/api/v1/persistentvolumes", volume).await.expect(201);
    assert_eq!(created["status"]["phase"], "Pending");
    let condition = |text: &str| json!({"type": "StatusPatched", "status": "True", "reason": "E2E", "message": text});
    for (path, status) in [
        (format!("{CLAIMS}/c/status"), json!({"conditions": [condition("set")]})),
        ("/api/v1/persistentvolumes/v/status".to_owned(), json!({"reason": "E2E", "message": "set"})),
    ] {
        let patched = harness.patch(&path, json!({"status": status.clone()})).await.expect(200);
        for (field, value) in status.as_object().unwrap() {
            let shown = &patched["status"][field];
            let is_shown = shown == value || shown[0]["message"] == value[0]["message"];
            assert!(is_shown, "{path}: {patched}");
        }
        assert_eq!(patched["status"]["phase"], "Pending");
        let mut changed = patched;
        changed["status"]["phase"] = json!("Bound");
        assert_eq!(harness.put(&path, changed).await.expect(200)["status"]["phase"], "Bound");
        assert_eq!(harness.get(&path).await.expect(200)["status"]["phase"], "Bound");
    }
}

#[tokio::test]
async fn pods_name_the_drivers_of_inline_volumes() {
    let harness = Harness::new().await;
    const PODS: &str = "/api/v1/namespaces/default/pods";
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "csi"}}, "spec": {
            "containers": [{"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "csi": {"driver": "d.example.com", "volumeAttributes": {"k": "v"}}}]}})
    };
    harness
        .post(
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "default"}}),
        )
        .await;
    let created = harness.post(PODS, pod("one")).await.expect(201);
    assert_eq!(created["spec"]["volumes"][0]["csi"]["driver"], "d.example.com");
    let list = harness.get(&format!("{PODS}?labelSelector=app%3Dcsi")).await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let path = format!("{PODS}/one");
    let patched = harness.patch(&path, json!({"metadata": {"labels": {"patched": "yes"}}})).await.expect(200);
    assert_eq!(patched["metadata"]["labels"]["patched"], "yes");
    let grace = harness.delete(&format!("{path}?gracePeriodSeconds=0")).await;
    assert_eq!(grace.code, 200, "{}", grace.text);
    harness.get(&path).await.refused(404, "NotFound", "pods \"one\" not found");
}
