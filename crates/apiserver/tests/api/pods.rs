//! Pods and Services: what admission and allocation make of them, binding, eviction, graceful deletion, scale, status.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Harness;

const PODS: &str = "/api/v1/namespaces/default/pods";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]}})
}

async fn harness() -> Harness {
    let harness = Harness::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    harness.post("/api/v1/namespaces/default/serviceaccounts", account).await.expect(201);
    harness
}

async fn bind(harness: &Harness, name: &str) -> crate::harness::Answer {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"kind": "Node", "name": "n"}});
    harness.post(&format!("{PODS}/{name}/binding"), binding).await
}

#[tokio::test]
async fn a_pod_gets_what_every_pod_has() {
    let harness = harness().await;
    let created = harness.post(PODS, pod("a")).await.expect(201);
    let spec = &created["spec"];
    assert_eq!(
        (&spec["serviceAccountName"], &spec["serviceAccount"], &spec["priority"]),
        (&json!("default"), &json!("default"), &json!(0))
    );
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(
        (&spec["restartPolicy"], &created["status"]["phase"], &created["status"]["qosClass"]),
        (&json!("Always"), &json!("Pending"), &json!("BestEffort"))
    );
    let mut tolerant = created.clone();
    tolerant["spec"]["tolerations"] = json!([{"key": "own", "operator": "Exists", "effect": "NoExecute"}]);
    let updated = harness.call(Method::PUT, &format!("{PODS}/a"), tolerant).await.expect(200);
    assert_eq!(updated["spec"]["tolerations"].as_array().unwrap().len(), 3, "what was added to it stays");
    let mut classed = pod("b");
    classed["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(harness.post(PODS, classed.clone()).await.expect(201)["spec"]["priority"], 2_000_001_000);
    classed["metadata"]["name"] = json!("c");
    classed["spec"]["priorityClassName"] = json!("nonsense");
    harness.post(PODS, classed).await.refused(403, "Forbidden", "no PriorityClass with name nonsense was found");
    let mut accounted = pod("d");
    accounted["spec"]["serviceAccountName"] = json!("nobody");
    harness.post(PODS, accounted).await.refused(
        403,
        "Forbidden",
        "pods \"d\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found",
    );
}

#[tokio::test]
async fn a_pod_is_bound_once_and_deleted_with_grace() {
    let harness = harness().await;
    harness.post(PODS, pod("a")).await.expect(201);
    bind(&harness, "a").await.expect(201);
    bind(&harness, "a").await.refused(
        409,
        "Conflict",
        "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n\"",
    );
    let path = format!("{PODS}/a");
    let bound = harness.get(&path).await.expect(200);
    assert_eq!(
        (&bound["spec"]["nodeName"], &bound["status"]["conditions"][0]["type"]),
        (&json!("n"), &json!("PodScheduled"))
    );
    let on_node = harness.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn")).await.expect(200);
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);
    let marked = harness.delete(&path).await.expect(200);
    assert_eq!(
        (&marked["metadata"]["deletionTimestamp"], &marked["metadata"]["deletionGracePeriodSeconds"]),
        (&json!("2026-01-02T03:04:35Z"), &json!(30))
    );
    let again = harness.delete(&path).await.expect(200);
    assert_eq!(again["metadata"], marked["metadata"]);
    let gone = harness.delete(&format!("{path}?gracePeriodSeconds=0")).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
    harness.get(&path).await.expect(404);
    harness.post(PODS, pod("b")).await.expect(201);
    harness.delete(&format!("{PODS}/b")).await.expect(200);
    harness.get(&format!("{PODS}/b")).await.expect(404);
}

