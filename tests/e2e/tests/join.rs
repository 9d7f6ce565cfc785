//! How a machine comes to be a node with nothing but a bootstrap token, and a person a user with nothing but a key: tokens,
//! `cluster-info`, requests for certificates, their approval, rotation's files.
//!
//! One cluster for all checks, whose only node is a kubelet that is a process of its own.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kedge_e2e::{Host, HostOptions, Kubectl, NodeAgent, condition, eventually};
use kedge_pki::{
    CertificateFacts, Identity, KubeconfigCluster, KubeconfigUser, LeafRequest, PendingIdentity, write_kubeconfig,
};
use serde_json::{Value, json};

const BUSYBOX: &str = "localhost/busybox:test";
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn a_machine_with_a_token_becomes_a_node() {
    if kedge_skip::skipped_without_containers("a_machine_with_a_token_becomes_a_node") {
        return;
    }
    let options = HostOptions { flags: vec!["--control-plane-only".to_owned()], ..HostOptions::default() };
    let Some(host) = Host::up(options) else { return };
    let kubectl = host.kubectl();
    let token = tokens_are_made_listed_and_refused(&host);
    cluster_info_is_signed(&kubectl, &token, true);
    let mut agent = NodeAgent::bootstrap(&host, BUSYBOX, &token);
    the_node_is_ready(&kubectl, &agent);
    the_request_was_the_tokens(&kubectl, &token);
    the_serving_certificate_comes_with_an_approval(&kubectl);
    a_person_gets_a_certificate(&host, &kubectl);
    the_token_ends_and_the_node_stays(&host, &kubectl, &mut agent, &token);
    certificates_are_looked_after(&host);
}

fn json(kubectl: &Kubectl, arguments: &[&str]) -> Value {
    let text = kubectl.run(&[&["get", "-o", "json"], arguments].concat());
    serde_json::from_str(&text).expect("kubectl prints JSON")
}

fn tokens_are_made_listed_and_refused(host: &Host) -> String {
    let kubeconfig = host.kubeconfig().display().to_string();
    let token = |arguments: &[&str]| host.kedge("token", &[&["--kubeconfig", &kubeconfig], arguments].concat());
    let made = token(&["create", "--print-join-command", "--description", "for the test"]);
    assert!(made.ok, "{}", made.all());
    let words: Vec<&str> = made.stdout.split_whitespace().collect();
    let [_, "join", endpoint, "--token", text, "--discovery-token-ca-cert-hash", pin] = words[..] else {
        panic!("{}", made.all());
    };
    assert_eq!(endpoint, format!("{}:{}", host.address(), host.port()));
    let authority = std::fs::read_to_string(host.data_dir().join("pki/ca.crt")).expect("the authority is there");
    assert_eq!(kedge_pki::public_key_pin(&authority).as_deref(), Ok(pin));
    let listed = token(&["list"]);
    assert!(listed.stdout.starts_with("TOKEN                     TTL       EXPIRES"), "{}", listed.all());
    let line = listed.stdout.lines().find(|line| line.starts_with(text)).expect("the token is listed");
    for part in ["23h", "authentication,signing", "for the test", "system:bootstrappers:kubeadm:default-node-token"] {
        assert!(line.contains(part), "{line}");
    }
    let again = token(&["create", text]);
    let id = &text[..6];
    assert!(!again.ok && again.all().contains(&format!("a token with id {id:?} already exists")), "{}", again.all());
    let wrong = token(&["delete", "nonsense"]);
    assert!(!wrong.ok && wrong.all().contains("given token didn't match pattern"), "{}", wrong.all());
    text.to_owned()
}

