//! Discovery, OpenAPI, health, version, metrics.

use http::Method;
use kedge_apiserver::Config;
use kedge_meta::UserInfo;
use serde_json::json;

use crate::harness::Harness;

#[tokio::test]
async fn documents() {
    let harness = Harness::new().await;
    assert_eq!(harness.get("/api").await.expect(200)["versions"], json!(["v1"]));
    let groups = harness.get("/apis").await.expect(200);
    let apps = groups["groups"].as_array().unwrap().iter().find(|group| group["name"] == "apps").unwrap().clone();
    assert_eq!(apps["preferredVersion"], json!({"groupVersion": "apps/v1", "version": "v1"}));
    let autoscaling = harness.get("/apis/autoscaling").await.expect(200);
    assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
    let core = harness.get("/api/v1").await.expect(200);
    let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).unwrap().clone();
    assert_eq!(find("pods")["shortNames"], json!(["po"]));
    assert_eq!(
        find("pods/eviction"),
        json!({"name": "pods/eviction", "singularName": "", "namespaced": true,
        "group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]})
    );
    harness.get("/apis/nonsense").await.expect(404);
    harness.get("/apis/apps/v9").await.expect(404);
    assert_eq!(harness.get("/version").await.expect(200)["gitVersion"], kedge_meta::full_version());
}

#[tokio::test]
async fn aggregated_discovery_has_an_etag() {
    let harness = Harness::new().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let first = harness.raw(Method::GET, "/apis", &[("accept", accept)], "").await;
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.headers["content-type"], "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    let list = first.expect(200);
    assert_eq!(
        (&list["kind"], &list["apiVersion"]),
        (&json!("APIGroupDiscoveryList"), &json!("apidiscovery.k8s.io/v2"))
    );
    let again = harness.raw(Method::GET, "/apis", &[("accept", accept), ("if-none-match", &etag)], "").await;
    assert_eq!((again.code, again.text.as_str()), (304, ""));
    let core = harness.raw(Method::GET, "/api", &[("accept", accept)], "").await.expect(200);
    let pods = core["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "pods")
        .unwrap()
        .clone();
    assert_eq!((&pods["scope"], &pods["responseKind"]["kind"]), (&json!("Namespaced"), &json!("Pod")));
}

#[tokio::test]
async fn the_log_is_set_by_a_number() {
    kedge_zpages::on_verbosity(Box::new(|level| if level < 10 { Ok(()) } else { Err("too much".to_owned()) }));
    let harness = Harness::new().await;
    for (method, body, code, text) in [
        (Method::PUT, "4", 200, "successfully set klog.logging.verbosity to 4"),
        (Method::PUT, "10", 400, "failed set klog.logging.verbosity 10: too much"),
        (Method::PUT, "x", 400, "strconv.ParseUint: parsing \"x\": invalid syntax"),
        (Method::GET, "", 406, "unsupported http method"),
    ] {
        let answer = harness.raw(method, "/debug/flags/v", &[], body).await;
        assert_eq!((answer.code, answer.text.as_str()), (code, text));
    }
    assert!(harness.get("/debug/flags").await.text.contains("<tr>v<br>"));
    let why = "User \"jane\" cannot put path \"/debug/flags/v\"";
    let jane = UserInfo::authenticated("jane", []);
    harness.call_as(jane, Method::PUT, "/debug/flags/v", json!(1)).await.refused(403, "Forbidden", why);
}

#[tokio::test]
async fn health_and_metrics() {
    let harness = Harness::new().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd"] {
        let answer = harness.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (200, "ok"), "{path}");
    }
    let verbose = harness.get("/readyz?verbose&exclude=etcd").await.text;
    assert!(
        verbose.contains("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n") && verbose.ends_with("readyz check passed\n"),
        "{verbose}"
    );
    let alive = harness.get("/livez?verbose").await.text;
    assert!(
        alive.starts_with("[+]ping ok\n[+]log ok\n[+]poststarthook/"),
        "a server is not ended for its store: {alive}"
    );
    harness.get("/readyz/nonsense").await.expect(404);
    harness.server.shut_down();
    let down = harness.get("/readyz").await;
    assert!(down.code == 500 && down.text.contains("[-]shutdown failed: reason withheld\n"), "{}", down.text);
    harness.get("/api/v1/nodes").await.expect(200);
    let metrics = harness.get("/metrics").await.text;
    let counted = "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"nodes\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1\n";
    assert!(metrics.contains(counted) && metrics.contains("apiserver_request_duration_seconds_bucket"), "{metrics}");
}