#[tokio::test]
async fn a_bound_pod_has_the_zone_of_its_node_and_no_promise() {
    let harness = harness().await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "disk": "fast"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}});
    harness.post("/api/v1/nodes", node).await.expect(201);
    harness.post(PODS, pod("a")).await.expect(201);
    let status = format!("{PODS}/a/status");
    harness.patch(&status, json!({"status": {"nominatedNodeName": "m"}})).await.expect(200);
    bind(&harness, "a").await.expect(201);
    let bound = harness.get(&format!("{PODS}/a")).await.expect(200);
    let expected = json!({"app": "web", "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"});
    assert_eq!((&bound["metadata"]["labels"], bound["status"].get("nominatedNodeName")), (&expected, None));
    let again = harness.patch(&status, json!({"status": {"nominatedNodeName": "m"}})).await;
    again.refused(
        422,
        "Invalid",
        "Pod \"a\" is invalid: status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
    );
    let mut placed = pod("b");
    placed["spec"]["nodeName"] = json!("n");
    assert_eq!(harness.post(PODS, placed).await.expect(201)["metadata"]["labels"], expected);
}

#[tokio::test]
async fn a_binding_may_name_the_version_of_its_pod() {
    let harness = harness().await;
    let created = harness.post(PODS, pod("a")).await.expect(201);
    let version = created["metadata"]["resourceVersion"].as_str().unwrap();
    let bind = async |version: &str| {
        let metadata = json!({"name": "a", "resourceVersion": version});
        let target = json!({"kind": "Node", "name": "n"});
        let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target});
        harness.post(&format!("{PODS}/a/binding"), binding).await
    };
    let text = format!(
        "Operation cannot be fulfilled on pods/binding \"a\": Precondition failed: ResourceVersion in precondition: 1, \
         ResourceVersion in object meta: {version}"
    );
    bind("1").await.refused(409, "Conflict", &text);
    bind(version).await.expect(201);
}