fn cluster_info_is_signed(kubectl: &Kubectl, token: &str, is_signed: bool) {
    let (id, secret) = token.split_once('.').expect("it is a token");
    eventually("the signature in cluster-info", PATIENCE, || {
        let found = kubectl.try_run(&["get", "configmap", "-n", "kube-public", "cluster-info", "-o", "json"]);
        let map: Value = serde_json::from_str(&found.stdout).map_err(|_| found.all())?;
        let text = |key: &str| map["data"][key].as_str().unwrap_or_default().to_owned();
        let (content, signature) = (text("kubeconfig"), text(&format!("jws-kubeconfig-{id}")));
        let is_good = kedge_auth::is_detached_signature(&signature, &content, id, secret);
        if is_good == is_signed && !content.is_empty() { Ok(()) } else { Err(map.to_string()) }
    });
}

fn the_node_is_ready(kubectl: &Kubectl, agent: &NodeAgent) {
    eventually("the node", PATIENCE, || {
        let found = kubectl.try_run(&["get", "node", "node-1", "-o", "json"]);
        let node: Value =
            serde_json::from_str(&found.stdout).map_err(|_| format!("{}\n{}", found.all(), agent.log()))?;
        if condition(&node, "Ready")["status"] == "True" {
            Ok(())
        } else {
            Err(node["status"]["conditions"].to_string())
        }
    });
    let current =
        std::fs::read_to_string(agent.file("pki/kubelet-client-current.pem")).expect("the certificate is kept");
    let facts = CertificateFacts::read(&current).expect("it is a certificate");
    assert_eq!(
        (facts.common_name.as_str(), facts.organizations),
        ("system:node:node-1", vec!["system:nodes".to_owned()])
    );
    assert!(current.contains("PRIVATE KEY"));
    let kubeconfig = std::fs::read_to_string(agent.file("kubelet.conf")).expect("the kubeconfig was written");
    assert!(kubeconfig.contains("kubelet-client-current.pem") && !kubeconfig.contains("token"), "{kubeconfig}");
}

fn requests_of(kubectl: &Kubectl, signer: &str) -> Vec<Value> {
    let all = json(kubectl, &["certificatesigningrequests"]);
    let all = all["items"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|request| request["spec"]["signerName"] == signer).collect()
}

fn the_request_was_the_tokens(kubectl: &Kubectl, token: &str) {
    let requests = requests_of(kubectl, "kubernetes.io/kube-apiserver-client-kubelet");
    let request = requests.first().expect("there is a request");
    assert_eq!(request["spec"]["username"], format!("system:bootstrap:{}", &token[..6]));
    let approved = &request["status"]["conditions"][0];
    assert_eq!((&approved["type"], &approved["reason"]), (&json!("Approved"), &json!("AutoApproved")));
    assert_eq!(approved["message"], "Auto approving kubelet client certificate after SubjectAccessReview.");
}

fn the_serving_certificate_comes_with_an_approval(kubectl: &Kubectl) {
    let healthz = || kubectl.try_run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"]);
    assert!(!healthz().ok, "the kubelet has a certificate that nobody approved");
    let name = eventually("the request for the serving certificate", PATIENCE, || {
        let found = requests_of(kubectl, "kubernetes.io/kubelet-serving");
        found
            .first()
            .and_then(|request| request["metadata"]["name"].as_str().map(str::to_owned))
            .ok_or_else(|| "none".to_owned())
    });
    kubectl.run(&["certificate", "approve", &name]);
    eventually("the kubelet's server", PATIENCE, || {
        let answer = healthz();
        if answer.ok && answer.stdout.trim() == "ok" { Ok(()) } else { Err(answer.all()) }
    });
}

