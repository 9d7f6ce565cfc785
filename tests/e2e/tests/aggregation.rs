//! An API that another API server answers for: a second Kedge with a kind of its own behind the first one, met with kubectl.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kedge_e2e::{Host, HostOptions, eventually, kedge_binary, output_of};

const PATIENCE: Duration = Duration::from_secs(60);

const DEFINITION: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: flunders.wardle.example}
spec:
  group: wardle.example
  scope: Namespaced
  names: {plural: flunders, singular: flunder, kind: Flunder}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {
      spec: {type: object, description: What a flunder is., properties: {color: {type: string}}}}}}}
";

/// A second API server, which believes the first one's word about who asks.
struct Extension {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Extension {
    fn start(pki: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("kedge-e2e-").tempdir().expect("a directory can be made");
        kedge_pki::ensure_service_account_key(dir.path()).expect("a key can be made");
        let program = dir.path().join("kube-apiserver");
        symlink(kedge_binary().expect("there is a binary"), &program).expect("a link can be made");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port is free").port();
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut command = Command::new(program);
        command.args(["--store=embedded", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"]);
        command.args([&format!("--secure-port={port}"), "--service-cluster-ip-range=10.97.0.0/16"]);
        command.args(["--service-account-issuer=https://flunders.example"]);
        command.args([
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
        ]);
        command.args(["--requestheader-group-headers=X-Remote-Group"]);
        command.args(["--requestheader-extra-headers-prefix=X-Remote-Extra-"]);
        command.args([
            flag("store-dir", &dir.path().join("store")),
            flag("cert-dir", &dir.path().join("pki")),
            flag("service-account-signing-key-file", &dir.path().join("sa.key")),
            flag("service-account-key-file", &dir.path().join("sa.pub")),
            flag("client-ca-file", &pki.join("ca.crt")),
            flag("requestheader-client-ca-file", &pki.join("front-proxy-ca.crt")),
        ]);
        let log = std::fs::File::create(dir.path().join("log")).expect("a file can be made");
        let child = command.stdin(Stdio::null()).stderr(log).spawn().expect("it starts");
        Self { child, port, _dir: dir }
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn another_api_server_has_a_kind_of_its_own() {
    let Some(host) = Host::up(HostOptions { control_plane_only: true, ..HostOptions::default() }) else { return };
    let kubectl = host.kubectl();
    let pki = host.data_dir().join("pki");
    let extension = Extension::start(&pki);
    define(&extension, &pki, &host.file("definition.yaml"));
    kubectl.apply(&format!(
        "apiVersion: v1
kind: Service
metadata: {{name: flunders}}
spec: {{type: ExternalName, externalName: localhost}}
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1.wardle.example}}
spec:
  group: wardle.example
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 10
  insecureSkipTLSVerify: true
  service: {{name: flunders, namespace: default, port: {}}}
",
        extension.port
    ));
    kubectl.run(&["wait", "--for=condition=Available", "--timeout=60s", "apiservice/v1.wardle.example"]);
    kubectl.apply("apiVersion: wardle.example/v1\nkind: Flunder\nmetadata: {name: one}\nspec: {color: red}\n");
    kubectl.run(&["patch", "flunder", "one", "--type=merge", "-p", "{\"spec\":{\"color\":\"blue\"}}"]);
    assert_eq!(kubectl.run(&["get", "flunders", "-o", "jsonpath={.items[*].spec.color}"]), "blue");
    assert!(kubectl.run(&["get", "--raw", "/openapi/v3/apis/wardle.example/v1"]).contains("What a flunder is."));
    let seen = kubectl.run(&["get", "--raw", "/apis/wardle.example/v1/flunders?watch=1&timeoutSeconds=1"]);
    assert!(seen.contains("\"type\":\"ADDED\"") && seen.contains("\"blue\""), "{seen}");
    let refused = kubectl.try_run(&["get", "flunders", "--as", "nobody"]);
    assert!(
        !refused.ok && refused.all().contains("User \"nobody\" cannot list resource \"flunders\""),
        "{}",
        refused.all()
    );
    drop(extension);
    eventually("an APIService that says what is missing", PATIENCE, || {
        let reason = "jsonpath={.status.conditions[0].reason}";
        match kubectl.run(&["get", "apiservice", "v1.wardle.example", "-o", reason]).as_str() {
            "FailedDiscoveryCheck" => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    // What this server answers for itself goes on.
    kubectl.run(&["get", "namespaces"]);
}

/// Asks the second server itself, as the first one's administrator.
fn define(extension: &Extension, pki: &Path, file: &Path) {
    std::fs::write(file, DEFINITION).expect("a file can be written");
    eventually("a definition that is taken", PATIENCE, || {
        let mut command = Command::new("kubectl");
        command.arg(format!("--server=https://127.0.0.1:{}", extension.port)).arg("--insecure-skip-tls-verify");
        command.arg("--kubeconfig=/dev/null").arg("--client-certificate").arg(pki.join("admin.crt"));
        command.arg("--client-key").arg(pki.join("admin.key")).args(["apply", "-f"]).arg(file);
        let output = output_of(command);
        if output.ok { Ok(()) } else { Err(output.all()) }
    });
}
