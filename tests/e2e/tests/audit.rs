//! The audit log of a running control plane: who did what, as kubectl and curl do it.

use std::path::Path;
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, eventually};
use serde_json::Value;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, userGroups: [system:masters], verbs: [get, list, watch], nonResourceURLs: ['/api*', '/openapi*', /version, '/readyz*']}
- {level: Request, resources: [{group: '', resources: [configmaps]}], namespaces: [default]}
- {level: Metadata, resources: [{group: '', resources: [pods/log, secrets]}], namespaces: [default]}
- {level: Metadata, nonResourceURLs: [/metrics]}
";

fn events(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect("every line is an event")).collect()
}

#[test]
fn requests_are_written_down() {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (policy, log) = (dir.path().join("policy.yaml"), dir.path().join("logs/audit.log"));
    std::fs::write(&policy, POLICY).expect("the policy can be written");
    let flags = [("--audit-policy-file", &policy), ("--audit-log-path", &log)];
    let flags = flags.iter().map(|(flag, path)| format!("{flag}={}", path.display())).collect();
    let Some(mut host) = Host::up(HostOptions { control_plane_only: true, flags, ..HostOptions::default() }) else {
        return;
    };
    let kubectl = host.kubectl();
    let found = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        eventually(what, Duration::from_secs(20), || match events(&log).into_iter().find(fits) {
            Some(event) => Ok(event),
            None => Err(std::fs::read_to_string(&log).unwrap_or_default()),
        })
    };
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "color=blue"]);
    let created = found("the creation", &|event| event["verb"] == "create" && event["objectRef"]["name"] == "settings");
    assert_eq!((&created["level"], &created["requestObject"]["data"]["color"]), (&"Request".into(), &"blue".into()));
    assert_eq!((&created["responseStatus"]["code"], &created["responseObject"]), (&201.into(), &Value::Null));
    assert!(created["userAgent"].as_str().is_some_and(|agent| agent.starts_with("kubectl")), "{created}");
    assert_eq!(created["sourceIPs"].as_array().map(Vec::len), Some(1), "{created}");

    kubectl.run(&["create", "secret", "generic", "hidden", "--from-literal", "word=swordfish"]);
    let secret = found("the secret", &|event| event["verb"] == "create" && event["objectRef"]["resource"] == "secrets");
    assert_eq!((&secret["objectRef"]["name"], &secret["requestObject"]), (&"hidden".into(), &Value::Null));

    let refused = kubectl.try_run(&["get", "secrets", "--as", "jane", "--as-group", "people"]);
    assert!(!refused.ok, "{}", refused.all());
    let refused = found("the refusal", &|event| event["impersonatedUser"]["username"] == "jane");
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(refused["impersonatedUser"]["groups"][0], "people");
    assert_ne!(refused["user"]["username"], "jane");

    let server = format!("https://{}:{}", host.address(), host.port());
    let stranger = host.run("curl", &["-sk", "-H", "Authorization: Bearer nonsense", &format!("{server}/metrics")]);
    assert!(stranger.stdout.contains("Unauthorized"), "{}", stranger.all());
    let stranger = found("the stranger", &|event| event["responseStatus"]["code"] == 401);
    assert_eq!((&stranger["stage"], &stranger["verb"]), (&"ResponseStarted".into(), &"get".into()));

    let watched = kubectl.try_run(&["get", "configmaps", "-w", "--request-timeout=2s"]);
    let begun = found("the watch", &|event| {
        event["verb"] == "watch" && event["stage"] == "ResponseStarted" && event["userAgent"] == created["userAgent"]
    });
    let ended = |event: &Value| event["stage"] == "ResponseComplete" && event["auditID"] == begun["auditID"];
    found(&format!("the end of the watch ({})", watched.all()), &ended);

    assert!(host.terminate(), "{}", host.log());
    let text = std::fs::read_to_string(&log).expect("the log is there");
    assert!(!text.contains("swordfish") && !text.contains("c3dvcmRmaXNo"), "a secret is in the log");
    for event in events(&log) {
        assert_eq!((&event["kind"], &event["apiVersion"]), (&"Event".into(), &"audit.k8s.io/v1".into()));
        assert_ne!(event["stage"], "RequestReceived", "{event}");
    }
}
