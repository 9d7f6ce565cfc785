//! `kedge up --control-plane-only` with real kubectl: no root, no containers.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, eventually, free_port};

fn control_plane() -> Option<Host> {
    Host::up(HostOptions { control_plane_only: true, ..HostOptions::default() })
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: example/web:1, ports: [{containerPort: 80}]}]
";

#[test]
fn kubectl_finds_its_way_around() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    let resources = kubectl.run(&["api-resources"]);
    for kind in ["Pod", "Deployment", "CronJob", "Lease", "EndpointSlice", "ClusterRole", "Ingress", "StorageClass"] {
        assert!(resources.lines().any(|line| line.trim_end().ends_with(kind)), "{kind} is not in\n{resources}");
    }
    assert!(kubectl.run(&["explain", "pod.spec.containers"]).contains("livenessProbe"));
    assert!(kubectl.run(&["get", "--raw", "/readyz"]).contains("ok"));
    assert!(kubectl.run(&["version"]).contains("v1.36"));
    let namespaces = kubectl.run(&["get", "namespaces", "-o", "name"]);
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
    }
    assert!(kubectl.run(&["auth", "can-i", "delete", "nodes"]).contains("yes"));
    let denied = kubectl.try_run(&["auth", "can-i", "list", "secrets", "--as", "jane"]);
    assert!(denied.stdout.contains("no"), "{}", denied.all());
    let services = kubectl.run(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]);
    assert_eq!(services, "10.96.0.1");
}

#[test]
fn objects_can_be_made_changed_and_deleted() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    assert!(kubectl.apply(DEPLOYMENT).contains("deployment.apps/web created"));
    assert!(kubectl.apply(DEPLOYMENT).contains("unchanged"));
    eventually("two pods", Duration::from_secs(20), || {
        let pods = kubectl.run(&["get", "pods", "-l", "app=web", "-o", "name"]);
        if pods.lines().count() == 2 { Ok(()) } else { Err(pods) }
    });
    kubectl.run(&["scale", "deployment", "web", "--replicas", "3"]);
    kubectl.run(&["label", "deployment", "web", "tier=front"]);
    kubectl.run(&["annotate", "deployment", "web", "note=a"]);
    let json = kubectl.run(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas} {.metadata.labels.tier}"]);
    assert_eq!(json, "3 front");
    let columns = "custom-columns=NAME:.metadata.name,REPLICAS:.spec.replicas";
    assert!(kubectl.run(&["get", "deployments", "-o", columns]).contains("web    3"));
    let server_side = kubectl.try_run_with(&["apply", "--server-side", "-f", "-"], DEPLOYMENT);
    assert!(server_side.all().contains("conflict"), "the scaled replicas are owned by another: {}", server_side.all());
    let forced = kubectl.try_run_with(&["apply", "--server-side", "--force-conflicts", "-f", "-"], DEPLOYMENT);
    assert!(forced.ok, "{}", forced.all());
    let diff = kubectl.try_run_with(&["diff", "-f", "-"], &DEPLOYMENT.replace("replicas: 2", "replicas: 5"));
    assert!(diff.stdout.contains("+  replicas: 5"), "{}", diff.all());
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "a=b"]);
    kubectl.run(&[
        "patch",
        "configmap",
        "settings",
        "--type",
        "json",
        "-p",
        r#"[{"op":"add","path":"/data/c","value":"d"}]"#,
    ]);
    kubectl.run(&["patch", "configmap", "settings", "--type", "merge", "-p", r#"{"data":{"a":null}}"#]);
    assert_eq!(kubectl.run(&["get", "configmap", "settings", "-o", "jsonpath={.data}"]), r#"{"c":"d"}"#);
    kubectl.run(&["delete", "deployment", "web"]);
    eventually("the pods to be collected", Duration::from_secs(30), || {
        let left = kubectl.run(&["get", "pods,replicasets", "-l", "app=web", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

#[test]
fn objects_can_be_edited_and_watched() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "configmap", "settings", "--from-literal", "color=blue"]);
    let seen = host.file("seen.txt");
    let mut watch =
        kubectl.command(&["get", "configmaps", "-w", "-o", "custom-columns=N:.metadata.name,C:.data.color"]);
    let output = std::fs::File::create(&seen).expect("the file can be made");
    let mut watch = watch.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).spawn().expect("kubectl runs");
    let wait_for = |line: &str| {
        eventually(&format!("{line:?} in the watch"), Duration::from_secs(20), || {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            if text.lines().any(|seen| words(seen) == line) { Ok(()) } else { Err(text) }
        });
    };
    wait_for("settings blue");
    let editor = host.file("editor.sh");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/color: blue/color: green/' \"$1\"\n")
        .expect("the script can be written");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755))
        .expect("the script can be made executable");
    let edited = kubectl.command(&["edit", "configmap", "settings"]).env("KUBE_EDITOR", &editor).output();
    let edited = edited.expect("kubectl runs");
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    wait_for("settings green");
    watch.kill().expect("our own child can be killed");
    watch.wait().expect("our own child can be waited for");
}

#[test]
fn a_namespace_takes_its_contents_along() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "namespace", "shop"]);
    eventually("the default service account", Duration::from_secs(10), || {
        let account = kubectl.try_run(&["-n", "shop", "get", "serviceaccount", "default"]);
        if account.ok { Ok(()) } else { Err(account.all()) }
    });
    kubectl.run(&["-n", "shop", "create", "configmap", "a", "--from-literal", "k=v"]);
    kubectl.run(&["-n", "shop", "create", "secret", "generic", "b", "--from-literal", "k=v"]);
    kubectl.run(&["delete", "namespace", "shop", "--timeout", "60s"]);
    let gone = kubectl.try_run(&["-n", "shop", "get", "configmap", "a"]);
    assert!(gone.stderr.contains("not found"), "{}", gone.all());
}