#[tokio::test]
async fn evictions_respect_budgets() {
    let harness = harness().await;
    harness.post(PODS, pod("a")).await.expect(201);
    bind(&harness, "a").await.expect(201);
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    harness.patch(&format!("{PODS}/a/status"), running).await.expect(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    harness.post(budgets, budget).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}});
    let evict = format!("{PODS}/a/eviction");
    harness.post(&evict, eviction.clone()).await.refused(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
    );
    let status = |allowed: i64| {
        json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 1,
        "currentHealthy": 1, "expectedPods": 1}})
    };
    harness.patch(&format!("{budgets}/b/status"), status(0)).await.expect(200);
    let refused = harness.post(&evict, eviction.clone()).await.refused(429, "TooManyRequests", "Cannot evict");
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    harness.patch(&format!("{budgets}/b/status"), status(1)).await.expect(200);
    harness.post(&evict, eviction).await.expect(201);
    let evicted = harness.get(&format!("{PODS}/a")).await.expect(200);
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    let told = &evicted["status"]["conditions"][1];
    assert_eq!(
        (&told["type"], &told["status"], &told["reason"], &told["message"]),
        (&json!("DisruptionTarget"), &json!("True"), &json!("EvictionByEvictionAPI"), &json!("Eviction API: evicting"))
    );
    let spent = harness.get(&format!("{budgets}/b")).await.expect(200);
    assert_eq!(
        (&spent["status"]["disruptionsAllowed"], spent["status"]["disruptedPods"]["a"].is_string()),
        (&json!(0), true)
    );
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn services_get_addresses_and_ports() {
    let harness = harness().await;
    let ports = || json!([{"port": 80}]);
    let kubernetes = harness.get(&format!("{SERVICES}/kubernetes")).await.expect(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let slice = harness.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.10"]));
    let web = harness.post(SERVICES, service("web", json!({"type": "NodePort", "ports": ports()}))).await.expect(201);
    let (ip, port) = (web["spec"]["clusterIP"].clone(), web["spec"]["ports"][0]["nodePort"].clone());
    assert!(
        ip.as_str().unwrap().starts_with("10.") && port.as_u64().is_some_and(|port| (30000..=32767).contains(&port))
    );
    let taken = service("other", json!({"clusterIP": ip, "ports": ports()}));
    harness.post(SERVICES, taken.clone()).await.refused(422, "Invalid", "provided IP is already allocated");
    let taken_port = service("other", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    harness.post(SERVICES, taken_port).await.refused(422, "Invalid",
        &format!("Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated"));
    let address = format!("{ADDRESSES}/{}", ip.as_str().unwrap());
    let record = harness.get(&address).await.expect(200);
    assert_eq!(record["spec"]["parentRef"], json!({"resource": "services", "namespace": "default", "name": "web"}));
    assert_eq!(record["metadata"]["labels"]["ipaddress.kubernetes.io/managed-by"], "ipallocator.k8s.io");
    harness.delete(&format!("{SERVICES}/web")).await.expect(200);
    harness.get(&address).await.expect(404);
    assert_eq!(harness.post(SERVICES, taken).await.expect(201)["spec"]["clusterIP"], ip);
    let headless =
        harness.post(SERVICES, service("headless", json!({"clusterIP": "None", "ports": ports()}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let changed = harness.patch(&format!("{SERVICES}/other"), json!({"spec": {"type": "NodePort"}})).await.expect(200);
    assert!(changed["spec"]["ports"][0]["nodePort"].as_u64().is_some(), "{changed}");
    let back = harness.patch(&format!("{SERVICES}/other"), json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert!(back["spec"]["ports"][0]["nodePort"].is_null(), "{back}");
    let external =
        json!({"spec": {"type": "ExternalName", "externalName": "a.example", "clusterIP": null, "clusterIPs": null}});
    harness.patch(&format!("{SERVICES}/other"), external).await.expect(200);
    harness.get(&address).await.expect(404);
}

#[tokio::test]
async fn addresses_come_from_the_ranges_that_are_ready() {
    let harness = harness().await;
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "more"},
        "spec": {"cidrs": ["172.30.7.0/24"]}});
    harness.post(ranges, range).await.expect(201);
    let chosen = || service("chosen", json!({"clusterIP": "172.30.7.9", "ports": [{"port": 80}]}));
    harness.post(SERVICES, chosen()).await.refused(422, "Invalid", "is not in the valid range");
    let ready = |status: &str| {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": "x",
        "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    harness.patch(&format!("{ranges}/more/status"), ready("True")).await.expect(200);
    harness.post(SERVICES, chosen()).await.expect(201);
    harness.patch(&format!("{ranges}/kubernetes/status"), ready("False")).await.expect(200);
    let drawn = harness.post(SERVICES, service("drawn", json!({"ports": [{"port": 80}]}))).await.expect(201);
    assert!(drawn["spec"]["clusterIP"].as_str().unwrap().starts_with("172.30.7."), "{drawn}");
    // An address that somebody else holds is not given away.
    let held = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": {"name": "172.30.7.77"},
        "spec": {"parentRef": {"group": "g.example", "resource": "things", "name": "x"}}});
    harness.post(ADDRESSES, held).await.expect(201);
    let taken = service("taken", json!({"clusterIP": "172.30.7.77", "ports": [{"port": 80}]}));
    harness.post(SERVICES, taken).await.refused(422, "Invalid", "provided IP is already allocated");
}

#[tokio::test]
async fn what_services_hold_is_known_after_a_restart() {
    let harness = harness().await;
    let web = harness.post(SERVICES, service("web", json!({"ports": [{"port": 80}]}))).await.expect(201);
    let again = Harness::over(harness.store.clone(), kedge_apiserver::Config::default()).await;
    let taken = service("other", json!({"clusterIP": web["spec"]["clusterIP"], "ports": [{"port": 80}]}));
    again.post(SERVICES, taken).await.refused(422, "Invalid", "provided IP is already allocated");
    let slice = again.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.expect(200);
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["127.0.0.1"]), "the endpoints follow the configuration");
}

