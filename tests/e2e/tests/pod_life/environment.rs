//! What a container is told about itself: environment, downward API, expansion, sub-paths, names and `/etc/hosts`.

use kedge_e2e::{BUSYBOX, HostOptions, Node, container, script_spec};

fn lines_contain(output: &str, expected: &[&str]) {
    for line in expected {
        assert!(output.lines().any(|seen| seen == *line), "{line:?} is missing in:\n{output}");
    }
}

#[test]
fn environments_come_from_objects_fields_and_files() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    let kubectl = &node.kubectl;
    kubectl.run(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=data-1=value-1",
        "--from-literal=1-data=digit",
        "--from-literal=with.dot=dotted",
    ]);
    kubectl.run(&["create", "secret", "generic", "keys", "--from-literal=token=hidden"]);
    kubectl.run(&["create", "service", "clusterip", "fooservice", "--tcp=8765:8080"]);
    objects(&node);
    fields(&node);
    amounts(&node);
    expansion(&node);
    files(&node);
    fields_hold(&node);
    amounts_hold(&node);
    let output = node.output("objects");
    lines_contain(
        &output,
        &["ONE=value-1", "p-1-data=digit", "p-with.dot=dotted", "p-data-1=value-1", "TOKEN=hidden", "s_token=hidden"],
    );
    // Any printable character but one.
    lines_contain(
        &output,
        &["1_data-1=value-1", "$_data-1=value-1", "1-token=hidden", "a\\b!token=hidden", "#$%&token=hidden"],
    );
    let address = kubectl.run(&["get", "service", "fooservice", "-o", "jsonpath={.spec.clusterIP}"]);
    let expected = [
        format!("FOOSERVICE_SERVICE_HOST={address}"),
        "FOOSERVICE_SERVICE_PORT=8765".to_owned(),
        format!("FOOSERVICE_PORT=tcp://{address}:8765"),
        format!("FOOSERVICE_PORT_8765_TCP_ADDR={address}"),
        "KUBERNETES_SERVICE_PORT_HTTPS=443".to_owned(),
    ];
    lines_contain(&output, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(!output.contains("OPTIONAL="), "{output}");
    assert_eq!(node.output("expansion"), "foo;;bar $(FOO) $(NONE) arg=foo\n");
    lines_contain(&node.output("files"), &["KEY=from a file"]);
    node.event("missing", "Failed Error: configmap \"none\" not found");
    let missing = node.get("pod", "missing");
    assert_eq!(container(&missing, "c")["state"]["waiting"]["reason"], "CreateContainerConfigError");
    for kind in ["ConfigMap", "Secret"] {
        let object = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: empty-key}}\ndata: {{'': dmFsdWU=}}\n");
        let empty = kubectl.try_run_with(&["create", "-f", "-"], &object);
        assert!(!empty.ok && empty.stderr.contains("Invalid value: \"\""), "{}", empty.all());
    }
}