#[test]
fn bad_input_gets_upstreams_answer() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    let raw = |path: &str, body: &str| {
        let output = kubectl.try_run_with(&["create", "--raw", path, "-f", "-"], body);
        assert!(!output.ok, "{path} took {body}");
        output.all()
    };
    let path = "/api/v1/namespaces/default/configmaps";
    for (body, text) in [
        ("{\"kind\":", "unexpected end of JSON input"),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"},\"data\":{\"a\":1}}",
            "cannot unmarshal number",
        ),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"A_b\"}}",
            "a lowercase RFC 1123 subdomain",
        ),
        (
            "{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"a\"}}",
            "cannot be handled as a ConfigMap",
        ),
    ] {
        let answer = raw(path, body);
        assert!(answer.contains(text), "{body} got: {answer}");
    }
    let unknown = DEPLOYMENT.replace("replicas: 2", "replicas: 2\n  replicaz: 3");
    let strict = kubectl.try_run_with(&["apply", "--validate=strict", "-f", "-"], &unknown);
    assert!(strict.stderr.contains("unknown field \"spec.replicaz\""), "{}", strict.all());
    let warned = kubectl.try_run_with(&["apply", "--validate=warn", "-f", "-"], &unknown);
    assert!(warned.ok && warned.stderr.contains("unknown field \"spec.replicaz\""), "{}", warned.all());
    let mismatch = DEPLOYMENT
        .replace("matchLabels: {app: web}", "matchLabels: {app: other}")
        .replace("name: web,", "name: other,");
    let invalid = kubectl.try_run_with(&["create", "-f", "-"], &mismatch);
    assert!(invalid.stderr.contains("`selector` does not match template `labels`"), "{}", invalid.all());
    let large = format!(
        "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"big\"}},\"data\":{{\"a\":\"{}\"}}}}",
        "x".repeat(4 << 20)
    );
    let file = host.file("big.json");
    std::fs::File::create(&file).and_then(|mut f| f.write_all(large.as_bytes())).expect("the file can be written");
    let too_large = kubectl.try_run(&["create", "-f", file.to_str().expect("text")]);
    assert!(!too_large.ok && too_large.stderr.to_lowercase().contains("too large"), "{}", too_large.all());
}