#[tokio::test]
async fn scale_and_status_are_parts_of_the_object() {
    let harness = harness().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]}}});
    let created = harness.post(path, deployment).await.expect(201);
    assert_eq!(created["metadata"]["generation"], 1);
    let scale = harness.get(&format!("{path}/web/scale")).await.expect(200);
    assert_eq!(
        (&scale["kind"], &scale["spec"], &scale["status"]),
        (&json!("Scale"), &json!({"replicas": 2}), &json!({"replicas": 0, "selector": "app=web"}))
    );
    let scaled = harness.patch(&format!("{path}/web/scale"), json!({"spec": {"replicas": 5}})).await.expect(200);
    assert_eq!(scaled["spec"]["replicas"], 5);
    let now = harness.get(&format!("{path}/web")).await.expect(200);
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&json!(5), &json!(2)));
    harness.put(&format!("{path}/web/scale"), scale).await.expect(409);
    harness.patch(&format!("{path}/web/scale"), json!({"spec": {"replicas": -1}})).await.refused(
        422,
        "Invalid",
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0",
    );
    let status = json!({"spec": {"replicas": 9}, "status": {"replicas": 3, "observedGeneration": 2}});
    let updated = harness.patch(&format!("{path}/web/status"), status.clone()).await.expect(200);
    assert_eq!(
        (&updated["spec"]["replicas"], &updated["status"]["replicas"], &updated["metadata"]["generation"]),
        (&json!(5), &json!(3), &json!(2))
    );
    let updated = harness.patch(&format!("{path}/web"), status).await.expect(200);
    assert_eq!((&updated["spec"]["replicas"], &updated["status"]["observedGeneration"]), (&json!(9), &json!(2)));
}

#[tokio::test]
async fn whoever_applies_a_scale_owns_the_replicas() {
    let harness = harness().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 2,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]}}});
    let apply = |path: String, object: Value| {
        let harness = &harness;
        async move {
            let headers = [("content-type", "application/apply-patch+yaml")];
            harness.raw(Method::PATCH, &path, &headers, object.to_string()).await
        }
    };
    apply(format!("{path}/web?fieldManager=one"), deployment.clone()).await.expect(201);
    let scale = |replicas: u32| {
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web", "namespace": "default"},
            "spec": {"replicas": replicas}})
    };
    let on_scale = |query: &str| format!("{path}/web/scale?fieldManager=hpa{query}");
    let taken = apply(on_scale(""), scale(3)).await;
    taken.refused(409, "Conflict", "Apply failed with 1 conflict: conflict with \"one\": .spec.replicas");
    let forced = apply(on_scale("&force=true"), scale(3)).await.expect(200);
    assert_eq!((&forced["spec"]["replicas"], &forced["metadata"]["managedFields"]), (&json!(3), &Value::Null));
    let entries = harness.get(&format!("{path}/web")).await.expect(200)["metadata"]["managedFields"].clone();
    let of = |manager: &str| {
        let found = entries.as_array().unwrap().iter().find(|entry| entry["manager"] == manager).unwrap();
        (
            found["operation"].clone(),
            found["subresource"].clone(),
            found["apiVersion"].clone(),
            found["fieldsV1"].clone(),
        )
    };
    let replicas = json!({"f:spec": {"f:replicas": {}}});
    assert_eq!(of("hpa"), (json!("Apply"), json!("scale"), json!("apps/v1"), replicas));
    assert_eq!(of("one").3.pointer("/f:spec/f:replicas"), None);
    let again = apply(format!("{path}/web?fieldManager=one"), deployment).await;
    again.refused(409, "Conflict", "conflict with \"hpa\" with subresource \"scale\": .spec.replicas");
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}});
    let text = "patch object is v1, Kind=ConfigMap, but the resource is autoscaling/v1, Kind=Scale";
    apply(on_scale(""), other).await.refused(400, "BadRequest", text);
    let headers = [("content-type", "application/merge-patch+json")];
    let plain = format!("{path}/web/scale?fieldManager=hand");
    let changed = json!({"spec": {"replicas": 7}}).to_string();
    harness.raw(Method::PATCH, &plain, &headers, changed).await.expect(200);
    let entries = harness.get(&format!("{path}/web")).await.expect(200)["metadata"]["managedFields"].to_string();
    assert!(entries.contains("\"hand\"") && !entries.contains("\"hpa\""), "{entries}");
}