fn objects(node: &Node) {
    let container = "    env:
    - {name: ONE, valueFrom: {configMapKeyRef: {name: settings, key: data-1}}}
    - {name: OPTIONAL, valueFrom: {configMapKeyRef: {name: none, key: x, optional: true}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    envFrom:
    - {prefix: p-, configMapRef: {name: settings}}
    - {prefix: s_, secretRef: {name: keys}}
    - {configMapRef: {name: none, optional: true}}
    - {prefix: '1_', configMapRef: {name: settings}}
    - {prefix: '$_', configMapRef: {name: settings}}
    - {prefix: '1-', secretRef: {name: keys}}
    - {prefix: 'a\\b!', secretRef: {name: keys}}
    - {prefix: '#$%&', secretRef: {name: keys}}
";
    // A shell would drop the names that are none to it.
    let spec = script_spec("", container, "").replace("command: [sh, -c, \"\"]", "command: [env]");
    node.pod("objects", &spec);
    let container = "    env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: x}}}]\n";
    node.script("missing", "true", container, "");
}

fn fields(node: &Node) {
    let variable = |name: &str, path: &str| {
        format!("    - {{name: {name}, valueFrom: {{fieldRef: {{fieldPath: \"{path}\"}}}}}}\n")
    };
    let all = [
        ("NAME", "metadata.name"),
        ("NAMESPACE", "metadata.namespace"),
        ("UUID", "metadata.uid"),
        ("LABEL", "metadata.labels['app']"),
        ("NODE", "spec.nodeName"),
        ("ACCOUNT", "spec.serviceAccountName"),
        ("POD_IP", "status.podIP"),
        ("POD_IPS", "status.podIPs"),
        ("HOST_IP", "status.hostIP"),
        ("HOST_IPS", "status.hostIPs"),
    ];
    let env: String = all.iter().map(|(name, path)| variable(name, path)).collect();
    node.script("fields", "env; sleep 3600", &format!("    env:\n{env}"), "");
}

fn fields_hold(node: &Node) {
    let pod = node.ready("fields");
    let text = |pointer: &str| pod.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let host = node.host.address();
    let expected = [
        "NAME=fields".to_owned(),
        "NAMESPACE=default".to_owned(),
        format!("UUID={}", text("/metadata/uid")),
        "LABEL=fields".to_owned(),
        "NODE=node-1".to_owned(),
        "ACCOUNT=default".to_owned(),
        format!("POD_IP={}", text("/status/podIP")),
        format!("POD_IPS={}", text("/status/podIPs/0/ip")),
        format!("HOST_IP={host}"),
        format!("HOST_IPS={host}"),
    ];
    lines_contain(&node.logs("fields", None), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(text("/status/hostIP"), host);
    assert_eq!(text("/status/hostIPs/0/ip"), host);
}

fn amounts(node: &Node) {
    let variable = |name: &str, resource: &str, divisor: &str| {
        format!(
            "    - {{name: {name}, valueFrom: {{resourceFieldRef: {{resource: {resource}, divisor: '{divisor}'}}}}}}\n"
        )
    };
    let env = variable("CPU_LIMIT", "limits.cpu", "0")
        + &variable("CPU_MILLIS", "limits.cpu", "1m")
        + &variable("CPU_REQUEST", "requests.cpu", "0")
        + &variable("MEMORY_LIMIT", "limits.memory", "0")
        + &variable("MEMORY_REQUEST", "requests.memory", "1Mi");
    let resources = "    resources: {requests: {cpu: 250m, memory: 32Mi}, limits: {cpu: 1250m, memory: 64Mi}}\n";
    node.script("amounts", "env", &format!("    env:\n{env}{resources}"), "");
    node.script("default-amounts", "env", &format!("    env:\n{env}"), "");
}

fn amounts_hold(node: &Node) {
    let expected = ["CPU_LIMIT=2", "CPU_MILLIS=1250", "CPU_REQUEST=1", "MEMORY_LIMIT=67108864", "MEMORY_REQUEST=32"];
    lines_contain(&node.output("amounts"), &expected);
    let output = node.output("default-amounts");
    let of_node = node.get("node", "node-1");
    let cpu = of_node["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_owned();
    let cpu = format!("CPU_LIMIT={cpu}");
    lines_contain(&output, &[&cpu, "CPU_REQUEST=0", "MEMORY_REQUEST=0"]);
    let memory = output.lines().find_map(|line| line.strip_prefix("MEMORY_LIMIT=")?.parse::<u64>().ok());
    assert!(memory.is_some_and(|bytes| bytes > 64 << 20), "{output}");
}

fn expansion(node: &Node) {
    let spec = format!(
        "  restartPolicy: Never
  containers:
  - name: c
    image: '{BUSYBOX}'
    command: [sh, -c, 'echo \"$(BOTH) $0 $1 $2\"']
    args: ['$$(FOO)', '$(NONE)', 'arg=$(FOO)']
    env:
    - {{name: FOO, value: foo}}
    - {{name: BAR, value: bar}}
    - {{name: BOTH, value: '$(FOO);;$(BAR)'}}
"
    );
    node.pod("expansion", &spec);
}

fn files(node: &Node) {
    let init = format!(
        "  initContainers:
  - name: i
    image: '{BUSYBOX}'
    command: [sh, -c, \"echo \\\"KEY='from a file' # note\\\" > /shared/env\"]
    volumeMounts: [{{name: shared, mountPath: /shared}}]
  volumes: [{{name: shared, emptyDir: {{}}}}]
"
    );
    let container = "    env: [{name: KEY, valueFrom: {fileKeyRef: {volumeName: shared, path: env, key: KEY}}}]\n";
    node.script("files", "env", container, &init);
}

#[test]
fn paths_and_names_are_the_pods_own() {
    let Some(node) = Node::up(HostOptions::default()) else { return };
    sub_paths(&node);
    names(&node);
    sub_paths_hold(&node);
    names_hold(&node);
}

const WORK: &str = "  volumes: [{name: work, emptyDir: {}}]\n";

fn sub_path(value: &str, expression: &str) -> String {
    format!(
        "    env:
    - {{name: VALUE, {value}}}
    volumeMounts:
    - {{name: work, mountPath: /whole}}
    - {{name: work, mountPath: /part, subPathExpr: {expression}}}
"
    )
}

fn sub_paths(node: &Node) {
    let own = "valueFrom: {fieldRef: {fieldPath: metadata.name}}";
    let script = "touch /part/here && test -f /whole/sub-path/deep/here && echo fine";
    node.script("sub-path", script, &sub_path(own, "$(VALUE)/deep"), WORK);
    node.script("absolute", "true", &sub_path("value: /tmp", "$(VALUE)"), WORK);
    node.script("dots", "true", &sub_path("value: ..", "$(VALUE)"), WORK);
    let noted = "valueFrom: {fieldRef: {fieldPath: \"metadata.annotations['where']\"}}";
    // Without the annotation the path begins with a slash.
    node.script("later", "touch /part/here; ls /whole/there/deep", &sub_path(noted, "$(VALUE)/deep"), WORK);
}

fn sub_paths_hold(node: &Node) {
    assert_eq!(node.output("sub-path"), "fine\n");
    for pod in ["absolute", "dots"] {
        let refused = node.until(pod, "being refused", |seen| {
            container(seen, "c")["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        });
        assert_eq!(refused["status"]["phase"], "Pending");
    }
    node.event("absolute", "error SubPath `/tmp` must not be an absolute path");
    node.event("dots", "unable to provision SubPath `..`: must not contain '..'");
    node.event("later", "error SubPath `/deep` must not be an absolute path");
    node.kubectl.run(&["annotate", "pod", "later", "where=there"]);
    assert_eq!(node.output("later"), "here\n");
}

fn names(node: &Node) {
    let aliases = "  hostAliases: [{ip: 123.45.67.89, hostnames: [foo, bar]}]\n";
    node.script("aliased", "cat /etc/hosts; sleep 3600", "", aliases);
    let full = "  hostname: web\n  subdomain: sub\n  setHostnameAsFQDN: true\n";
    node.script("full", "hostname; cat /etc/hosts", "", full);
    node.script(
        "too-long",
        "true",
        "",
        &format!("  hostname: {}\n  subdomain: sub\n  setHostnameAsFQDN: true\n", "x".repeat(60)),
    );
    let own = "    volumeMounts: [{name: hosts, mountPath: /etc/hosts}]\n";
    node.script(
        "own-hosts",
        "cat /etc/hosts",
        own,
        "  volumes: [{name: hosts, hostPath: {path: /etc/hosts, type: File}}]\n",
    );
    node.script("host-net", "cat /etc/hosts; hostname", "", "  hostNetwork: true\n");
}

fn names_hold(node: &Node) {
    let address = node.address("aliased");
    let hosts = node.logs("aliased", None);
    assert!(hosts.starts_with("# Kubernetes-managed hosts file.\n"), "{hosts}");
    lines_contain(
        &hosts,
        &["123.45.67.89\tfoo\tbar", &format!("{address}\taliased"), "# Entries added by HostAliases."],
    );
    let full = node.output("full");
    assert!(full.starts_with("web.sub.default.svc.cluster.local\n"), "{full}");
    assert!(full.contains("\tweb.sub.default.svc.cluster.local\tweb"), "{full}");
    node.event("too-long", "FailedCreatePodSandBox Failed to create pod sandbox: failed to construct FQDN");
    assert!(!node.output("own-hosts").contains("Kubernetes-managed"), "a container's own file stays");
    assert!(node.output("host-net").starts_with("# Kubernetes-managed hosts file (host network).\n"));
}