fn a_person_gets_a_certificate(host: &Host, kubectl: &Kubectl) {
    let pending = PendingIdentity::new(&LeafRequest::client("jane", &["dev"])).expect("a key can be made");
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "jane"},
        "spec": {"request": STANDARD.encode(&pending.request_pem), "signerName": "kubernetes.io/kube-apiserver-client",
            "usages": ["client auth"], "expirationSeconds": 3600},
    });
    kubectl.apply(&request.to_string());
    kubectl.run(&["certificate", "approve", "jane"]);
    let certificate_pem = eventually("jane's certificate", PATIENCE, || {
        let request = json(kubectl, &["certificatesigningrequest", "jane"]);
        let pem = request["status"]["certificate"].as_str().and_then(|text| STANDARD.decode(text).ok());
        pem.and_then(|pem| String::from_utf8(pem).ok()).ok_or_else(|| request.to_string())
    });
    let cluster = KubeconfigCluster::read(&host.kubeconfig()).expect("the kubeconfig can be read");
    let path = host.file("jane.conf");
    let user = KubeconfigUser::Embedded(Identity { certificate_pem, key_pem: pending.key_pem });
    write_kubeconfig(&path, "kubernetes", "jane", &cluster, &user).expect("the kubeconfig can be written");
    let who = kubectl.run(&["--kubeconfig", &path.display().to_string(), "auth", "whoami", "-o", "json"]);
    let who: Value = serde_json::from_str(&who).expect("kubectl prints JSON");
    assert_eq!(who["status"]["userInfo"]["username"], "jane");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));
}

fn the_token_ends_and_the_node_stays(host: &Host, kubectl: &Kubectl, agent: &mut NodeAgent, token: &str) {
    let kubeconfig = host.kubeconfig().display().to_string();
    let deleted = host.kedge("token", &["--kubeconfig", &kubeconfig, "delete", token]);
    assert_eq!(deleted.stdout.trim(), format!("bootstrap token {:?} deleted", &token[..6]));
    cluster_info_is_signed(kubectl, token, false);
    let requests = requests_of(kubectl, "kubernetes.io/kube-apiserver-client-kubelet").len();
    agent.kill_kubelet();
    agent.start_kubelet(host);
    eventually("the kubelet's server again", PATIENCE, || {
        let answer = kubectl.try_run(&["get", "--raw", "/api/v1/nodes/node-1/proxy/healthz"]);
        if answer.ok { Ok(()) } else { Err(format!("{}\n{}", answer.all(), agent.log())) }
    });
    assert_eq!(requests_of(kubectl, "kubernetes.io/kube-apiserver-client-kubelet").len(), requests);
}

fn certificates_are_looked_after(host: &Host) {
    let (pki, conf) = (host.data_dir().join("pki"), host.data_dir());
    let dirs = ["--cert-dir", pki.to_str().expect("text"), "--kubeconfig-dir", conf.to_str().expect("text")];
    let shown = host.kedge("certs", &[&["check-expiration"], &dirs[..]].concat());
    let line = |name: &str| {
        let found = shown.stdout.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {name} in\n{}", shown.all()))
    };
    assert!(line("CERTIFICATE ").contains("EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY"));
    assert!(
        line("apiserver ").contains("364d") && line("ca ").contains("9y") && line("!MISSING! scheduler.conf").len() > 1
    );
    let serial = || std::fs::read_to_string(pki.join("apiserver.crt")).expect("the certificate is there");
    let before = serial();
    let renewed = host.kedge("certs", &[&["renew", "apiserver"], &dirs[..]].concat());
    assert_eq!(renewed.stdout.trim(), "certificate for serving the Kubernetes API renewed", "{}", renewed.all());
    assert_ne!(serial(), before);
    // The API server shows it to whoever connects from now on.
    let facts = CertificateFacts::read(&serial()).expect("it is a certificate");
    eventually("the API server with its new certificate", PATIENCE, || {
        let address = format!("{}:{}", host.address(), host.port());
        let shown = host.run("openssl", &["s_client", "-connect", &address, "-showcerts"]);
        let found = CertificateFacts::read(&shown.stdout[shown.stdout.find("-----BEGIN").unwrap_or(0)..]);
        match found {
            Ok(found) if found.not_before == facts.not_before => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let key = host.kedge("certs", &["certificate-key"]);
    assert_eq!(key.stdout.trim().len(), 64);
}