#[tokio::test]
async fn quotas_and_limits_hold() {
    let harness = harness().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    harness.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    harness.post(PODS, pod("a")).await.expect(201);
    harness.post(PODS, pod("b")).await.refused(
        403,
        "Forbidden",
        "pods \"b\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
    );
    let status = harness.get("/api/v1/namespaces/default/resourcequotas/q").await.expect(200)["status"].clone();
    assert_eq!(status, json!({"hard": {"pods": "1"}, "used": {"pods": "1"}}));
    harness.delete(&format!("{PODS}/a")).await.expect(200);
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "2"}}]}});
    harness.post("/api/v1/namespaces/default/limitranges", range).await.expect(201);
    let created = harness.post(PODS, pod("b")).await.expect(201);
    assert_eq!(
        created["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}})
    );
}

/// The conformance test of LimitRange: defaults, what is given in part, both bounds, a change and the end of the range.
#[tokio::test]
async fn a_limit_range_shapes_pods_as_long_as_it_is_there() {
    let harness = harness().await;
    let amounts = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let ranges = "/api/v1/namespaces/default/limitranges";
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "min": amounts("50m", "100Mi"), "max": amounts("500m", "500Mi"),
         "default": amounts("500m", "500Mi"), "defaultRequest": amounts("100m", "200Mi")}]}});
    harness.post(ranges, range).await.expect(201);
    let asking = |name: &str, resources: Value| {
        let mut asking = pod(name);
        asking["spec"]["containers"][0]["resources"] = resources;
        harness.post(PODS, asking)
    };
    let given = |created: Value| created["spec"]["containers"][0]["resources"].clone();
    assert_eq!(
        given(asking("none", json!({})).await.expect(201)),
        json!({"limits": amounts("500m", "500Mi"), "requests": amounts("100m", "200Mi")})
    );
    // A limit without a request is the request too, before the range is asked.
    let partly = json!({"limits": {"cpu": "300m"}, "requests": {"memory": "150Mi"}});
    assert_eq!(
        given(asking("part", partly).await.expect(201)),
        json!({"limits": amounts("300m", "500Mi"), "requests": amounts("300m", "150Mi")})
    );
    let little = json!({"requests": amounts("10m", "50Mi")});
    let much = json!({"requests": amounts("600m", "600Mi"), "limits": amounts("600m", "600Mi")});
    assert_eq!(asking("little", little.clone()).await.code, 403);
    assert_eq!(asking("much", much.clone()).await.code, 403);
    let mut changed = harness.get(&format!("{ranges}/l")).await.expect(200);
    changed["spec"]["limits"][0]["min"] = amounts("9m", "49Mi");
    harness.put(&format!("{ranges}/l"), changed).await.expect(200);
    asking("little", little).await.expect(201);
    assert_eq!(asking("much", much.clone()).await.code, 403);
    harness.delete(&format!("{ranges}/l")).await.expect(200);
    asking("much", much).await.expect(201);
}

#[tokio::test]
async fn the_last_place_of_a_quota_is_given_once() {
    let harness = harness().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}});
    harness.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let creations = (0..8).map(|index| {
        let (harness, pod) = (&harness, pod(&format!("p{index}")));
        async move { harness.post(PODS, pod).await.code }
    });
    let codes = futures::future::join_all(creations).await;
    let count = |code: u16| codes.iter().filter(|own| **own == code).count();
    assert_eq!((count(201), count(403)), (3, 5));
}