#[test]
fn conflicting_updates_are_refused() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "configmap", "a", "--from-literal", "k=v"]);
    let old = kubectl.run(&["get", "configmap", "a", "-o", "yaml"]);
    kubectl.run(&["label", "configmap", "a", "x=y"]);
    let stale = kubectl.try_run_with(&["replace", "-f", "-"], &old);
    let text = "the object has been modified; please apply your changes to the latest version and try again";
    assert!(stale.stderr.contains(text), "{}", stale.all());
    let expired = kubectl.try_run(&["get", "--raw", "/api/v1/configmaps?limit=1&continue=nonsense"]);
    assert!(expired.stderr.contains("continue key is not valid"), "{}", expired.all());
    let future = kubectl.try_run(&["get", "--raw", "/api/v1/configmaps?resourceVersion=999999999999"]);
    assert!(future.stderr.contains("Too large resource version"), "{}", future.all());
}

#[test]
fn everything_acknowledged_survives_a_kill() {
    let Some(mut host) = control_plane() else { return };
    let kubectl = host.kubectl();
    for round in 0..3 {
        let names: Vec<String> = (0..5).map(|index| format!("kept-{round}-{index}")).collect();
        for name in &names {
            kubectl.run(&["create", "configmap", name, "--from-literal", "k=v"]);
        }
        host.kill();
        host.start();
        let found = kubectl.run(&["get", "configmaps", "-o", "name"]);
        for name in &names {
            assert!(found.contains(name), "{name} is lost; there are\n{found}");
        }
    }
}

#[test]
fn a_second_process_says_who_holds_the_data() {
    let Some(mut host) = control_plane() else { return };
    let second = host.kedge("up", &["--control-plane-only", "--node-ip", "127.0.0.1", "--secure-port", "1"]);
    let pid = host.pid().expect("the first one runs").to_string();
    assert!(!second.ok && second.stderr.contains(&format!("held by process {pid}")), "{}", second.all());
    let status = host.kedge("status", &[]);
    assert!(status.ok && status.stdout.contains("kube-apiserver"), "{}", status.all());
    assert!(host.terminate(), "SIGTERM ends it with 0");
    let status = host.kedge("status", &[]);
    assert!(!status.ok && status.stderr.contains("no cluster runs in"), "{}", status.all());
}

const TOOLS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tools.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: tools, kind: Tool, shortNames: [tl]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            description: What is wanted
            type: object
            required: [size]
            properties: {size: {type: integer, minimum: 1}, color: {type: string, default: red}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
";

#[test]
fn custom_resources_are_as_any_other() {
    let Some(host) = control_plane() else { return };
    let kubectl = host.kubectl();
    assert!(kubectl.apply(TOOLS).contains("created"));
    kubectl.run(&["wait", "--for", "condition=established", "crd/tools.example.com", "--timeout", "60s"]);
    kubectl.run(&["create", "namespace", "shop"]);
    let tool = |name: &str, size: &str| {
        format!(
            "apiVersion: example.com/v1\nkind: Tool\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{size: {size}}}\n"
        )
    };
    assert!(kubectl.apply(&tool("saw", "3")).contains("tool.example.com/saw created"));
    assert!(kubectl.apply(&tool("saw", "4")).contains("configured"));
    let row = kubectl.run(&["-n", "shop", "get", "tl"]);
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words, ["NAME", "SIZE", "saw", "4"]);
    assert_eq!(kubectl.run(&["-n", "shop", "get", "tool", "saw", "-o", "jsonpath={.spec.color}"]), "red");
    let refused = kubectl.try_run_with(&["create", "--validate=false", "-f", "-"], &tool("big", "0"));
    assert!(refused.stderr.contains("spec.size in body should be greater than or equal to 1"), "{}", refused.all());
    assert!(kubectl.run(&["explain", "tool.spec"]).contains("color"));
    assert!(kubectl.run(&["api-resources", "--api-group", "example.com"]).contains("tools"));
    // Owners and namespaces take them along.
    let owner = kubectl.run(&["-n", "shop", "get", "tool", "saw", "-o", "jsonpath={.metadata.uid}"]);
    let owned = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: part, namespace: shop, ownerReferences: [{{apiVersion: \
         example.com/v1, kind: Tool, name: saw, uid: {owner}}}]}}\n"
    );
    kubectl.apply(&owned);
    kubectl.run(&["-n", "shop", "delete", "tool", "saw"]);
    eventually("the part to go with its owner", Duration::from_secs(60), || {
        let part = kubectl.try_run(&["-n", "shop", "get", "configmap", "part"]);
        if part.stderr.contains("not found") { Ok(()) } else { Err(part.all()) }
    });
    kubectl.apply(&tool("drill", "1"));
    kubectl.run(&["delete", "namespace", "shop", "--timeout", "60s"]);
    kubectl.run(&["delete", "crd", "tools.example.com", "--timeout", "60s"]);
    // kubectl may still know of the resource for a while.
    let gone = kubectl.try_run(&["get", "tools"]);
    let says = ["doesn't have a resource type", "could not find the requested resource"];
    assert!(says.iter().any(|text| gone.stderr.contains(text)), "{}", gone.all());
}