#[tokio::test]
async fn what_runs_and_what_is_there_is_counted() {
    let harness = Harness::new().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    harness.post(&format!("{secrets}?dryRun=All"), secret.clone()).await.expect(201);
    harness.post(secrets, secret.clone()).await.expect(201);
    harness.post(secrets, secret).await.refused(409, "AlreadyExists", "");
    harness.get(&format!("{secrets}/a")).await.expect(200);
    let watch = crate::harness::Events::open(&harness, &format!("{secrets}?watch=true")).await;
    let metrics = |lines: &'static [&'static str]| {
        let answer = harness.get("/metrics");
        async move {
            let text = answer.await.text;
            for line in lines {
                assert!(text.lines().any(|own| own.starts_with(line)), "{line} is not in {text}");
            }
        }
    };
    metrics(&[
        "apiserver_storage_objects{resource=\"secrets\"} 1",
        "apiserver_storage_objects{resource=\"deployments.apps\"} 0",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"secrets\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
        "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"All\",group=\"\",resource=\"secrets\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 1",
        "apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"secrets\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"} ",
        "authorization_attempts_total{result=\"allowed\"} 6",
    ])
    .await;
    drop(watch);
    metrics(&[
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"secrets\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 0",
    ])
    .await;
}

#[tokio::test]
async fn statusz_says_since_when_and_what_runs() {
    let harness = Harness::new().await;
    let text = harness.get("/statusz").await;
    assert!(
        text.code == 200 && text.text.contains("Started: Fri Jan  2 03:04:05 UTC 2026\nUp: 0 hr 00 min 00 sec\n"),
        "{text:?}"
    );
    let accept = [("accept", "application/json;g=config.k8s.io;v=v1beta1;as=Statusz")];
    let document = harness.raw(Method::GET, "/statusz", &accept, "").await.expect(200);
    assert_eq!((&document["kind"], &document["metadata"]["name"]), (&json!("Statusz"), &json!("apiserver")));
    assert!(document["paths"].as_array().unwrap().contains(&json!("/readyz")), "{document}");
    let old = [("accept", "application/yaml;g=config.k8s.io;v=v1alpha1;as=Statusz")];
    assert_eq!(harness.raw(Method::GET, "/statusz", &old, "").await.warnings().len(), 1);
    let plain = [("accept", "application/json")];
    harness.raw(Method::GET, "/statusz", &plain, "").await.refused(406, "NotAcceptable", "text/plain");
}

#[tokio::test]
async fn flagz_shows_the_command_line() {
    let flags =
        [("secure-port", "6443"), ("etcd-servers", "")].map(|(flag, value)| (flag.to_owned(), value.to_owned()));
    let harness = Harness::with(Config { flags: flags.into(), ..Config::default() }).await;
    let text = harness.get("/flagz").await;
    assert!(
        text.text.starts_with("\napiserver flagz\nWarning: ")
            && text.text.ends_with("etcd-servers=\nsecure-port=6443\n")
    );
    let accept = [("accept", "application/json;g=config.k8s.io;v=v1beta1;as=Flagz")];
    let document = harness.raw(Method::GET, "/flagz", &accept, "").await.expect(200);
    assert_eq!(document["flags"], json!({"etcd-servers": "", "secure-port": "6443"}));
    let old = [("accept", "application/yaml;g=config.k8s.io;v=v1alpha1;as=Flagz")];
    assert_eq!(harness.raw(Method::GET, "/flagz", &old, "").await.warnings().len(), 1);
    let plain = [("accept", "application/json")];
    harness.raw(Method::GET, "/flagz", &plain, "").await.refused(406, "NotAcceptable", "text/plain");
    // Who looks after the cluster sees it, and nobody else.
    for (groups, code) in [(["system:monitoring", "system:authenticated"], 200), (["x", "system:authenticated"], 403)] {
        let user = UserInfo::authenticated("prometheus", groups);
        assert_eq!(harness.get_as(user, "/flagz").await.code, code, "{groups:?}");
    }
}

#[tokio::test]
async fn openapi_documents() {
    let harness = Harness::new().await;
    let index = harness.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let apps = harness.get(&url).await;
    assert_eq!(apps.headers["cache-control"], "public, immutable");
    assert!(apps.expect(200)["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let v2 = harness.get("/openapi/v2").await.expect(200);
    assert!(v2["definitions"]["io.k8s.api.core.v1.Pod"].is_object());
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = harness.raw(Method::GET, "/openapi/v2", &[("accept", protobuf)], "").await;
    assert_eq!(
        (answer.code, answer.headers["content-type"].to_str().unwrap()),
        (200, kedge_schema::OPENAPI_V2_PROTOBUF)
    );
    harness.get("/openapi/v3/apis/nonsense/v1").await.expect(404);
}

#[tokio::test]
async fn keys_of_tokens_are_published() {
    let harness = Harness::new().await;
    let issuer = harness.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(issuer["issuer"], "https://kubernetes.default.svc.cluster.local");
    assert_eq!(harness.get("/openid/v1/jwks").await.expect(200)["keys"][0]["alg"], "ES256");
    let status = harness.get("/kedge/v1/status").await.expect(200);
    assert_eq!(
        (&status["components"][0]["component"], &status["components"][0]["state"]),
        (&json!("kube-apiserver"), &json!("Running"))
    );
}