/// What a quota was once told of is brought up to date: by ends, deletions, other limits and scopes, and anew where the
/// store has forgotten what came between.
#[tokio::test]
async fn a_quota_counts_what_comes_and_goes() {
    let harness = harness().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota =
        |spec: Value| json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec});
    harness.post(quotas, quota(json!({"hard": {"requests.cpu": "2"}}))).await.expect(201);
    let asking = |name: &str, cpu: &str| {
        let mut asking = pod(name);
        asking["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        harness.post(PODS, asking)
    };
    let used = async || harness.get(&format!("{quotas}/q")).await.expect(200)["status"]["used"].clone();
    for name in ["a", "b"] {
        asking(name, "1").await.expect(201);
    }
    asking("c", "1").await.refused(403, "Forbidden", "used: requests.cpu=2, limited: requests.cpu=2");
    let ended = json!({"status": {"phase": "Succeeded"}});
    harness.patch(&format!("{PODS}/a/status"), ended).await.expect(200);
    asking("c", "500m").await.expect(201);
    assert_eq!(used().await, json!({"requests.cpu": "1500m"}));
    harness.delete(&format!("{PODS}/b")).await.expect(200);
    asking("d", "1").await.expect(201);
    assert_eq!(used().await, json!({"requests.cpu": "1500m"}));
    // Only pods that have a deadline.
    let scoped = json!({"hard": {"pods": "1", "requests.cpu": "1"}, "scopes": ["Terminating"]});
    harness.delete(&format!("{quotas}/q")).await.expect(200);
    harness.post(quotas, quota(scoped)).await.expect(201);
    asking("e", "4").await.expect(201);
    let ends = |name: &str| {
        let mut ends = pod(name);
        ends["spec"]["activeDeadlineSeconds"] = json!(60);
        ends["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "250m"}});
        harness.post(PODS, ends)
    };
    ends("f").await.expect(201);
    assert_eq!(used().await, json!({"pods": "1", "requests.cpu": "250m"}));
    harness.delete(&format!("{PODS}/f")).await.expect(200);
    harness.store.compact(harness.store.revision()).await.unwrap();
    ends("g").await.expect(201);
    ends("h").await.refused(403, "Forbidden", "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1");
}

/// Scopes that are not about what a pod asks for: where its rules look, and what kind of storage a claim has.
#[tokio::test]
async fn quotas_hold_what_is_in_their_scope() {
    let harness = harness().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = |name: &str, spec: Value| {
        let whole = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
        harness.post(quotas, whole)
    };
    quota("abroad", json!({"hard": {"pods": "0"}, "scopes": ["CrossNamespacePodAffinity"]})).await.expect(201);
    let near = |term: Value| {
        let mut near = pod("near");
        near["spec"]["affinity"] = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        harness.post(PODS, near)
    };
    let text = "exceeded quota: abroad, requested: pods=1, used: pods=0, limited: pods=0";
    near(json!({"topologyKey": "zone", "namespaces": ["other"]})).await.refused(403, "Forbidden", text);
    near(json!({"topologyKey": "zone"})).await.expect(201);

    let gold = json!({"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]});
    let spec = json!({"hard": {"requests.storage": "1536Mi"}, "scopeSelector": {"matchExpressions": [gold]}});
    quota("gold", spec).await.expect(201);
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str, class: Option<&str>| {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "volumeAttributesClassName": class});
        let whole =
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec});
        harness.post(claims, whole)
    };
    for (name, class) in [("plain", None), ("silver", Some("silver")), ("first", Some("gold"))] {
        claim(name, class).await.expect(201);
    }
    let text = "exceeded quota: gold, requested: requests.storage=1Gi, used: requests.storage=1Gi, limited: requests.storage=1536Mi";
    claim("second", Some("gold")).await.refused(403, "Forbidden", text);
    let used = harness.get(&format!("{quotas}/gold")).await.expect(200)["status"]["used"].clone();
    assert_eq!(used, json!({"requests.storage": "1Gi"}));
    // Who makes it gold comes into the scope.
    let status = json!({"status": {"currentVolumeAttributesClassName": "gold"}});
    harness.patch(&format!("{claims}/silver/status"), status).await.refused(403, "Forbidden", text);
}