#[test]
fn controllers_and_scheduler_show_how_they_do() {
    let ports = [free_port(), free_port()];
    let flags = ["--controller-manager-secure-port", "--scheduler-secure-port"].into_iter().zip(ports);
    let flags = flags.flat_map(|(flag, port)| [flag.to_owned(), port.to_string()]).collect();
    let options = HostOptions { control_plane_only: true, flags, ..HostOptions::default() };
    let Some(host) = Host::up(options) else { return };
    let kubectl = host.kubectl();
    kubectl.run(&["create", "serviceaccount", "reads"]);
    kubectl.run(&["create", "clusterrole", "reads", "--verb=get", "--non-resource-url=/metrics"]);
    kubectl.run(&["create", "clusterrolebinding", "reads", "--clusterrole=reads", "--serviceaccount=default:reads"]);
    kubectl.apply(DEPLOYMENT);
    let token = format!("Authorization: Bearer {}", kubectl.run(&["create", "token", "reads"]).trim());
    let authority = host.data_dir().join("pki/ca.crt");
    let ask = |port: u16, path: &str, header: &str| {
        let url = format!("https://127.0.0.1:{port}{path}");
        let mut command = Command::new("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "-H", header, &url, "--cacert"]).arg(&authority);
        let output = command.output().expect("curl runs");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let own = |host: &Host| format!("rest_client_requests_total{{code=\"201\",host=\"127.0.0.1:{}\"", host.port());
    let of_controllers = ["workqueue_adds_total{name=\"deployment\"} ".to_owned(), own(&host)];
    let attempts = "scheduler_schedule_attempts_total{result=\"unschedulable\",profile=\"default-scheduler\"} ";
    let of_scheduler = [attempts.to_owned()];
    for (port, name, families) in
        [(ports[0], "kube-controller-manager", &of_controllers[..]), (ports[1], "kube-scheduler", &of_scheduler)]
    {
        assert_eq!(ask(port, "/healthz", "a: b"), "ok\n200", "{name}");
        assert!(ask(port, "/metrics", "a: b").ends_with("403"), "{name}");
        assert!(ask(port, "/metrics", "Authorization: Bearer nonsense").ends_with("401"), "{name}");
        assert!(ask(port, "/statusz", &token).ends_with("403"), "{name}");
        for family in families {
            eventually(family, Duration::from_secs(30), || {
                let shown = ask(port, "/metrics", &token);
                if shown.contains(family.as_str()) { Ok(()) } else { Err(shown) }
            });
        }
    }
}
